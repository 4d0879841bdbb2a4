"""Tasks of lm-eval, run by lm-eval on our engine: one adapter class between the two.

lm-eval renders prompts, filters answers and computes each sample's metric; tokens go through an
:class:`~ilubench.interfaces.Engine`. Nothing is fetched, and no random state is left changed.
"""

from __future__ import annotations

import logging
import random
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from ilubench.errors import (
    CannotApplyError,
    DataError,
    ItemError,
    ModelError,
    SpecError,
    UsageError,
)
from ilubench.interfaces import (
    Asked,
    BoundPromptAttack,
    BoundScorer,
    Engine,
    Row,
    SampleScore,
    SamplingSpec,
    ScoreContext,
    Scorer,
)
from ilubench.scorers.answers import loglikelihoods
from ilubench.scorers.logged import (
    asked,
    check_items,
    naming_requests,
    prompt_of,
    sample_scores,
)
from ilubench.scorers.rewriting import ask_rewritten, refuse_sampling
from ilubench.scorers.rows import groups_of, item_ids
from ilubench.scorers.task_files import Member, TaskFacts, task_facts
from ilubench.scorers.task_rows import OwnData, Roles, chosen_members, own_data
from ilubench.specs import Estimator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["LmEval"]

_FEWSHOT_SEED = 1234
"""lm-eval's own default: the same examples as its command line draws."""

_MAX_NEW = 256
"""lm-eval's own default of tokens to generate."""


