"""An engine whose answers a test writes down."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ilubench.errors import ItemError
from ilubench.interfaces import Generation, Ids, SamplingSpec, TokenLogprobs
from ilubench.scoring.engines.batching import check_prompts
from ilubench.scoring.engines.text import cut_at_stop, decode_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["FakeEngine"]

_A = TypeVar("_A")

_CERTAIN = -0.6931471805599453
"""log 1/2: a token that is likelier than this is the argmax, whatever the others are."""


class FakeEngine:
    """An `Engine` without a model: a script answers in the model's place.

    A script is a function of texts, or a dict's ``__getitem__``; one that raises LookupError, or
    that was not given, has no answer, which is an error and never a default.

        engine = FakeEngine(tokenizer, answer={"Question: 1 + 1?": " 2"}.__getitem__)

    Args:
        tokenizer: reads the prompts and writes the answers; special tokens are left out of texts.
        answer: prompt -> what is generated, one text or one a sample.
        likelihood: (context, continuation) -> its log-probability in nats, all tokens together.
        choice: (prompt, option) -> log-probability of the option's token.
        max_length: tokens that a prompt and what follows may have.

    Attributes:
        asked: (call, text) of every prompt so far, in order.
        loaded: what `load` was given, in order.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        answer: Callable[[str], str | Sequence[str]] | None = None,
        likelihood: Callable[[str, str], float] | None = None,
        choice: Callable[[str, str], float] | None = None,
        max_length: int = 512,
    ) -> None:
        """Keep the scripts."""
        self.tokenizer, self.max_length = tokenizer, max_length
        self._answer, self._likelihood, self._choice = answer, likelihood, choice
        self.asked: list[tuple[str, str]] = []
        self.loaded: list[PreTrainedModel | Path] = []
        self.closed = False

    def load(self, weights: "PreTrainedModel | Path") -> None:
        """Note the weights."""
        self.loaded.append(weights)

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return the scripted texts, cut at ``max_tokens`` and at stop strings as an engine would.

        Raises:
            ItemError: a prompt does not fit, or the script has no answer to it, or too few.
        """
        self._check(prompts, sampling.max_tokens)
        return [
            self._generations(position, self._read("generate", prompt), sampling)
            for position, prompt in enumerate(prompts)
        ]

    def _generations(self, position: int, text: str, sampling: SamplingSpec) -> list[Generation]:
        given = _ask(position, "answer", self._answer, text)
        texts = [given] * sampling.n if isinstance(given, str) else list(given)
        if len(texts) < sampling.n:
            problem = f"`answer` has {len(texts)} texts for {text!r}, asked for are {sampling.n}"
            raise ItemError(position, problem)
        made = []
        for written in texts[: sampling.n]:
            encoded = self.tokenizer(written, add_special_tokens=False)["input_ids"]
            ids = tuple(encoded)[: sampling.max_tokens]
            made.append(
                Generation(ids, cut_at_stop(decode_text(self.tokenizer, ids), sampling.stop))
            )
        return made

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return the scripted log-probabilities, spread evenly over a continuation's tokens.

        A token counts as the argmax when its share is above log 1/2.

        Raises:
            ItemError: a pair does not fit, or the script has no answer to it.
        """
        self._check([[*context, *rest[:-1]] for context, rest in pairs])
        found = []
        for position, (context, rest) in enumerate(pairs):
            if not rest:
                raise ItemError(position, "the continuation is empty")
            texts = (self._read("logprobs", context), decode_text(self.tokenizer, rest))
            total = _ask(position, "likelihood", self._likelihood, *texts)
            share = total / len(rest)
            found.append(TokenLogprobs((share,) * len(rest), (share > _CERTAIN,) * len(rest)))
        return found

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return the scripted log-probabilities of the options.

        Raises:
            ItemError: a prompt does not fit, or the script has no answer to it.
        """
        self._check(prompts)
        names = [decode_text(self.tokenizer, [option]) for option in options]
        found = []
        for position, prompt in enumerate(prompts):
            text = self._read("choices", prompt)
            found.append(tuple(_ask(position, "choice", self._choice, text, n) for n in names))
        return found

    def _check(self, prompts: Sequence[Ids], extra: int = 0) -> None:
        check_prompts(
            prompts,
            self.tokenizer,
            extra=extra,
            max_length=self.max_length,
            vocabulary=len(self.tokenizer),
        )

    def _read(self, call: str, prompt: Ids) -> str:
        text = decode_text(self.tokenizer, prompt)
        self.asked.append((call, text))
        return text


def _ask(position: int, name: str, script: Callable[..., _A] | None, *texts: str) -> _A:
    shown = " + ".join(repr(text) for text in texts)
    if script is None:
        problem = f"the script has nothing for {shown}; give FakeEngine an `{name}`"
        raise ItemError(position, problem)
    try:
        return script(*texts)
    except LookupError as error:
        problem = f"the script's `{name}` has nothing for {shown}; add it"
        raise ItemError(position, problem) from error
