"""Refusals: what a model is to answer in the place of what it is to forget."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ilubench.data.batches import collate, encode, to_device
from ilubench.data.seeds import seed_for
from ilubench.errors import DataError
from ilubench.interfaces import Batch, Context, Dataset, Example, Lengths, Sizes, StepBatch
from ilubench.training import pad_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["REFUSALS", "Refusals", "make_refusals", "nothing", "refused_lengths"]

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

    Which of ``texts`` an item gets depends on the seed and the item's position.

    Raises:
        DataError: no item has a prompt, or the tokenizer has no token for a word of the refusals.
    """
    answers = [_answer(text, context.tokenizer) for text in texts]
    rng = random.Random(seed_for(context.seed, "refusals"))
    examples: list[Example] = []
    places: dict[int, int] = {}
    for index, item in enumerate(forget):
        answer = rng.choice(answers)
        prompt = item.loss_mask.index(True)
        if prompt < 2:  # the first token is never a target: plain text
            continue
        places[index] = len(examples)
        ids = (*item.input_ids[:prompt], *answer)
        mask = (*(False,) * prompt, *(True,) * len(answer))
        examples.append(Example(f"{item.id}/refusal", ids, mask))
    if not examples:
        raise DataError(
            "no item of the forget set has a prompt, so that there is nothing to refuse; give the "
            "forget role a `prompt`, or use a method for plain text (npo, simnpo, graddiff, rmu)"
        )
    return Refusals(examples, places, pad_id(context.tokenizer))


def refused_lengths(sizes: Sizes, texts: Sequence[str]) -> Lengths:
    """Return the lengths of `make_refusals`'s items in the forget items' places; 0 without one."""
    colon = sizes.tokens(":")
    told = [1 + sizes.tokens(f": {text}") - colon for text in texts]  # 1: it ends as items end
    rng = random.Random(seed_for(sizes.seed, "refusals"))
    asked = sizes.forget
    answers = tuple(rng.choice(told) for _ in asked.prompts)
    pairs = zip(asked.prompts, answers, strict=True)
    tokens = tuple(n + answer if n > 1 else 0 for n, answer in pairs)
    return replace(asked, tokens=tokens, answers=answers)


def _answer(text: str, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    # behind a colon, so that no tokenizer takes the refusal for the beginning of a text
    ids, mask = encode(tokenizer, ":", f" {text}")
    answer = tuple(token for token, target in zip(ids, mask, strict=True) if target)
    if not answer or tokenizer.unk_token_id in answer:
        raise DataError(
            f"the tokenizer has no tokens for the refusal {text!r}; "
            "set method.refusals to words that it knows"
        )
    return answer


def nothing(model: torch.nn.Module) -> torch.Tensor:
    """Return a zero that has gradients, all zero: the loss of a micro-batch without prompts."""
    return next(p for p in model.parameters() if p.requires_grad).sum() * 0.0
