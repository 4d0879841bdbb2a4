"""What scorers ask of an engine: counted with an engine that answers nothing, or as stated."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ilubench.forecast.work import Asking
from ilubench.interfaces import (
    BoundPromptAttack,
    Generation,
    Ids,
    Row,
    SamplingSpec,
    ScoreContext,
    Scorer,
    TokenLogprobs,
)
from ilubench.scoring.engines.batching import group_prompts
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.privleak import PrivLeak
from ilubench.scoring.scorers.task_files import task_facts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CountingEngine", "Stated", "asked_of", "stated_asking"]

_PACKED = 2048
"""Tokens of prompts that are read at once, about."""

_LONGEST = 256
"""lm-eval's own default of tokens to generate."""

_OPTION = 3.0
"""Tokens of an option that are fed to the model, where nothing says how many there are."""

Stated = Mapping[str, tuple[float, float]]
"""Role -> (rows, mean tokens of a row)."""


class CountingEngine:
    """Adds up what it is asked, as the transformers engine would run it; answers mean nothing."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", batch_size: int) -> None:
        """Begin at zero."""
        self.tokenizer, self.max_length = tokenizer, 10**9
        self._batch = batch_size
        self.asked = Asking()

    def load(self, weights: "PreTrainedModel | Path") -> None:
        """Do nothing: there are no weights."""

    def close(self) -> None:
        """Do nothing."""

    def _read(self, prompts: Sequence[Ids], answers: float) -> None:
        filled = [prompt for prompt in prompts if prompt]
        if not filled:
            return
        tokens = squares = 0
        for group in group_prompts(filled):
            shared = len(group.prefix)
            tokens += shared + sum(len(filled[at]) - shared for at in group.members)
            squares += shared**2 + sum(len(filled[at]) ** 2 - shared**2 for at in group.members)
        passes = max(tokens / _PACKED, len(filled) / self._batch)
        self.asked += Asking(len(prompts), passes, tokens, squares, answers)

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return empty continuations."""
        self._read(prompts, len(prompts))
        rows = len(prompts) * (sampling.n if sampling.temperature > 0 else 1)
        steps = -(-rows // self._batch) * sampling.max_tokens
        written = rows * sampling.max_tokens
        self.asked += Asking(written=written, steps=steps, answers=written)
        return [[Generation((), "")] * sampling.n for _ in prompts]

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return zeros; each distinct context is run once."""
        contexts = list(dict.fromkeys(tuple(context) for context, _ in pairs))
        self._read(contexts, sum(len(rest) for _, rest in pairs))
        more = sum(max(0, len(rest) - 1) for _, rest in pairs)
        self.asked += Asking(tokens=more, items=len(pairs) - len(contexts))
        return [TokenLogprobs((0.0,) * len(rest), (False,) * len(rest)) for _, rest in pairs]

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return zeros."""
        self._read(prompts, len(prompts))
        return [(0.0,) * len(options) for _ in prompts]


def asked_of(
    scorer: Scorer,
    rows: Callable[[str], Sequence[Row]],
    tokenizer: "PreTrainedTokenizerBase",
    batch_size: int,
    most: int,
    attack: BoundPromptAttack | None = None,
) -> Asking:
    """Return what a scorer asks at one checkpoint.

    Args:
        scorer: any.
        rows: role -> its rows.
        tokenizer: of the model.
        batch_size: sequences at once.
        most: rows of a role that are rendered; of more, so many at equal distances stand for all.
        attack: rewrites what is asked; None for as it is.

    Raises:
        DataError: rows are missing, or do not fit the scorer.
        CannotApplyError: the scorer cannot apply the attack.
    """
    roles = scorer.item_roles()
    share = 1.0
    limit: object = getattr(scorer, "limit", None)
    if not isinstance(limit, int):
        asked = sum(len(rows(role)) for role in roles)
        share = sum(min(most, len(rows(role))) for role in roles) / max(1, asked)

    def some(role: str) -> Sequence[Row]:
        found = rows(role)
        if role not in roles or share == 1.0 or len(found) <= most:
            return found
        return [found[place * len(found) // most] for place in range(most)]

    context = ScoreContext(rows=some, publish_text=lambda _: False)
    engine = CountingEngine(tokenizer, batch_size)
    bound = scorer.build(tokenizer, context)
    if attack is None:
        bound.score(engine)
    else:
        bound.score(engine, attack)
    return engine.asked.times(1 / share)


def stated_asking(scorer: Scorer, sizes: Stated, batch_size: int) -> Asking:
    """Return about what a scorer asks, from sizes alone.

    Args:
        scorer: any; one that is not known here is taken to read its rows once.
        sizes: of its roles.
        batch_size: sequences at once.
    """
    roles = scorer.item_roles() or scorer.roles()
    limit: object = getattr(scorer, "limit", None)
    total = Asking()
    for role in roles:
        rows, tokens = sizes[role]
        items = min(rows, limit) if isinstance(limit, int) else rows
        if isinstance(scorer, LmEval):
            total += _lm_eval(scorer, items, tokens, sizes, batch_size)
        elif isinstance(scorer, VerbMem):
            total += _written(items, tokens / 2, scorer.max_tokens, batch_size)
        elif isinstance(scorer, KnowMem):
            shown_rows, shown = sizes[scorer.icl]
            shared = shown_rows * shown
            total += _written(items, tokens, scorer.max_tokens, batch_size)
            total += Asking(tokens=shared, squares=shared**2)
        else:
            asked = items * tokens
            passes = max(asked / _PACKED, items / batch_size)
            heads = asked if isinstance(scorer, PrivLeak) else items * tokens / 2
            total += Asking(items, passes, asked, items * tokens**2, heads)
    return total


def _written(items: float, tokens: float, most: int, batch_size: int) -> Asking:
    batches = -(-items // batch_size)
    read = items * tokens
    return Asking(
        items,
        max(read / _PACKED, batches),
        read,
        items * tokens**2,
        items * (1 + most),
        items * most,
        batches * most,
    )


def _lm_eval(scorer: LmEval, items: float, tokens: float, sizes: Stated, batch_size: int) -> Asking:
    facts = task_facts(scorer.task)
    member = facts.members[0]
    shots = member.num_fewshot if scorer.num_fewshot is None else scorer.num_fewshot
    shown = sizes[scorer.fewshot][1] if scorer.fewshot else tokens
    shared = shots * shown  # lm-eval draws other examples for each item: nothing is shared
    kind = str(member.config.get("output_type", "multiple_choice"))
    if kind == "generate_until":
        settings = member.config.get("generation_kwargs")
        most = settings.get("max_gen_toks") if isinstance(settings, dict) else None
        longest = most if isinstance(most, int) else _LONGEST
        return _written(items, tokens / 2 + shared, longest, batch_size)
    each = tokens + shared
    read = items * (each + _OPTION)
    passes = max(read / _PACKED, items / batch_size)
    return Asking(items * 3, passes, read, items * each**2, items * 3 * _OPTION)
