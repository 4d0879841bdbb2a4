"""Tasks of lm-eval, run by lm-eval on our engine: one adapter class between the two.

lm-eval renders prompts, filters answers and computes each sample's metric; tokens go through an
:class:`~ilubench.interfaces.Engine`. Nothing is fetched, and no random state is left changed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ilubench.errors import AccessError, DataError, SpecError, UsageError
from ilubench.interfaces import (
    BoundScorer,
    Engine,
    PromptAttack,
    Row,
    SampleScore,
    SamplingSpec,
    ScoreContext,
    Scorer,
)
from ilubench.scorers.rows import item_ids
from ilubench.scorers.task_files import TaskFacts, task_facts
from ilubench.specs import Estimator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["LmEval"]

_FEWSHOT_SEED = 1234
"""lm-eval's own default: the same examples as its command line draws."""

_MAX_NEW = 256
"""lm-eval's own default of tokens to generate."""

_OPTIONS = 64
"""More distinct answer tokens than this are no longer read off one next-token row."""


class LmEval(Scorer):
    """A task in lm-eval's format: our own files, or one that lm-eval brings.

    Attributes:
        task: a file's name in `tasks/evals`, a path ending in `.yaml`, or a task of lm-eval.
        data: role whose rows replace the task's data set; without it, the hub's cached copy.
        fewshot: role of the few-shot examples, for tasks that show any.
        limit: items at most (of each task of a group).
        num_fewshot: examples in the prompt; by default what the task says.
    """

    task: str
    data: str | None = None
    fewshot: str | None = None
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)

    def metrics(self) -> Mapping[str, Estimator]:
        """Return the task's metrics; each is a mean over items."""
        return dict.fromkeys(task_facts(self.task).names.values(), Estimator())

    def roles(self) -> tuple[str, ...]:
        """Return the roles of items and few-shot examples."""
        return tuple(role for role in (self.data, self.fewshot) if role)

    def files(self) -> tuple[Path, ...]:
        """Return the task's YAML files."""
        return task_facts(self.task).files

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Build the task over the roles' rows.

        Raises:
            DataError: no rows, or rows that are not a table.
            AccessError: the task's own data set is not in the local cache.
            SpecError: few-shot examples are asked for and no role has them.
        """
        facts = task_facts(self.task)
        changes: dict[str, Any] = {}
        if self.num_fewshot is not None:
            changes["num_fewshot"] = self.num_fewshot
        if self.data is not None:
            changes |= self._own_data(facts, context, self.data)
        with _quiet():
            tasks = _load_tasks(facts, changes)
        publish = self.data is not None and context.publish_text(self.data)
        return _Bound(tasks, facts.names, tokenizer, self.limit, publish_text=publish)

    def _own_data(self, facts: TaskFacts, context: ScoreContext, data: str) -> dict[str, Any]:
        """Return the task's settings that put the roles' rows in place of its data set."""
        if facts.is_group:
            remedy = "name one task, or leave out data"
            raise SpecError(f"{self.task} is a group of tasks", field="data", remedy=remedy)
        splits = {"test": list(context.rows(data))}
        if not splits["test"]:
            raise DataError(f"data.{data}: no rows; an empty set measures nothing")
        shots = facts.num_fewshot if self.num_fewshot is None else self.num_fewshot
        if self.fewshot is not None:
            splits["fewshot"] = list(context.rows(self.fewshot))
        elif shots and not facts.own_examples:
            raise SpecError(
                f"{self.task} shows {shots} examples and no role has them",
                field="fewshot",
                remedy="set fewshot to a role of data, or num_fewshot to 0",
            )
        return {
            "custom_dataset": _tables(splits),
            "dataset_path": None,
            "dataset_name": None,
            "dataset_kwargs": None,
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
            "fewshot_split": "fewshot" if self.fewshot else None,
        }


def _tables(splits: Mapping[str, Sequence[Row]]) -> Callable[..., Mapping[str, Any]]:
    """Return what lm-eval calls for a data set: the rows in memory, nothing cached on disk."""

    def custom_dataset(**_: object) -> Mapping[str, Any]:
        import datasets  # type: ignore[import-untyped, unused-ignore]

        return {
            name: datasets.Dataset.from_list([dict(row) for row in rows])
            for name, rows in splits.items()
        }

    return custom_dataset


def _load_tasks(facts: TaskFacts, changes: dict[str, Any]) -> dict[str, Any]:
    """Return task name -> lm-eval task object, more than one for a group."""
    import jinja2
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

    manager = TaskManager(include_path=str(facts.file.parent), include_defaults=False)
    # a member of a made-up group, since only there lm-eval lays changes over a registered task
    member = {"group": "ilubench", "task": [{"task": facts.name, **changes}]}
    try:
        loaded = manager.load(facts.name if facts.is_group else member)
    except pyarrow.ArrowException as error:
        raise DataError(f"{facts.name}: the rows do not form one table: {error}") from error
    except jinja2.TemplateError as error:
        raise DataError(f"{facts.name}: its template does not fit the rows: {error}") from error
    except (OSError, ValueError) as error:
        if "custom_dataset" in changes:
            raise DataError(f"{facts.name}: {error}") from error
        raise AccessError(
            f"{facts.name}: its data set is not in the local cache ({error}); fetch it while "
            "online, or give its rows as a role: data=<role>"
        ) from error
    tasks: dict[str, Any] = dict(loaded["tasks"])
    if facts.is_group and "num_fewshot" in changes:
        for task in tasks.values():
            task.set_config(key="num_fewshot", value=changes["num_fewshot"])
    return tasks


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
    names: Mapping[tuple[str, str], str]
    tokenizer: PreTrainedTokenizerBase
    limit: int | None
    publish_text: bool = field(kw_only=True)
    encoded: dict[tuple[str, bool | None], list[int]] = field(default_factory=dict)

    def score(self, engine: Engine, attack: PromptAttack | None = None) -> list[SampleScore]:
        """Return one score an item, filter and metric.

        Raises:
            UsageError: a prompt attack was given.
            DataError: no items, or one that the engine cannot take.
        """
        if attack is not None:
            name = type(attack).__name__
            raise UsageError(f"lm_eval tasks cannot apply the prompt attack {name}")
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
            except DataError as error:
                raise DataError(f"{', '.join(self.tasks)}: {error}") from error
        scores = [
            score
            for name, task in self.tasks.items()
            for score in self._samples(name, task.OUTPUT_TYPE, results["samples"][name])
        ]
        if not scores:
            raise DataError(f"{', '.join(self.tasks)}: no items were scored")
        return scores

    def _samples(
        self,
        name: str,
        kind: str,
        logged: Sequence[Mapping[str, Any]],
    ) -> Iterator[SampleScore]:
        several = len(self.tasks) > 1
        docs = {sample["doc_id"]: sample["doc"] for sample in logged}
        ids = dict(zip(docs, item_ids(list(docs.values()), name), strict=True))
        for sample in sorted(logged, key=lambda sample: sample["doc_id"]):
            choices, text = _answers(sample, kind)
            for metric in sample["metrics"]:
                public = self.names.get((metric, sample["filter"]))
                if public is None:
                    continue
                item = ids[sample["doc_id"]]
                yield SampleScore(
                    item=f"{name}/{item}" if several else item,
                    metric=public,
                    value=float(sample[metric]),
                    group=name if several else "",
                    choices=choices,
                    text=text if self.publish_text else "",
                )


def _answers(sample: Mapping[str, Any], kind: str) -> tuple[tuple[float, ...], str]:
    """Return the options' log-probabilities, or the generated text, of a logged sample."""
    first = [answers[0] for answers in sample["resps"]]
    if kind == "multiple_choice":
        return tuple(float(answer[0]) for answer in first), ""
    return (), str(first[0]) if kind == "generate_until" else ""


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
        def eot_token_id(self) -> int:
            return int(self.tokenizer.eos_token_id)

        @property
        def prefix_token_id(self) -> int:
            bos = self.tokenizer.bos_token_id
            return self.eot_token_id if bos is None else int(bos)

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
                known = list(self.tokenizer.encode(string, verbose=False, **special))
                self.bound.encoded[string, add_special_tokens] = known
            return known

        def loglikelihood(
            self, requests: list[Any], disable_tqdm: bool = True
        ) -> list[tuple[float, bool]]:
            return list(super().loglikelihood(requests, disable_tqdm=disable_tqdm))

        def _loglikelihood_tokens(
            self, requests: list[tuple[Any, list[int], list[int]]], **_: object
        ) -> list[tuple[float, bool]]:
            pairs = [(context, continuation) for _, context, continuation in requests]
            return _loglikelihoods(self.engine, pairs, flags=_needs_flags(self.bound.tasks))

        def loglikelihood_rolling(self, requests: list[Any], **_: object) -> list[float]:
            raise UsageError(f"rolling log-likelihoods are not supported ({len(requests)} asked)")

        def generate_until(self, requests: list[Any], **_: object) -> list[str]:
            return _generate(self, [request.args for request in requests])

    return _Adapter


