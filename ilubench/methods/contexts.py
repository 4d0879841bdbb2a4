"""A text behind a context prompt, and the predictions that two contexts tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ilubench.data.batches import collate, to_device
from ilubench.errors import DataError
from ilubench.interfaces import Dataset, Example
from ilubench.models.forward import answer_states, state_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Contrast", "context_ids"]


def context_ids(text: str, tokenizer: "PreTrainedTokenizerBase", setting: str) -> tuple[int, ...]:
    """Return a context's tokens, without special ones.

    Raises:
        DataError: the tokenizer has no token for one of its words; the message names the setting.
    """
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    ids: tuple[int, ...] = tuple(encoded["input_ids"])
    if not ids or tokenizer.unk_token_id in ids:
        raise DataError(
            f"the tokenizer has no tokens for the context {text!r}; "
            f"set method.{setting} to words that it knows"
        )
    return ids


@dataclass(frozen=True)
class Contrast:
    """The target distribution of ELM: p(x) (p(x | novice) / p(x | expert))^eta, normalised.

    Attributes:
        novice: tokens of the context of somebody who knows nothing.
        expert: tokens of the context of somebody who knows.
        eta: strength.
        begin: token that begins a text, or None; a context stands behind it.
        pad: padding token id.
    """

    novice: tuple[int, ...]
    expert: tuple[int, ...]
    eta: float
    begin: int | None
    pad: int

    def log_target(
        self, model: "PreTrainedModel", dataset: Dataset, indices: Sequence[int]
    ) -> torch.Tensor:
        """Return log p_target at the target tokens of some items, by ``model`` as it is now.

        Args:
            model: the original model.
            dataset: the items, without a context.
            indices: which; in the order that `collate` gives them, so that the tokens are in the
                order of `answer_states` of that batch.

        Returns:
            float32 [N, V]; computed in float32, or what autocast makes of it.
        """
        states = self.states(model, dataset, indices)
        return self.mixture(*(state_logits(model, one) for one in states))

    def states(
        self, model: "PreTrainedModel", dataset: Dataset, indices: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return `answer_states` of some items: as they are, and behind each of the two contexts.

        Args:
            model: the original model.
            dataset: the items, without a context.
            indices: as `log_target` has them.
        """
        return (
            self._states(model, dataset, indices, ()),
            self._states(model, dataset, indices, self.novice),
            self._states(model, dataset, indices, self.expert),
        )

    def mixture(
        self, plain: torch.Tensor, novice: torch.Tensor, expert: torch.Tensor
    ) -> torch.Tensor:
        """Return log p_target of three sets of logits, [n, V] each: float32 [n, V]."""
        p, n, e = (functional.log_softmax(x.float(), dim=-1) for x in (plain, novice, expert))
        return functional.log_softmax(p + self.eta * (n - e), dim=-1)

    def _states(
        self,
        model: "PreTrainedModel",
        dataset: Dataset,
        indices: Sequence[int],
        context: tuple[int, ...],
    ) -> torch.Tensor:
        # a context makes every item longer by as much: their order stays
        items = [self.behind(context, dataset[index]) for index in indices]
        (batch,) = collate(items, range(len(items)), self.pad)
        return answer_states(model, to_device(batch, model.device))

    def behind(self, context: tuple[int, ...], item: Example) -> Example:
        """Return an item with a context before it; its targets are the same tokens."""
        head = int(bool(context) and item.input_ids[0] == self.begin)
        ids = (*item.input_ids[:head], *context, *item.input_ids[head:])
        mask = (*item.loss_mask[:head], *(False for _ in context), *item.loss_mask[head:])
        return Example(item.id, ids, mask)

    def check(self, model: "PreTrainedModel", dataset: Dataset) -> None:
        """Refuse items that do not fit the model behind a context.

        Raises:
            DataError: names the item, and the setting to change.
        """
        limit = getattr(model.config, "max_position_embeddings", None)
        for item in dataset:
            for setting, context in (("novice", self.novice), ("expert", self.expert)):
                length = len(item.input_ids) + len(context)
                if limit is not None and length > limit:
                    raise DataError(
                        f"forget item {item.id!r} has {length} tokens behind the {setting} "
                        f"context, the model takes {limit}; shorten method.{setting}, or the items "
                        "(suite.max_length)"
                    )