class LmEval(Scorer):
    """A task or group of tasks in lm-eval's format: our own files, or what lm-eval brings.

    Attributes:
        task: a file's name in `tasks/evals`, a path ending in `.yaml`, or a task of lm-eval.
        data: role whose rows stand in the task's data set's place: what is scored has a
            fingerprint, which a copy in some cache has not.
        fewshot: role of the few-shot examples, for tasks that show any.
        limit: items at most (of each task of a group).
        num_fewshot: examples in the prompt; by default what the task says.
        split_by: column that divides a role's rows among a group's tasks, by their `dataset_name`.
        subjects: `dataset_name` of the group's tasks to ask; by default all, and each needs rows.
        group_by: for one task: column that names the subset of the items that each belongs to.
    """

    task: str
    data: str
    fewshot: str | None = None
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    split_by: str = "subject"
    subjects: tuple[str, ...] = ()
    group_by: str | None = None

    def metrics(self) -> Mapping[str, Estimator]:
        """Return the task's metrics: a mean over items, or over the tasks of a group's means."""
        return task_facts(self.task).estimators

    def roles(self) -> tuple[str, ...]:
        """Return the roles of items and few-shot examples."""
        return (self.data, self.fewshot) if self.fewshot else (self.data,)

    def item_roles(self) -> tuple[str, ...]:
        """Return the role of the items."""
        return (self.data,)

    def asks(self, rows: Sequence[Row]) -> Sequence[Asked] | None:
        """Return what the task asks of each row; None for a group, whose tasks ask differently.

        Raises:
            DataError: a row does not fit the task's template, or the task leaves rows out.
        """
        facts = task_facts(self.task)
        if facts.is_group:
            return None
        (member,) = facts.members
        context = ScoreContext(rows=lambda _: rows, publish_text=lambda _: False)
        data = own_data(facts, facts.members, Roles(self.data, None, 0, self.split_by), context)
        shots = Roles(self.data, None, self.num_fewshot, self.split_by).shots(member)
        with _quiet():
            (task,) = _load_members(facts, facts.members, {"num_fewshot": 0}, data).values()
            found = [asked(member.name, task, doc, shots) for doc in task.eval_docs]
        if len(found) != len(rows):
            raise DataError(f"{member.name} keeps {len(found)} of {len(rows)} rows")
        return found

    def files(self) -> tuple[Path, ...]:
        """Return the task's files: YAML, and the Python code that they name."""
        return task_facts(self.task).files

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Build the task over the roles' rows.

        Raises:
            DataError: no rows, rows that are not a table, or that do not fit the group's tasks.
            SpecError: few-shot examples are asked for and no role has them; an unknown subject;
                `group_by` with a group of tasks.
            ModelError: the tokenizer has no token to begin a text with.
        """
        if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            name = tokenizer.name_or_path or "the model"
            raise ModelError(
                f"the tokenizer of {name} has neither an end-of-sequence nor a beginning-of-"
                "sequence token; set eos_token or bos_token in its tokenizer_config.json"
            )
        return self._bound(tokenizer, context, {})

    def _bound(
        self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext, before: Mapping[str, str]
    ) -> _Bound:
        """The task over the roles' rows; ``before``: item -> text in front of its prompt."""
        facts = task_facts(self.task)
        members = chosen_members(facts, self.subjects)
        roles = Roles(self.data, self.fewshot, self.num_fewshot, self.split_by)
        data = own_data(facts, members, roles, context)
        changes: dict[str, Any] = {}
        if self.num_fewshot is not None:
            changes["num_fewshot"] = self.num_fewshot
        numbers = {name: tuple(rows) for name, (rows, _) in data.items()}
        with _quiet():
            tasks = _load_members(facts, members, changes, data)
            for name, task in tasks.items():
                check_items(name, task, numbers.get(name, ()), self.limit)
        return _Bound(
            tasks,
            facts,
            tokenizer,
            self.limit,
            numbers=numbers,
            publish_text=context.publish_text(self.data),
            groups=self._groups(facts, context),
            before=before,
            attacked=partial(self._attacked, tokenizer, context),
        )

    def _attacked(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: ScoreContext,
        engine: Engine,
        attack: BoundPromptAttack,
    ) -> list[SampleScore]:
        """The scores of the items as an attack asks them: the task is built over rewritten rows."""
        refuse_sampling(f"lm_eval task {self.task}", attack)
        if self.fewshot == self.data:
            problem = f"its examples and its questions have one role, {self.data}"
            raise CannotApplyError(f"{self.task} cannot apply the attack {attack.name}: {problem}")
        rows = context.rows(self.data)

        def ask(asked: Sequence[Row], before: Mapping[str, str]) -> list[SampleScore]:
            def rows_of(role: str) -> Sequence[Row]:
                return asked if role == self.data else context.rows(role)

            return self._bound(tokenizer, replace(context, rows=rows_of), before).score(engine)

        is_group = task_facts(self.task).is_group
        return ask_rewritten(
            attack,
            rows,
            item_ids(rows, f"data.{self.data}"),
            ask,
            lambda item: item.partition("/")[2] if is_group else item,
        )

    def _groups(self, facts: TaskFacts, context: ScoreContext) -> Mapping[str, str]:
        if self.group_by and facts.is_group:
            problem = f"{self.task} is a group of tasks, each a subset of its own"
            raise SpecError(problem, field="group_by", remedy="leave it out")
        return groups_of(context.rows(self.data), self.group_by, self.data)


def _load_members(
    facts: TaskFacts, members: Sequence[Member], changes: Mapping[str, Any], data: OwnData
) -> dict[str, Any]:
    """Return task name -> lm-eval task object, each with its changes laid over."""
    for member in members:
        if member.code_laid_over:
            problem = f"{facts.name} lays the code {member.code_laid_over[0]} over {member.name}"
            raise SpecError(problem, field="task", remedy="name its tasks one by one")
    listed = [{"task": m.name, **m.changes, **changes, **data[m.name][1]} for m in members]
    # members of a made-up group, since only there lm-eval lays changes over a registered task
    return _load(facts, {"group": "ilubench", "task": listed})