def _needs_flags(tasks: Mapping[str, Any]) -> bool:
    """Whether a metric asks if an answer was the argmax, not only how likely it was."""
    return any(
        task.OUTPUT_TYPE != "multiple_choice" or "exact_match" in task.aggregation()
        for task in tasks.values()
    )


def _loglikelihoods(
    engine: Engine, pairs: Sequence[tuple[list[int], list[int]]], *, flags: bool
) -> list[tuple[float, bool]]:
    """Return (log-likelihood, is the argmax) of each continuation.

    Where all are single tokens and nobody asks for the flags, each context's next-token row gives
    the answer to all its options.
    """
    options = sorted({continuation[0] for _, continuation in pairs if continuation})
    single = all(len(continuation) == 1 for _, continuation in pairs)
    if single and not flags and len(options) <= _OPTIONS:
        places: dict[tuple[int, ...], int] = {}
        for context, _ in pairs:
            places.setdefault(tuple(context), len(places))
        rows = engine.choices(list(places), options)
        column = {option: place for place, option in enumerate(options)}
        return [(rows[places[tuple(c)]][column[answer[0]]], False) for c, answer in pairs]
    return [(scored.total, all(scored.greedy)) for scored in engine.logprobs(pairs)]


def _generate(adapter: Any, requests: Sequence[tuple[str, Any]]) -> list[str]:  # noqa: ANN401
    """Return lm-eval's generations: greedy, cut at the stop strings, in the requests' order."""
    from lm_eval.models.utils import (  # type: ignore[import-untyped, unused-ignore]
        handle_stop_sequences,
        normalize_gen_kwargs,
        postprocess_generated_text,
    )

    tokenizer = adapter.tokenizer
    end = tokenizer.decode([adapter.eot_token_id], skip_special_tokens=False)
    alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for position, (_, settings) in enumerate(requests):
        wanted: Any = normalize_gen_kwargs(settings, _MAX_NEW)
        if wanted["do_sample"] or wanted.get("num_beams", 1) != 1:
            raise UsageError("only greedy generation is supported for lm-eval tasks")
        stop = tuple(handle_stop_sequences(wanted["until"], eos=end))
        alike.setdefault((stop, wanted["max_gen_toks"]), []).append(position)
    texts = [""] * len(requests)
    for (stop, most), positions in alike.items():
        sampling = SamplingSpec(max_tokens=most, stop=tuple(filter(None, stop)))
        prompts = [adapter.tok_encode(requests[position][0]) for position in positions]
        for position, found in zip(
            positions, adapter.engine.generate(prompts, sampling), strict=True
        ):
            text = tokenizer.decode(list(found[0].ids), skip_special_tokens=True)
            texts[position] = postprocess_generated_text(text, list(stop), None)
    return texts
