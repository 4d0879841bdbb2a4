"""The loop: optimizer, schedule, guards, saved state, steps that are repeated in smaller parts."""

import contextlib
import fnmatch
import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from pydantic import JsonValue

from ilubench.data.batches import Stream, collate, group_lengths, to_device
from ilubench.data.seeds import seed_for
from ilubench.errors import DivergedError, SpecError, did_you_mean
from ilubench.interfaces import Batch, Context, Dataset, Metrics
from ilubench.models.sharding import (
    cut_like,
    from_the_leader,
    joined,
    leads,
    local,
    rank,
    sum_over_ranks,
    world_size,
)
from ilubench.specs import TrainSpec
from ilubench.training.checkpointing import checkpoint_layers, wants_checkpoints
from ilubench.training.fitting import fit_in_memory, too_little_memory
from ilubench.training.optimizer import LeanAdamW, make_optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Batches",
    "count_tokens",
    "learning_rate",
    "micro_batches",
    "optimize",
    "pad_id",
    "seed_everything",
    "share_batches",
    "trainable_only",
    "use_precision",
]


def seed_everything(seed: int) -> None:
    """Seed the global random states of torch, numpy and Python: plugins may draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def learning_rate(spec: TrainSpec, step: int, total: int) -> float:
    """Return the learning rate of optimizer step ``step`` (from 0) of ``total``."""
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    if spec.schedule == "constant":
        return spec.lr
    done = (step - spec.warmup_steps) / max(1, total - spec.warmup_steps)
    if spec.schedule == "linear":
        return spec.lr * (1.0 - done)
    return spec.lr * 0.5 * (1.0 + math.cos(math.pi * done))


@contextlib.contextmanager
def trainable_only(model: "PreTrainedModel", patterns: Sequence[str]) -> Iterator[None]:
    """Freeze every parameter whose name matches none of the patterns (none given: train all).

    Raises:
        SpecError: a pattern matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            problem = f"no parameter matches {pattern!r}"
            raise SpecError(problem, field="trainable", remedy=did_you_mean(pattern, names))
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        for name, parameter in model.named_parameters():
            chosen = not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)
            parameter.requires_grad_(chosen)
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def pad_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the token id that fills short sequences (its positions are never targets)."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(candidate, int):
            return candidate
    return 0


def micro_batches(
    dataset: Dataset, chosen: Sequence[int], spec: TrainSpec, context: Context
) -> list[Batch]:
    """Return this rank's share of a global batch in micro-batches of like lengths, on the CPU.

    Args:
        dataset: the examples.
        chosen: the global batch's items.
        spec: its `micro_batch` is used, unless the job found that fewer fit.
        context: knows how many fit, and the tokenizer.
    """
    (made,) = _cut([(dataset, chosen)], spec, context)
    return made


def _cut(
    draws: Sequence[tuple[Dataset, Sequence[int]]], spec: TrainSpec, context: Context
) -> list[list[Batch]]:
    """Cut a global batch of each data set, all of one size, into as many micro-batches."""
    count = len(draws[0][1])
    micro = context.room.micro(spec.micro_batch, math.ceil(count / world_size()))
    sizes: Sequence[int | Sequence[int]] = [micro] * len(draws)
    if world_size() == 1:  # ranks run as many passes, each its share of every length
        lengths = [[len(dataset[index].input_ids) for index in own] for dataset, own in draws]
        sizes = group_lengths(lengths, micro)
    pad = pad_id(context.tokenizer)
    return [
        share_batches(collate(dataset, chosen, pad, micro=size))
        for (dataset, chosen), size in zip(draws, sizes, strict=True)
    ]


def share_batches(batches: Sequence[Batch]) -> list[Batch]:
    """Return this rank's share of a global batch's micro-batches, as many as every rank's.

    Ranks run their passes together. Where there is none left for one of them, it runs one that does
    not count: a partial loss is a sum divided by the global batch's size, here infinite.
    """
    mine = list(batches[rank() :: world_size()])
    if len(mine) < math.ceil(len(batches) / world_size()):
        endless = cast("int", math.inf)
        mine.append(replace(batches[0], sequences=endless, tokens=endless))
    return mine


def count_tokens(batches: Iterable[Batch]) -> float:
    """Return the number of tokens in the micro-batches of all ranks, without padding."""
    counting = (batch for batch in batches if math.isfinite(batch.tokens))
    return sum_over_ranks(float(sum(int(batch.attention_mask.sum()) for batch in counting)))


