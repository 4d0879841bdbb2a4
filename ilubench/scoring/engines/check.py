"""An engine that computes nothing: does every item fit the model?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilubench.errors import ItemError
from ilubench.interfaces import Generation, Ids, SamplingSpec, TokenLogprobs
from ilubench.scoring.engines.batching import check_options, check_prompts

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CheckEngine"]


class CheckEngine:
    """Takes what a scorer asks and refuses what a real engine would refuse; answers mean nothing.

    A scorer is run with it before any training, so that a prompt that does not fit shows in
    seconds, not after hours of unlearning.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
        """Take the limits of a model from its configuration."""
        text: Any = config.get_text_config()
        takes = getattr(text, "max_position_embeddings", None)
        self.tokenizer = tokenizer
        self.max_length = int(takes or tokenizer.model_max_length)
        self._vocabulary = int(text.vocab_size)

    def load(self, weights: PreTrainedModel | Path) -> None:
        """Do nothing: there are no weights."""

    def close(self) -> None:
        """Do nothing."""

    def _check(self, prompts: Sequence[Ids], extra: int = 0) -> None:
        check_prompts(
            prompts,
            self.tokenizer,
            extra=extra,
            max_length=self.max_length,
            vocabulary=self._vocabulary,
        )

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return empty continuations.

        Raises:
            ItemError: a prompt is empty, too long, or has an unknown id.
        """
        self._check(prompts, sampling.max_tokens)
        return [[Generation((), "")] * sampling.n for _ in prompts]

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return zeros.

        Raises:
            ItemError: a context or continuation is empty, too long, or has an unknown id.
        """
        for position, (_, rest) in enumerate(pairs):
            if not rest:
                raise ItemError(position, "the continuation is empty")
        self._check([[*context, *rest[:-1]] if context else [] for context, rest in pairs])
        self._check([rest[-1:] for _, rest in pairs])
        return [TokenLogprobs((0.0,) * len(rest), (False,) * len(rest)) for _, rest in pairs]

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return zeros.

        Raises:
            ItemError: a prompt is empty, too long, or has an unknown id.
            DataError: no options, or one that is no token of the model.
        """
        self._check(prompts)
        check_options(options, self._vocabulary, self.tokenizer)
        return [(0.0,) * len(options) for _ in prompts]