def _load(facts: TaskFacts, asked: object) -> dict[str, Any]:
    import jinja2
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

    folders = dict.fromkeys([facts.files[0].parent, *(m.folder for m in facts.members)])
    manager = TaskManager(include_path=[str(f) for f in folders], include_defaults=False)
    try:
        return dict(manager.load(asked)["tasks"])
    except pyarrow.ArrowException as error:
        raise DataError(f"{facts.name}: the rows do not form one table: {error}") from error
    except jinja2.TemplateError as error:
        raise DataError(f"{facts.name}: its template does not fit the rows: {error}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"  # lm-eval tries the first row
        raise DataError(f"{facts.name} does not fit the rows ({problem})") from error


@contextmanager
def _set(module: object, name: str, *, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval off the network and off stderr, and the random state as it was."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    logger = logging.getLogger("lm_eval")
    level = logger.level
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        import datasets.config  # type: ignore[import-untyped, unused-ignore]
        import huggingface_hub.constants
        import lm_eval.api.task  # type: ignore[import-untyped, unused-ignore]

        stack.enter_context(_set(datasets.config, "HF_HUB_OFFLINE", value=True))
        stack.enter_context(_set(huggingface_hub.constants, "HF_HUB_OFFLINE", value=True))
        stack.enter_context(_set(lm_eval.api.task, "tqdm", value=lambda items, **_: items))
        templates = lm_eval.utils.env
        # a template is compiled anew for every item otherwise: half of a small model's score
        stack.enter_context(_set(templates, "from_string", value=cache(templates.from_string)))
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            random.setstate(python)
            np.random.set_state(numpy)


@dataclass
class _Bound:
    """Tasks that are built, ready for many checkpoints."""

    tasks: Mapping[str, Any]
    facts: TaskFacts
    tokenizer: PreTrainedTokenizerBase
    limit: int | None
    numbers: Mapping[str, Sequence[int]] = field(kw_only=True)
    publish_text: bool = field(kw_only=True)
    groups: Mapping[str, str] = field(kw_only=True)
    before: Mapping[str, str] = field(kw_only=True)
    attacked: Callable[[Engine, BoundPromptAttack], list[SampleScore]] = field(kw_only=True)
    encoded: dict[tuple[str, bool | None], array[int]] = field(default_factory=dict)

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return one score an item, filter and metric.

        Raises:
            CannotApplyError: the prompt attack samples, or the task keeps no room for it.
            DataError: no items.
            ItemError: an item that the engine cannot take; nothing is truncated.
        """
        if attack is not None:
            return self.attacked(engine, attack)
        with _quiet():
            from lm_eval.evaluator import evaluate  # type: ignore[import-untyped, unused-ignore]

            for task in self.tasks.values():
                task.set_fewshot_seed(_FEWSHOT_SEED)  # drawing moved it on at the last checkpoint
            try:
                results: Any = evaluate(
                    lm=_adapter_class()(engine, self),
                    task_dict={"tasks": dict(self.tasks), "groups": {}, "group_map": {}},
                    limit=self.limit,
                    bootstrap_iters=0,
                    log_samples=True,
                )
            except ItemError:
                raise  # it names its item already
            except DataError as error:
                raise DataError(f"{self.facts.name}: {error}") from error
        scores = [
            score if self.publish_text else replace(score, text="")
            for name, task in self.tasks.items()
            for score in sample_scores(name, task.OUTPUT_TYPE, results["samples"][name], self.facts)
        ]
        if not scores:
            raise DataError(f"{self.facts.name}: no items were scored")
        if self.groups:
            return [replace(score, group=self.groups[score.item]) for score in scores]
        return scores


# ------------------------------------------------------------------ lm-eval's side


@cache
def _adapter_class() -> type[Any]:
    """Return the class that lm-eval calls; made here so that lm-eval is imported when needed."""
    from lm_eval.api.model import TemplateLM  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.models.utils import has_bos_prefix  # type: ignore[import-untyped, unused-ignore]

    class _Adapter(TemplateLM):  # type: ignore[misc]
        """lm-eval's language model over an engine; encodes as its transformers backend does."""

        def __init__(self, engine: Engine, bound: _Bound) -> None:
            super().__init__()
            self.engine, self.bound, self.tokenizer = engine, bound, bound.tokenizer

        @property
        def eot_token_id(self) -> int | None:
            return cast("int | None", self.tokenizer.eos_token_id)

        @property
        def prefix_token_id(self) -> int:
            bos = self.tokenizer.bos_token_id
            return int(self.tokenizer.eos_token_id if bos is None else bos)

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: object
        ) -> list[int]:
            known = self.bound.encoded.get((string, add_special_tokens))
            if known is None:
                special: dict[str, bool] = {}
                if add_special_tokens is not None:
                    special = {"add_special_tokens": add_special_tokens}
                elif has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
                    special = {"add_special_tokens": False}
                known = array("i", self.tokenizer.encode(string, verbose=False, **special))
                self.bound.encoded[string, add_special_tokens] = known
            return known.tolist()

        def loglikelihood(self, requests: list[Any], **_: object) -> list[tuple[float, bool]]:
            with naming_requests(requests, self.bound.numbers):
                pairs = []
                for position, request in enumerate(requests):
                    context, continuation = prompt_of(request, self.bound.before), request.args[1]
                    if not continuation:
                        raise ItemError(position, "an answer is empty; nothing to score")
                    pairs.append((request.args, *self._encode(context, continuation)))
                return self._loglikelihood_tokens(pairs)

        def _encode(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            """Return the ids of both; an empty context is the token that begins a text."""
            if context:
                whole: tuple[list[int], list[int]] = self._encode_pair(context, continuation)
                return whole
            ids = self.tok_encode(continuation, add_special_tokens=False)
            begin = self.prefix_token_id
            return (ids[:1], ids[1:]) if ids and ids[0] == begin else ([begin], ids)

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[object, list[int], list[int]]], **_: object
        ) -> list[tuple[float, bool]]:
            pairs = [(context, continuation) for _, context, continuation in requests]
            return loglikelihoods(self.engine, pairs, flags=_needs_flags(self.bound.tasks))

        def loglikelihood_rolling(self, requests: list[Any], **_: object) -> list[float]:
            raise UsageError(f"rolling log-likelihoods are not supported ({len(requests)} asked)")

        def generate_until(self, requests: list[Any], **_: object) -> list[str]:
            return _generate(self, requests)

    return _Adapter


