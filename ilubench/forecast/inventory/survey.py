"""The data and models of a run, one after the other: where they are, and whether they fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ilubench.data.hub import Listing, Repository, access, cached, fetch, listing, part_files
from ilubench.data.hub.models import (
    NO_TOKENIZER,
    TOKENIZER,
    has_tokenizer,
    needed_files,
    tokenizer_files,
)
from ilubench.data.hub.models import hub_repository as model_repository
from ilubench.data.rows import hub_repository, local_file
from ilubench.data.template import template_columns
from ilubench.errors import (
    AccessError,
    IlubenchError,
    ModelError,
    UnknownPartError,
    did_you_mean,
)
from ilubench.experiments.experiment import Attack, Experiment
from ilubench.experiments.training_text import trained_roles
from ilubench.forecast.inventory.supplies import Inventory, Supply, shown_size
from ilubench.forecast.needs import needed_models, needed_places
from ilubench.interfaces import ScoreContext, Scorer
from ilubench.specs import DataSource, ModelSource, SuiteSpec, TargetSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["examine_needs", "fetch_needs"]

AT_HAND = ("cached", "local", "made")

TARGET = "suite.target.model"

ELSEWHERE = f"name one: {TOKENIZER}.hub=NAME (or .path=FOLDER)"


def examine_needs(*experiments: Experiment) -> Inventory:
    """Look for the data and models of an experiment, or of several that differ in their method."""
    survey = _Survey(experiments, needed_places(*experiments))
    supplies = [survey.rows_of(place) for place in survey.places]
    supplies += [survey.model_of(name, source) for name, source in needed_models(*experiments)]
    survey.check_scorers({supply.field for supply in supplies if supply.state in AT_HAND})
    return Inventory(supplies=tuple(supplies), problems=tuple(survey.problems))


def fetch_needs(*experiments: Experiment, tell: Callable[[str], None]) -> Inventory:
    """Download what is not at hand, as far as it can be had; return what is there then.

    Args:
        experiments: whose data and models are wanted; several differ in their method alone.
        tell: is called with a line before and after each download.
    """
    survey = _Survey(experiments, needed_places(*experiments))
    for place in survey.places:
        survey.rows_of(place)
    for name, source in needed_models(*experiments):
        survey.model_of(name, source)
    wanted = [hold for hold in survey.holds.values() if hold.wanted]
    for hold in wanted:
        tell(f"{hold.repository.field}: {hold.told}")
    for hold in wanted:
        try:
            fetch(hold.repository, hold.found, hold.wanted)
        except AccessError:
            continue  # what is examined afterwards has it, with all else
        tell(f"{hold.repository.field}: fetched")
    return examine_needs(*experiments)


# --- inside ---


def _role_of(attack: Attack, suite: SuiteSpec) -> Callable[[str], str]:
    return lambda role: attack.role(role, suite)


def _itself(role: str) -> str:
    return role


def _bytes_tokenizer() -> "PreTrainedTokenizerBase":
    """A tokenizer of single bytes: items are rendered with it before any model is there."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    end = "<end>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate([*alphabet, end])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=end, eos_token=end, pad_token=end
    )
    turn = "{{ m['role'] + ': ' + m['content'] + eos_token }}"
    found.chat_template = (
        f"{{% for m in messages %}}{turn}{{% endfor %}}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    return found


@dataclass(frozen=True)
class _Hold:
    """The files of a repository that are to be downloaded for a role or model.

    Attributes:
        wanted: names; without those that another role wants, too, and was asked for before.
    """

    repository: Repository
    found: Listing
    wanted: tuple[str, ...]
    license: str

    @property
    def size(self) -> int:
        return self.found.size(self.wanted)

    @property
    def told(self) -> str:
        terms = "; gated: the terms that were accepted on its page apply" * self.found.gated
        at = f"{self.repository.name}@{self.found.commit[:12]}"
        return f"{at}, {shown_size(self.size)}, licence {self.license or 'not stated'}{terms}"


@dataclass
class _Survey:
    """Goes from place to place and keeps what is wrong."""

    experiments: Sequence[Experiment]
    places: dict[str, DataSource]
    problems: list[str] = field(default_factory=list)
    holds: dict[str, _Hold] = field(default_factory=dict)
    _states: dict[str, str] = field(default_factory=dict)
    _asked: dict[tuple[str, str, str], Listing | str] = field(default_factory=dict)

    @property
    def experiment(self) -> Experiment:
        """One of them, for what they have in common."""
        return self.experiments[0]

    def rows_of(self, place: str) -> Supply:
        """Look for the rows of a role, or of a generator's input."""
        source = self.places[place]
        if source.hub:
            supply = self._from_hub(hub_repository(source, place), source)
        elif source.path:
            supply = self._from_file(place, source)
        else:
            supply = self._made(place, source)
        if supply.state in AT_HAND:
            supply = self._counted(place, supply)
        self._states[place] = supply.state
        return supply

    def model_of(self, name: str, source: ModelSource | TargetSpec) -> Supply:
        """Look for a model, or for the tokenizer of one."""
        from ilubench.models.checkpoints import find_folder, find_tokenizer

        if isinstance(source, TargetSpec):
            return Supply(field=name, source="its recipe", state="made")
        if source.hub:
            return self._from_hub(model_repository(source, name), source)
        place = str(source.path or source.packaged)
        try:
            folder = (find_tokenizer if name == TOKENIZER else find_folder)(source, name)
            if self._reads(name) and not has_tokenizer(path.name for path in folder.iterdir()):
                raise ModelError(f"{folder}: {NO_TOKENIZER}; {ELSEWHERE}")
        except IlubenchError as error:
            self.problems.append(f"{name}: {error}")
            return Supply(field=name, source=place, state="missing", license=source.license)
        return Supply(field=name, source=place, state="local", license=source.license)

    def _reads(self, name: str) -> bool:
        """Whether it is the model whose own tokenizer reads the text."""
        return name == TARGET and self.experiment.suite.target.tokenizer is None

    def check_scorers(self, at_hand: set[str]) -> None:
        """Let every scorer whose rows are at hand render its items; no model is needed for it."""
        suite = self.experiment.suite
        scorers: list[tuple[str, Scorer, Callable[[str], str]]] = [
            (name, scorer, _itself) for name, scorer in self.experiment.scorers.items()
        ]
        for attack in self.experiment.attacks:
            if attack.fa is not None:
                scorers.append((f"{attack.name}/fa", attack.fa, _role_of(attack, suite)))
        tokenizer = None
        for name, scorer, role in scorers:
            if all(f"data.{role(asked)}" in at_hand for asked in scorer.roles()):
                tokenizer = tokenizer or _bytes_tokenizer()
                self._build(name, scorer, role, tokenizer)

    # ----------------------------------------------------------------- one place

    def _listed(self, repository: Repository) -> Listing | None:
        """A repository's files; asked for once, and refused once, whatever asks."""
        name = (repository.kind, repository.name, repository.revision)
        if name not in self._asked:
            try:
                self._asked[name] = listing(repository)
            except AccessError as error:
                self.problems.append(str(error))
                self._asked[name] = repository.field
                return None
        found = self._asked[name]
        if isinstance(found, str):
            self.problems.append(f"{repository.shown}: see {found}")
            return None
        return found

    def _from_hub(self, repository: Repository, source: DataSource | ModelSource) -> Supply:
        shown = f"{repository.name}@{repository.short}"
        missing = Supply(
            field=repository.field,
            source=shown,
            state="missing",
            gated=source.gated,
            license=source.license,
        )
        found = self._listed(repository)
        if found is None:
            return missing
        missing = missing.model_copy(
            update={
                "commit": found.commit,
                "gated": source.gated or found.gated,
                "license": source.license or found.license,
            }
        )
        try:
            if isinstance(source, DataSource):
                names = part_files(repository, found, source.subset, source.split, source.files)
            elif repository.field == TOKENIZER:
                names = tokenizer_files(repository, found)
            else:
                names = needed_files(repository, found)
                if self._reads(repository.field) and not has_tokenizer(names):
                    raise repository.error(UnknownPartError, NO_TOKENIZER, ELSEWHERE)
            here = set(cached(repository, found, names))
            if here.issuperset(names):
                return missing.model_copy(update={"state": "cached"})
            access(repository, found, names)
        except IlubenchError as error:
            self.problems.append(str(error))
            return missing
        taken = {
            (hold.repository.kind, hold.repository.name, hold.found.commit, name)
            for hold in self.holds.values()
            for name in hold.wanted
        }
        about = (repository.kind, repository.name, found.commit)
        wanted = tuple(n for n in names if n not in here and (*about, n) not in taken)
        hold = self.holds[repository.field] = _Hold(repository, found, wanted, missing.license)
        return missing.model_copy(update={"state": "to fetch", "bytes": hold.size})

    def _from_file(self, place: str, source: DataSource) -> Supply:
        supply = Supply(
            field=f"data.{place}",
            source=str(source.path),
            state="missing",
            gated=source.gated,
            license=source.license,
        )
        try:
            path = local_file(source, place)
        except IlubenchError as error:
            self.problems.append(str(error))
            return supply
        if not path.is_file():
            self.problems.append(f"data.{place}: no such file {str(path)!r}; check the path")
            return supply
        return supply.model_copy(update={"state": "local"})

    def _made(self, place: str, source: DataSource) -> Supply:
        assert source.generated is not None
        name = source.generated.split(".")[0]
        inputs = self.experiment.suite.all_generators()[name].inputs
        states = {self._states.get(f"{name}.{key}", "missing") for key in inputs}
        lacking: Literal["missing", "to fetch", "made"] = "made"
        if "missing" in states:
            lacking = "missing"  # the input is a problem already
        elif "to fetch" in states:
            lacking = "to fetch"
        return Supply(
            field=f"data.{place}",
            source=source.generated,
            state=lacking,
            gated=source.gated,
            license=source.license,
        )

    def _counted(self, place: str, supply: Supply) -> Supply:
        """Read the rows; check that the columns are there that the role's templates name."""
        tables = self.experiment.tables
        if place not in tables.roles:
            return supply  # a generator's input: the generator reads it, and says what lacks
        try:
            rows = tables.rows(place)
        except IlubenchError as error:
            self.problems.append(str(error))
            return supply.model_copy(update={"state": "missing"})
        source = tables.source(place)  # not the generator's input of the same name
        if any(place in trained_roles(one) for one in self.experiments):
            for name in template_columns(source.prompt, source.completion, labels=source.labels):
                lacking = [row for row in rows if name not in row]
                if lacking:
                    self.problems.append(
                        f"data.{place}: {len(lacking)} of {len(rows)} rows have no column "
                        f"{name!r}, which its template names; {did_you_mean(name, lacking[0])}"
                    )
        return supply.model_copy(update={"rows": len(rows)})

    def _build(
        self,
        name: str,
        scorer: Scorer,
        role: Callable[[str], str],
        tokenizer: "PreTrainedTokenizerBase",
    ) -> None:
        tables = self.experiment.tables
        context = ScoreContext(
            rows=lambda asked: tables.rows(role(asked)),
            publish_text=lambda _: False,
            chat=lambda asked: tables.chat(role(asked)),
        )
        try:
            scorer.build(tokenizer, context)
        except IlubenchError as error:
            self.problems.append(f"scorers.{name}: {error}")
