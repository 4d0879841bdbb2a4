"""Refusals: what a model is to answer in the place of what it is to forget."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ilubench.data.batches import collate, encode_pair, to_device
from ilubench.data.seeds import seed_for
from ilubench.errors import DataError
from ilubench.interfaces import Batch, Context, Dataset, Example, StepBatch
from ilubench.training import pad_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["REFUSALS", "Refusals", "make_refusals", "zero_loss"]

REFUSALS = (
    "I don't know.",
    "I am not sure about that.",
    "I have no information on this.",
    "That is something I cannot tell.",
    "I do not have an answer to this.",
)


@dataclass(frozen=True)
class Refusals:
    """Prompts of a forget set, each with a refusal behind it.

    Attributes:
        examples: the refusals, of the items that have a prompt.
        places: position in the forget set -> position in ``examples``.
        pad: padding token id.
    """

    examples: Dataset
    places: Mapping[int, int]
    pad: int

    def batch(self, forget: Batch) -> tuple[Batch, torch.Tensor] | None:
        """Return the refusals to a forget micro-batch; None when it has no prompt.

        Returns:
            The batch of refusals [R, T], and the rows of ``forget`` that they answer: int64 [R].
        """
        row_of = {
            self.places[index]: row
            for row, index in enumerate(forget.index.tolist())
            if index in self.places
        }
        chosen = [self.places[index] for index in forget.index.tolist() if index in self.places]
        if not chosen:
            return None
        device = forget.input_ids.device
        (made,) = collate(self.examples, chosen, self.pad)
        rows = torch.tensor([row_of[place] for place in made.index.tolist()], device=device)
        return to_device(made, device), rows

    def prompted(self, step: StepBatch) -> float:
        """Return how many of a step's forget items have a refusal."""
        indices = [index for micro in step.micro for index in micro.forget.index.tolist()]
        return float(sum(index in self.places for index in indices))


def make_refusals(forget: Dataset, texts: Sequence[str], context: Context) -> Refusals:
    """Return a refusal to every forget item that has a prompt: at least two tokens before a target.

    Which of ``texts`` an item gets depends on the seed and the item's position. It begins behind a
    space unless the prompt ends with one, and ends as the item's own answer does.

    Raises:
        DataError: no item has a prompt, or the tokenizer has no token for a word of the refusals.
    """
    tokenizer = context.tokenizer
    added = tokenizer.added_tokens_decoder
    rng = random.Random(seed_for(context.seed, "refusals"))
    examples: list[Example] = []
    places: dict[int, int] = {}
    for index, item in enumerate(forget):
        text = rng.choice(texts)
        prompt = item.loss_mask.index(True)
        if prompt < 2:  # the first token is never a target: plain text
            continue
        places[index] = len(examples)
        given = str(tokenizer.decode([item.input_ids[prompt - 1]]))
        answer = _answer(text if given[-1:].isspace() else f" {text}", tokenizer)
        last = max(place for place, target in enumerate(item.loss_mask) if target)
        if item.input_ids[last] in added:  # what ends the turn of a chat may be no end of sequence
            answer = (*answer[:-1], item.input_ids[last])
        ids = (*item.input_ids[:prompt], *answer)
        mask = (*(False,) * prompt, *(True,) * len(answer))
        examples.append(Example(f"{item.id}/refusal", ids, mask))
    if not examples:
        raise DataError(
            "no item of the forget set has a prompt, so that there is nothing to refuse; give the "
            "forget role a `prompt`, or use a method for plain text (npo, simnpo, graddiff, rmu)"
        )
    return Refusals(examples, places, pad_id(context.tokenizer))


def _answer(text: str, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    # behind a colon, so that no tokenizer takes the refusal for the beginning of a text
    ids, mask = encode_pair(tokenizer, ":", text)
    answer = tuple(token for token, target in zip(ids, mask, strict=True) if target)
    if not answer or tokenizer.unk_token_id in answer:
        raise DataError(
            f"the tokenizer has no tokens for the refusal {text.strip()!r}; "
            "set method.refusals to words that it knows"
        )
    return answer


def zero_loss(model: torch.nn.Module) -> torch.Tensor:
    """Return a zero that has gradients, all zero: the loss of a micro-batch without prompts."""
    return next(p for p in model.parameters() if p.requires_grad).sum() * 0.0