def _needs_flags(tasks: Mapping[str, Any]) -> bool:
    """Whether a metric asks if an answer was the argmax, not only how likely it was."""
    return any(
        task.OUTPUT_TYPE != "multiple_choice" or "exact_match" in task.aggregation()
        for task in tasks.values()
    )


def _generate(adapter: Any, requests: Sequence[Any]) -> list[str]:  # noqa: ANN401
    """Return lm-eval's generations: greedy, cut at the stop strings, in the requests' order."""
    from lm_eval.models.utils import (  # type: ignore[import-untyped, unused-ignore]
        handle_stop_sequences,
        normalize_gen_kwargs,
        postprocess_generated_text,
    )

    tokenizer = adapter.tokenizer
    end_id = adapter.eot_token_id
    end = None if end_id is None else tokenizer.decode([end_id], skip_special_tokens=False)
    added = tokenizer.added_tokens_decoder
    special = {token.content: number for number, token in added.items() if token.special}
    alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for position, request in enumerate(requests):
        wanted: Any = normalize_gen_kwargs(request.args[1], _MAX_NEW)
        if wanted["do_sample"] or wanted.get("num_beams", 1) != 1:
            raise UsageError("only greedy generation is supported for lm-eval tasks")
        stop = tuple(handle_stop_sequences(wanted["until"], eos=end))
        alike.setdefault((stop, wanted["max_gen_toks"]), []).append(position)
    texts = [""] * len(requests)
    for (stop, most), positions in alike.items():
        # lm-eval looks for stop strings in text that shows special tokens, ours has none
        tokens = tuple(special[string] for string in stop if string in special)
        strings = tuple(string for string in stop if string and string not in special)
        sampling = SamplingSpec(max_tokens=most, stop=strings, stop_ids=tokens)
        asked = [prompt_of(requests[position], adapter.bound.before) for position in positions]
        prompts = [adapter.tok_encode(text) for text in asked]
        with naming_requests([requests[place] for place in positions], adapter.bound.numbers):
            written = adapter.engine.generate(prompts, sampling)
        for position, found in zip(positions, written, strict=True):
            text = tokenizer.decode(list(found[0].ids), skip_special_tokens=True)
            texts[position] = postprocess_generated_text(text, list(stop), None)
    return texts
