"""Erasure of language memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch.nn import functional

from ilubench.data.batches import collate, to_device
from ilubench.data.seeds import seed_for
from ilubench.interfaces import (
    Batch,
    Context,
    Dataset,
    Example,
    UnlearnData,
)
from ilubench.methods.contexts import Contrast, context_ids
from ilubench.methods.divergence import mean_divergence
from ilubench.methods.original import Original
from ilubench.methods.terms import ForgetRetain, summed_nll
from ilubench.models.forward import evaluate_only, token_values
from ilubench.specs import SearchSpec
from ilubench.training import pad_id
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["ELM"]


@dataclass(frozen=True)
class _Prepared:
    original: Original
    contrast: Contrast
    forget: Dataset
    fluent: Dataset


class ELM(ForgetRetain):
    """Erasure of language memory (Gandikota et al. 2024, arXiv 2410.02760).

    l = mean over the forget tokens of the cross-entropy to p_target
      + fluency * mean NLL of what p_target itself writes on
      + gamma * mean KL(original || model) of the retain tokens, with
    p_target(x) proportional to p_o(x) (p_o(x | novice) / p_o(x | expert))^eta, p_o the original
    model, the text behind one of two context prompts: what a novice would rather write than an
    expert. The paper's retain term is the cross-entropy to p_o: the same gradient.

    p_target is computed anew each step, by three forwards of the original; a large eta multiplies
    rounding, so that it wants float32. With `fluency`, each forget item is begun (its prompt; of
    plain text the first half) and carried on by sampling from p_target, once, before training and
    again after a kill; the authors' code has the original write on behind a change of subject.

    Published settings (defaults of the authors' code, Zephyr-7B-beta, WMDP; the paper's tables
    were not checked): eta rising linearly from 1 to 1000 along each text, temperature 1.2 of p_o,
    the 50 likeliest tokens of p_target, all three weights 1, the retain term to p_o's likeliest
    token, LoRA of rank 8 (alpha 16) on attention and MLP of layers 4-7, lr 5e-5, 3000 texts, one a
    step, gradients of 4 accumulated. Here eta is one number, without temperature or cut, and
    `trainable` is trained itself, without LoRA. One context each, which may name the subject;
    theirs are ten templates each.

    Attributes:
        gamma: weight of the retain term.
        eta: strength; 0 keeps p_o.
        novice: context prompt of somebody who knows nothing.
        expert: context prompt of somebody who knows.
        fluency: weight of the fluency term; 0 leaves it out.
        fluency_tokens: length of what is written on.
    """

    shards: ClassVar[bool] = False
    forget_passes: ClassVar[int] = 2  # a text, and what is written behind it

    eta: float = Field(default=1000.0, ge=0)
    novice: str = "Somebody who knows nothing about the subject wrote this text:\n"
    expert: str = "An expert who knows all about the subject wrote this text:\n"
    fluency: float = Field(default=0.0, ge=0)
    fluency_tokens: int = Field(default=32, ge=1)

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates below the published one for LoRA, and strengths."""
        return propose(config, (2e-6, 3e-5), eta=spread(5, 500))

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> _Prepared:
        """Return the original weights, the contexts, and what p_target writes on.

        Raises:
            DataError: the tokenizer does not know a word of a context, or an item does not fit the
                model behind one.
        """
        tokenizer = context.tokenizer
        novice, expert = (
            context_ids(text, tokenizer, setting)
            for text, setting in ((self.novice, "novice"), (self.expert, "expert"))
        )
        begin = tokenizer.bos_token_id
        first = begin if isinstance(begin, int) else None
        contrast = Contrast(novice, expert, self.eta, first, pad_id(tokenizer))
        contrast.check(model, data.forget)
        fluent = self._fluent(model, data.forget, contrast, context) if self.fluency else ()
        return _Prepared(Original(model, self.changing), contrast, data.forget, fluent)

    def forget_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the erasing and of the fluency term."""
        indices = batch.index.tolist()
        original, contrast = prepared.original, prepared.contrast
        with original.weights(model):
            before = contrast.states(model, prepared.forget, indices)

        def cross_entropy(
            logits: torch.Tensor, _targets: torch.Tensor, *before: torch.Tensor
        ) -> torch.Tensor:
            target = contrast.mixture(*(original.logits(model, one) for one in before)).exp()
            return -(target * functional.log_softmax(logits.float(), dim=-1)).sum(-1)

        values = token_values(model, batch, cross_entropy, beside=before).values
        erasing = values.sum() / batch.tokens
        if not self.fluency:
            return erasing
        (made,) = collate(prepared.fluent, indices, prepared.contrast.pad)
        nll = summed_nll(model, to_device(made, batch.input_ids.device))
        return erasing + self.fluency * nll.sum() / (batch.sequences * self.fluency_tokens)

    def retain_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the retain term, unweighted."""
        return mean_divergence(model, batch, prepared.original)

    def _fluent(
        self, model: "PreTrainedModel", forget: Dataset, contrast: Contrast, context: Context
    ) -> Dataset:
        """Return the beginning of each forget item, carried on by p_target; targets are the new."""
        generator = torch.Generator().manual_seed(seed_for(context.seed, "elm"))
        texts = [list(_beginning(item)) for item in forget]
        written = [contrast.pad] * self.fluency_tokens
        pairs = zip(forget, texts, strict=True)
        contrast.check(model, [self._carried_on(item, [*text, *written]) for item, text in pairs])
        size = self.train.micro_batch or self.train.batch_size
        with evaluate_only(model):
            for start in range(0, len(texts), size):
                for _ in range(self.fluency_tokens):
                    self._write_on(model, texts[start : start + size], contrast, generator)
        return [self._carried_on(item, text) for item, text in zip(forget, texts, strict=True)]

    def _carried_on(self, item: Example, text: Sequence[int]) -> Example:
        return Example(f"{item.id}/fluent", tuple(text), _last(len(text), self.fluency_tokens))

    def _write_on(
        self,
        model: "PreTrainedModel",
        texts: list[list[int]],
        contrast: Contrast,
        generator: torch.Generator,
    ) -> None:
        """Append a token of p_target to each text, in place."""
        # a last token of any kind is the target, so that what predicts it is computed
        asked = [Example("", (*text, contrast.pad), _last(len(text) + 1, 1)) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        chances = contrast.log_target(model, asked, order).exp().cpu()
        drawn = torch.multinomial(chances, 1, generator=generator)
        for place, token in zip(order, drawn[:, 0].tolist(), strict=True):
            texts[place].append(token)


def _beginning(item: Example) -> tuple[int, ...]:
    prompt = item.loss_mask.index(True)
    return item.input_ids[: prompt if prompt > 1 else (len(item.input_ids) + 1) // 2]


def _last(length: int, count: int) -> tuple[bool, ...]:
    """Return a loss mask on the last ``count`` tokens."""
    return tuple(place >= length - count for place in range(length))
