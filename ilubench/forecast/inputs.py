"""What is known of a run's data and model: read where they are at hand, else as the suite states.

Nothing is fetched: the hub's client is told to stay offline meanwhile.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ilubench.data.rows import Tables
from ilubench.errors import AccessError, CannotApplyError, DataError, IlubenchError
from ilubench.experiments.experiment import Attack
from ilubench.forecast.anatomy import Anatomy, anatomy_of
from ilubench.forecast.asking import asked_of, stated_asking
from ilubench.forecast.lengths import MOST_ROWS, counted, evenly, joined, stated
from ilubench.forecast.work import Asking
from ilubench.interfaces import Lengths, Row, Scorer
from ilubench.models.forward import recipe_config
from ilubench.runs.stages.prompting import bind
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Inputs", "offline"]

_SAMPLE = 300
"""Rows that are looked at for their mean length, where a scorer cannot be built."""

_CHARACTERS = 4.0
"""Characters a token, where there is no tokenizer."""

_WORDS = 2000
"""Size of a vocabulary of words that is not made yet."""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's client off the network: what is not cached is an error at once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class Inputs:
    """Lengths, sizes and the model's anatomy, each found once.

    Args:
        bench: of the run.
        target: key of the target model; empty where it is not known.
    """

    def __init__(self, bench: Workbench, target: str) -> None:
        """Nothing is read before it is asked for."""
        self._bench, self._target = bench, target
        self._lengths: dict[str, Lengths] = {}
        self._asked: dict[str, Asking] = {}
        self._missing: dict[str, str] = {}
        self.stated: set[str] = set()

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase | None":
        """The model's tokenizer; None where the model is not at hand or not made yet."""
        try:
            return self._bench.tokenizer
        except IlubenchError:
            return None

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's anatomy: of its files, its recipe, or as stated.

        Raises:
            DataError: neither its files are at hand, nor is anything stated.
        """
        source = self._bench.suite.target
        try:
            if self._bench.given_target is None and source.recipe is not None:
                return self._of_recipe()
            return anatomy_of(self._bench.target_config)
        except AccessError as error:
            about = source.model.about if source.model is not None else None
            if about is None:
                raise DataError(
                    f"{error}; nothing states the model's shape either: "
                    "suite.target.model.about has `config`"
                ) from error
            self.stated.add("suite.target.model")
            return anatomy_of(recipe_config(about.config))

    def _of_recipe(self) -> Anatomy:
        recipe = self._bench.suite.target.recipe
        assert recipe is not None
        known = len(self.tokenizer) if self.tokenizer is not None else 0
        size = known or (recipe.tokenizer.vocab_size if recipe.tokenizer.kind == "bpe" else _WORDS)
        return anatomy_of(recipe_config({**recipe.config, "vocab_size": size}))

    def words(self, text: str) -> int:
        """Return how many tokens a text has, about where there is no tokenizer."""
        if self.tokenizer is None:
            return max(1, round(len(text) / _CHARACTERS))
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    # ----------------------------------------------------------------- data

    def lengths(self, roles: Sequence[str]) -> Lengths:
        """Return the roles' training sequences.

        Raises:
            DataError: rows that are at hand are wrong; or none are, and no size is stated.
        """
        return joined([self._of_role(role) for role in roles])

    def _of_role(self, role: str) -> Lengths:
        if role not in self._lengths:
            tables, longest = self._bench.tables, self._bench.suite.max_length
            try:
                self._lengths[role] = counted(tables, role, self.tokenizer, longest)
            except AccessError as error:
                source = tables.source(role)
                rows, tokens = self._stated(source, role, error)
                self._lengths[role] = stated(source, longest, round(rows), tokens)
        return self._lengths[role]

    def _stated(self, source: DataSource, role: str, error: AccessError) -> tuple[float, float]:
        """Return rows and mean tokens as stated, of a role or of what its generator is given."""
        self.stated.add(role)
        if source.about is None and source.generated:
            # what a generator makes of rows is taken to be as many and as long
            made = source.generated.partition(".")[0]
            given = self._bench.suite.all_generators()[made].inputs
            source = next((one for one in given.values() if one.about is not None), source)
        about = source.about
        if about is None:
            raise DataError(
                f"data.{role} is not at hand ({error}), and its size is not stated: data.{role}."
                "about has `rows` and `tokens`"
            ) from error
        rows = max(1, about.rows - source.offset)
        return float(min(rows, source.limit or rows)), about.tokens

    def size(self, role: str) -> tuple[float, float]:
        """Return a role's rows and their mean tokens, all columns together.

        Raises:
            DataError: none is at hand, and none stated.
        """
        tables: Tables = self._bench.tables
        try:
            rows = tables.rows(role)
        except AccessError as error:
            return self._stated(tables.source(role), role, error)
        some = evenly(rows, _SAMPLE)
        tokens = sum(_characters(row) for row in some) / len(some) / _CHARACTERS
        return float(len(rows)), tokens

    def asked(self, name: str, scorer: Scorer, owner: Any = None) -> Asking:  # noqa: ANN401
        """Return what a scorer asks at a checkpoint.

        Args:
            name: of the scorer, for what was found before.
            scorer: of the suite, or of an attack.
            owner: that attack.

        Raises:
            DataError: rows that are at hand are wrong; or none are, and no size is stated.
        """
        if name not in self._asked:
            self._asked[name] = self._count(scorer, owner)
        return self._asked[name]

    def prompted(self, name: str, scorer: Scorer, attack: Attack, seed: int) -> Asking:
        """Return what a scorer of the suite asks as a prompt attack asks it: longer, or more often.

        Nothing where it cannot apply the attack; as without it where the data are not at hand.

        Args:
            name: of the scorer.
            scorer: of the suite.
            attack: on prompts.
            seed: of the job.

        Raises:
            DataError: as `asked`.
        """
        plain, key = self.asked(name, scorer), f"{attack.name}: {name}"
        if key not in self._asked:
            self._asked[key] = plain
            if self.tokenizer is not None:
                rows, batch = self._bench.tables.rows, self._bench.suite.score_batch
                with contextlib.suppress(AccessError):
                    bound = bind(self._bench, attack, seed)
                    try:
                        found = asked_of(scorer, rows, self.tokenizer, batch, MOST_ROWS, bound)
                    except CannotApplyError:
                        found = Asking()
                    self._asked[key] = found
        return self._asked[key]

    def _count(self, scorer: Scorer, owner: Any) -> Asking:  # noqa: ANN401
        suite, tables = self._bench.suite, self._bench.tables

        def role(asked: str) -> str:
            return str(owner.role(asked, suite)) if owner is not None else asked

        def rows(asked: str) -> list[Row]:
            return tables.rows(role(asked))

        batch = suite.score_batch
        if self.tokenizer is not None:
            with contextlib.suppress(AccessError):
                return asked_of(scorer, rows, self.tokenizer, batch, MOST_ROWS)
        sizes = {asked: self.size(role(asked)) for asked in scorer.roles()}
        return stated_asking(scorer, sizes, batch)


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(below) for below in value.values())
    if isinstance(value, list | tuple):
        return sum(_characters(below) for below in value)
    return 0