class Batches:
    """The global batch of each step of a loop, in micro-batches on the device.

    Args:
        dataset: the examples.
        name: of the order; two data sets of one loop have two.
        spec: its micro-batch is used.
        context: seed, device, tokenizer.
        size: examples a step; by default the spec's batch size.
    """

    def __init__(
        self, dataset: Dataset, name: str, spec: TrainSpec, context: Context, size: int = 0
    ) -> None:
        """Raises DataError when the data set is empty."""
        self._dataset, self._spec, self._context = dataset, spec, context
        self._size = size or spec.batch_size
        self._stream = Stream(len(dataset), context.seed, name)

    def step(self, step: int, progress: float = 0.0) -> list[Batch]:
        """Return the micro-batches of step ``step`` (from 0); they depend on (seed, step) alone.

        Args:
            step: its number.
            progress: share of the training that lies before it, told to each batch.
        """
        (found,) = self._together([self], step, progress)
        return found

    def step_with(
        self, other: "Batches", step: int, progress: float = 0.0
    ) -> list[tuple[Batch, Batch]]:
        """Return the micro-batches of a step of two data sets, as many of each, in pairs.

        Args:
            other: of the same loop, and as many examples a step.
            step: its number.
            progress: see `step`.
        """
        return list(zip(*self._together([self, other], step, progress), strict=True))

    def _together(
        self, several: Sequence["Batches"], step: int, progress: float
    ) -> list[list[Batch]]:
        draws = [(one._dataset, one._stream.step(step, one._size)) for one in several]
        return [
            [to_device(replace(batch, progress=progress), self._context.device) for batch in made]
            for made in _cut(draws, self._spec, self._context)
        ]


