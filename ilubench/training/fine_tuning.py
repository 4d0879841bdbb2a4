"""Training on the likelihood of text: fine-tuning, pre-training, and the likelihood itself."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ilubench.data.batches import Blocks, Stream, to_device
from ilubench.data.seeds import seed_for
from ilubench.errors import DivergedError
from ilubench.interfaces import Batch, Context, Dataset, Metrics
from ilubench.models.forward import evaluate_only, token_values
from ilubench.models.sharding import merge_over_ranks, sum_over_ranks, world_size
from ilubench.specs import PackSpec, RecipeSpec, TrainSpec
from ilubench.training.fitting import fit_in_memory
from ilubench.training.loop import (
    count_tokens,
    micro_batches,
    optimize,
    share_batches,
    use_precision,
)
from ilubench.training.losses import sequence_sums, token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fine_tune", "pretrain", "sequence_nll"]


def _nll_step(model: "PreTrainedModel", batches: Sequence[Batch], device: str) -> Metrics:
    loss = 0.0
    for batch in batches:
        moved = to_device(batch, device)
        part = token_values(model, moved, token_nll).values.sum() / batch.tokens
        part.backward()
        loss += float(part.detach())
    return {"loss": sum_over_ranks(loss), "tokens": count_tokens(batches)}


def fine_tune(
    model: "PreTrainedModel",
    dataset: Dataset,
    spec: TrainSpec,
    context: Context,
    stops: Collection[int] = (),
) -> Iterator[int]:
    """Minimise the mean NLL of the target tokens; yields as `optimize` does."""
    stream = Stream(len(dataset), context.seed, "train")

    def gradients(step: int) -> Metrics:
        batches = micro_batches(dataset, stream.step(step, spec.batch_size), spec, context)
        return _nll_step(model, batches, context.device)

    yield from optimize(model, spec, spec.total_steps(len(dataset)), gradients, context, stops)


def pretrain(
    model: "PreTrainedModel", documents: Dataset, recipe: RecipeSpec, context: Context
) -> None:
    """Train a target model on packed blocks of the recipe's text; the loss is on every token."""
    total = recipe.train.total_steps(0)
    phases: list[tuple[int, PackSpec, Blocks]] = []  # (first step, blocks' shape, blocks)
    shares = 0.0
    for phase in recipe.pack:
        blocks = Blocks(documents, phase.length, seed_for(context.seed, "pack", str(shares)))
        phases.append((round(shares * total), phase, blocks))
        shares += phase.share

    def gradients(step: int) -> Metrics:
        start, phase, blocks = next(found for found in reversed(phases) if found[0] <= step)
        ids = blocks.step(step - start, phase.batch_size)
        micro = context.room.micro(recipe.train.micro_batch, math.ceil(len(ids) / world_size()))
        batches = share_batches(_full_batches(ids, micro))
        return _nll_step(model, batches, context.device)

    for _ in optimize(model, recipe.train, total, gradients, context):
        pass


def _full_batches(ids: torch.Tensor, size: int) -> list[Batch]:
    """Blocks without padding, every token but the first a target; ids int64 [B, T]."""
    targets = torch.ones_like(ids, dtype=torch.bool)
    targets[:, 0] = False
    tokens = int(targets.sum())
    return [
        Batch(
            ids[start : start + size],
            torch.ones_like(ids[start : start + size]),
            targets[start : start + size],
            torch.arange(start, min(start + size, len(ids))),
            len(ids),
            tokens,
        )
        for start in range(0, len(ids), size)
    ]


def sequence_nll(
    model: "PreTrainedModel",
    dataset: Dataset,
    context: Context,
    spec: TrainSpec,
    *,
    mean: bool,
    seen: Collection[int] | None = None,
) -> torch.Tensor:
    """Return each example's NLL under the model as it is now, without gradients.

    Args:
        model: scored in eval mode.
        dataset: n examples.
        context: device and tokenizer.
        spec: of the training that follows; its precision and micro-batch are used, so that the
            ratio to this reference is exactly 1 before the first step.
        mean: per-token mean instead of the sum.
        seen: positions of the examples that will be needed (`UnlearnData.forget_seen`); the others
            are not computed. None: all.

    Returns:
        float32 [n] on the CPU, in the data set's order; NaN where it was not computed: take the
        values from it by `ilubench.methods.terms.pick_references`, which refuses these.

    Raises:
        DivergedError: a likelihood is not finite; names the example.
        JobError: one sequence at a time does not fit into memory.
    """
    chosen = range(len(dataset)) if seen is None else sorted(seen)
    size = spec.micro_batch or spec.batch_size

    def scored() -> torch.Tensor:
        found = torch.full((len(dataset),), torch.nan)
        cut = spec.model_copy(update={"micro_batch": size})
        with use_precision(spec, context):
            for batch in micro_batches(dataset, chosen, cut, context):
                nll = token_values(model, to_device(batch, context.device), token_nll)
                sums = sequence_sums(nll.values, nll.sequence, nll.count)
                if mean:
                    sums = sums / batch.loss_mask.sum(1).to(sums.device)
                found[batch.index] = sums.cpu()
        return merge_over_ranks(found)

    with evaluate_only(model):
        found = fit_in_memory(scored, context, "an example's likelihood")
    places = torch.tensor(list(chosen), dtype=torch.long)
    wrong = places[~found[places].isfinite()]
    if len(wrong):
        raise DivergedError(
            f"the likelihood of example {dataset[int(wrong[0])].id!r} is not finite"
        )
    return found
