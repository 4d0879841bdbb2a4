"""lm-eval, called: tasks built over rows in memory, run by lm-eval on our engine.

The only file that imports lm-eval. It renders prompts, filters answers and computes each sample's
metric; tokens go through an :class:`~ilubench.interfaces.Engine`. Nothing is fetched, and no random
state is left changed.
"""

from __future__ import annotations

import logging
import random
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from ilubench.data.chat import Turns, closing_ids, render_turns
from ilubench.data.overlap import asks_same
from ilubench.errors import DataError, ItemError, SpecError, UsageError
from ilubench.interfaces import BoundPromptAttack, Chat, Engine, SampleScore, SamplingSpec
from ilubench.scoring.scorers.answers import loglikelihoods
from ilubench.scoring.scorers.logged import (
    check_choices,
    item_name,
    naming_requests,
    prompt_of,
    sample_scores,
)
from ilubench.scoring.scorers.task_chats import chat_options
from ilubench.scoring.scorers.task_files import Member, TaskFacts
from ilubench.scoring.scorers.task_rows import OwnData

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["BuiltTasks", "import_library", "load_members", "quiet"]

_FEWSHOT_SEED = 1234
"""lm-eval's own default: the same examples as its command line draws."""

_MAX_NEW = 256
"""lm-eval's own default of tokens to generate."""


def load_members(
    facts: TaskFacts, members: Sequence[Member], changes: Mapping[str, Any], data: OwnData
) -> dict[str, Any]:
    """Return task name -> lm-eval task object, each with its changes laid over."""
    for member in members:
        if member.code_laid_over:
            problem = f"{facts.name} lays the code {member.code_laid_over[0]} over {member.name}"
            raise SpecError(problem, field="task", remedy="name its tasks one by one")
    listed = [{"task": m.name, **m.changes, **changes, **data[m.name][1]} for m in members]
    with _first_options_checked({name: tuple(rows) for name, (rows, _) in data.items()}):
        # members of a made-up group, since only there lm-eval lays changes over a registered task
        tasks = _load(facts, {"group": "ilubench", "task": listed})
    for name, task in tasks.items():
        if task.config.num_fewshot:
            _show_others(name, task, data[name][0])
        # lm-eval's own means, which nobody reads: that of f1 would import sklearn, for seconds
        unread = dict.fromkeys(task.aggregation(), len)
        task.aggregation = lambda unread=unread: unread
    return tasks


def _show_others(name: str, task: Any, rows: Sequence[int]) -> None:  # noqa: ANN401
    """Have a task show no example that asks the item itself, from whatever role it comes.

    What lm-eval draws is left as it is where nothing in it does.
    """
    draw, examples = task.sampler.sample, task.sampler.fewshot_docs
    one_split = task.fewshot_cfg.split == task.config.test_split
    task.fewshot_cfg.split = task.config.test_split  # then lm-eval says which item is asked

    def sample(n: int, eval_doc: Mapping[str, Any], **others: object) -> Sequence[Any]:
        asked = task.doc_to_text(eval_doc)

        def is_other(doc: Mapping[str, Any]) -> bool:
            prompt = task.doc_to_text(doc)
            if not isinstance(prompt, str):  # an option's number: the options are the prompts
                return not asks_same(eval_doc, doc, "")
            return prompt != asked and not asks_same(eval_doc, doc, prompt)

        try:
            drawn = draw(n=n, eval_doc=eval_doc if one_split else None, **others)
        except (ValueError, AssertionError):  # too few
            drawn = ()
        kept = [doc for doc in drawn if is_other(doc)]
        more = (doc for doc in examples() if doc not in kept and is_other(doc))
        shown = [*kept, *islice(more, n - len(kept))]
        if len(shown) < n:
            place = list(task.eval_docs).index(eval_doc)
            problem = (
                f"{n} examples are to be shown before it, and {len(shown)} ask something else; "
                "give more, or lower num_fewshot"
            )
            raise ItemError(place, problem, name=item_name(name, place, eval_doc, rows))
        return shown

    task.sampler.sample = sample


@contextmanager
def _first_options_checked(numbers: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Look at the first item's options before lm-eval does, which takes them for texts."""
    from lm_eval.api.task import ConfigurableTask  # type: ignore[import-untyped, unused-ignore]

    read = ConfigurableTask.doc_to_choice

    def doc_to_choice(task: Any, doc: Any, *others: Any) -> Any:  # noqa: ANN401
        options, name = read(task, doc, *others), str(task.config.task)
        check_choices(item_name(name, 0, doc, numbers.get(name, ())), task, doc, options)
        return options

    with _set(ConfigurableTask, "doc_to_choice", value=doc_to_choice):
        yield


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
    except (
        OSError,
        ValueError,
        LookupError,
        SyntaxError,
        TypeError,
        AttributeError,
    ) as error:
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
def _hidden(module: str) -> Iterator[None]:
    """Let a module that is not imported yet look as if it were not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def quiet() -> Iterator[None]:
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

        # it imports requests, which would load the tables of chardet (a second) to guess how pages
        # are encoded that nobody fetches
        with _hidden("chardet"):
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


def import_library() -> None:
    """Import lm-eval, which otherwise is done when it is first needed."""
    with quiet():
        import lm_eval.evaluator  # type: ignore[import-untyped, unused-ignore]
        import lm_eval.tasks  # type: ignore[import-untyped, unused-ignore]  # noqa: F401


@dataclass
class BuiltTasks:
    """Tasks that are built, ready for many checkpoints."""

    tasks: Mapping[str, Any]
    facts: TaskFacts
    tokenizer: PreTrainedTokenizerBase
    limit: int | None
    numbers: Mapping[str, Sequence[int]] = field(kw_only=True)
    publish_text: bool = field(kw_only=True)
    groups: Mapping[str, str] = field(kw_only=True)
    before: Mapping[str, str] = field(kw_only=True)
    chat: Chat | None = field(kw_only=True)
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
        with quiet():
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
                    **chat_options(self.chat),
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

        def __init__(self, engine: Engine, bound: BuiltTasks) -> None:
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
                elif self.bound.chat is not None or has_bos_prefix(
                    string, self.tokenizer.decode(self.prefix_token_id)
                ):
                    special = {"add_special_tokens": False}
                known = array("i", self.tokenizer.encode(string, verbose=False, **special))
                self.bound.encoded[string, add_special_tokens] = known
            return known.tolist()

        @property
        def tokenizer_name(self) -> str:
            return str(self.tokenizer.name_or_path)

        def apply_chat_template(
            self, chat_history: Turns, add_generation_prompt: bool = True
        ) -> str:
            del add_generation_prompt  # a text that begins the answer is the assistant's own turn
            assert self.bound.chat is not None
            return render_turns(self.tokenizer, chat_history, self.bound.chat)

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
    closing = () if adapter.bound.chat is None else closing_ids(tokenizer, adapter.bound.chat)
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
        tokens = (*closing, *(special[string] for string in stop if string in special))
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