class _Loop:
    """Optimizer, schedule, guards and saved state of one `optimize` call."""

    def __init__(
        self, model: "PreTrainedModel", spec: TrainSpec, total: int, context: Context
    ) -> None:
        self.named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        # an update is a number's own affair: each rank's optimizer has the numbers that lie here
        self.parameters = [_here(p) for _, p in self.named]
        self.spec, self.total, self.context = spec, total, context
        phase = f"{context.phase}/{rank()}" if rank() else context.phase
        seed = seed_for(context.seed, "round", phase)
        self.optimizer = make_optimizer(self.parameters, spec, context.memory, seed)
        self.saved_at = time.monotonic()
        self.save_takes = 0.0

    def update(self, step: int, metrics: Metrics) -> dict[str, float]:
        """Apply the accumulated gradients; return the step's metrics."""
        if not all(math.isfinite(value) for value in metrics.values()):
            raise DivergedError(f"step {step + 1}: not finite: {dict(metrics)}; lower the lr")
        for (_, parameter), part in zip(self.named, self.parameters, strict=True):
            if part is not parameter:
                part.grad = None if parameter.grad is None else local(parameter.grad)
        bound = self.spec.clip if self.spec.clip is not None else math.inf
        norm = _clip(self.parameters, bound)
        if not math.isfinite(norm):
            raise DivergedError(f"step {step + 1}: the gradient is not finite; lower the lr")
        rate = learning_rate(self.spec, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for _, parameter in self.named:
            parameter.grad = None
        return {**metrics, "lr": rate, "grad_norm": norm}

    def maybe_save(self, step: int) -> None:
        """Save when the last save is long enough ago."""
        pause = max(self.spec.save_every_s, 20 * self.save_takes)  # saving costs 5 % at most
        due = time.monotonic() - self.saved_at >= pause and step < self.total
        if not from_the_leader(due):
            return
        begun = time.monotonic()
        tensors: dict[str, torch.Tensor] = {}
        for (name, parameter), part in zip(self.named, self.parameters, strict=True):
            found = {f"weight/{name}": part.detach()}
            for key, value in self.optimizer.state[part].items():
                found[f"optimizer/{name}/{key}"] = value
            for key, value in found.items():
                all_of_it = joined(value, parameter)
                if leads():
                    tensors[key] = all_of_it
        meta: dict[str, JsonValue] = {"step": step, "total": self.total}
        if self.context.room.limit is not None:
            meta["room"] = self.context.room.limit
        if leads():
            self.context.state.save(self.context.phase, tensors, meta)
        self.saved_at = time.monotonic()
        self.save_takes = self.saved_at - begun if self.spec.save_every_s else 0.0

    def restore(self) -> int:
        """Load the saved state, if any; return the number of finished steps."""
        saved = self.context.state.load(self.context.phase)
        if saved is None:
            return 0
        tensors, meta = saved
        for (name, parameter), part in zip(self.named, self.parameters, strict=True):
            with torch.no_grad():
                part.copy_(cut_like(tensors[f"weight/{name}"], parameter))
            prefix = f"optimizer/{name}/"
            state = {
                key.removeprefix(prefix): cut_like(v, parameter)
                for key, v in tensors.items()
                if key.startswith(prefix)
            }
            if isinstance(self.optimizer, LeanAdamW):
                self.optimizer.take(part, state)
                continue
            self.optimizer.state[part] = {key: v.to(part.device) for key, v in state.items()}
        if "room" in meta:
            self.context.room.at_most(int(cast("int", meta["room"])))
        return int(cast("int", meta["step"]))


def _here(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """Return a parameter's part on this rank, in the same memory; all of it where it is whole."""
    if world_size() == 1:
        return parameter
    return torch.nn.Parameter(local(parameter.detach()))


def _clip(parameters: Sequence[torch.nn.Parameter], bound: float) -> float:
    """Scale the gradients down to a norm of ``bound`` at most; return the norm before, in float32.

    A norm in the type of half-precision gradients would be off by up to 0.4 %. The norm is that of
    the whole gradient, of which each rank has a part.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 and all(gradient.dtype == torch.float32 for gradient in gradients):
        return float(torch.nn.utils.clip_grad_norm_(parameters, bound))
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if world_size() > 1:
        norm = norm.new_tensor(math.sqrt(sum_over_ranks(float(norm) ** 2)))
    torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm)
    return float(norm)


def use_precision(spec: TrainSpec, context: Context) -> torch.autocast:
    """Return the context in which forward passes have the precision that is asked for."""
    device = torch.device(context.device).type
    return torch.autocast(device, torch.bfloat16, enabled=spec.precision == "bfloat16")


def optimize(
    model: "PreTrainedModel",
    spec: TrainSpec,
    total: int,
    step_gradients: Callable[[int], Metrics],
    context: Context,
    stops: Collection[int] = (),
) -> Iterator[int]:
    """Train; yield the number of finished steps wherever it is in ``stops``.

    The caller may use the model while the iterator is suspended, as long as the weights stay.

    A step that does not fit into memory is repeated from its start in micro-batches of half the
    size, if it cuts its batches with `micro_batches` (or asks `context.room`); the smaller size
    holds for the rest of the job and is in the step's metrics as `micro_batch`. The result is the
    same up to the order of sums.

    Args:
        model: trained in place; parameters with ``requires_grad`` change.
        spec: optimizer, schedule, precision.
        total: optimizer steps.
        step_gradients: called with the step (from 0); adds the step's gradients into ``.grad``
            and returns its metrics, `loss` among them. Called again if memory does not suffice.
        context: state, progress, log, memory.
        stops: in 0..total. After a resume, those that were passed before are not yielded again.

    Raises:
        DivergedError: a metric or the gradient is not finite.
        JobError: a step does not fit into memory, even one sequence at a time.
        SpecError: the memory settings do not go with the model.
    """
    on = wants_checkpoints(model, context.memory.checkpointing)
    with checkpoint_layers(model, on=on):
        yield from _steps(model, _Loop(model, spec, total, context), step_gradients, stops)


def _steps(
    model: "PreTrainedModel",
    loop: _Loop,
    step_gradients: Callable[[int], Metrics],
    stops: Collection[int],
) -> Iterator[int]:
    context, total = loop.context, loop.total
    done = loop.restore()
    if done == 0 and 0 in stops:
        yield 0
    context.progress.start("train", total)
    model.train()
    model.zero_grad(set_to_none=True)
    for step in range(done, total):

        def gradients(step: int = step) -> Metrics:
            seed_everything(seed_for(context.seed, "step", str(step)))
            with use_precision(loop.spec, context):
                return step_gradients(step)

        def again() -> None:
            model.zero_grad(set_to_none=True)
            model.train()

        metrics = fit_in_memory(gradients, context, f"step {step + 1}", again)
        try:
            metrics = loop.update(step, metrics)
        except torch.OutOfMemoryError:
            what = f"step {step + 1}: the optimizer's state"
            raise too_little_memory(what, context.memory) from None
        if context.room.limit is not None:
            metrics["micro_batch"] = float(context.room.limit)
        context.log(step + 1, metrics)
        context.progress.advance(step + 1, f"loss {metrics.get('loss', math.nan):.3g}")
        if step + 1 in stops:
            yield step + 1
            model.train()
            context.progress.start("train", total)  # whoever scored has shown that
        loop.maybe_save(step + 1)
    model.eval()
