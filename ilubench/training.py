"""The only training loop: target, methods and attacks go through `optimize`.

A step's data, and any randomness in it, depend on (seed, step) alone; hence a killed job that
resumes from its saved state ends with the same bits as one that was never killed.
"""

import contextlib
import fnmatch
import math
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ilubench.data import Blocks, Stream, collate, to_device
from ilubench.errors import DivergedError, SpecError, did_you_mean
from ilubench.identity import seed_for
from ilubench.interfaces import (
    Batch,
    Context,
    Dataset,
    Method,
    Metrics,
    StepBatch,
    UnlearnBatch,
    UnlearnData,
)
from ilubench.losses import token_nll
from ilubench.models import answer_logits
from ilubench.specs import PackSpec, RecipeSpec, TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "LossMethod",
    "fine_tune",
    "learning_rate",
    "optimize",
    "pad_id",
    "pretrain",
    "seed_everything",
    "sequence_nll",
    "trainable_only",
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


class _Loop:
    """Optimizer, schedule, guards and saved state of one `optimize` call."""

    def __init__(
        self, model: "PreTrainedModel", spec: TrainSpec, total: int, context: Context
    ) -> None:
        self.named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in self.named]
        self.spec, self.total, self.context = spec, total, context
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=spec.lr,
            betas=spec.betas,
            eps=spec.eps,
            weight_decay=spec.weight_decay,
            fused=True,
        )
        self.saved_at = time.monotonic()
        self.save_takes = 0.0

    def update(self, step: int, metrics: Metrics) -> dict[str, float]:
        """Apply the accumulated gradients; return the step's metrics."""
        if not all(math.isfinite(value) for value in metrics.values()):
            raise DivergedError(f"step {step + 1}: not finite: {dict(metrics)}; lower the lr")
        bound = self.spec.clip if self.spec.clip is not None else math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, bound))
        if not math.isfinite(norm):
            raise DivergedError(f"step {step + 1}: the gradient is not finite; lower the lr")
        rate = learning_rate(self.spec, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {**metrics, "lr": rate, "grad_norm": norm}

    def maybe_save(self, step: int) -> None:
        """Save when the last save is long enough ago."""
        pause = max(self.spec.save_every_s, 20 * self.save_takes)  # saving costs 5 % at most
        if time.monotonic() - self.saved_at < pause or step == self.total:
            return
        begun = time.monotonic()
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self.named:
            tensors[f"weight/{name}"] = parameter
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{name}/{key}"] = value
        self.context.state.save(self.context.phase, tensors, {"step": step, "total": self.total})
        self.saved_at = time.monotonic()
        self.save_takes = self.saved_at - begun if self.spec.save_every_s else 0.0

    def restore(self) -> int:
        """Load the saved state, if any; return the number of finished steps."""
        saved = self.context.state.load(self.context.phase)
        if saved is None:
            return 0
        tensors, meta = saved
        for name, parameter in self.named:
            with torch.no_grad():
                parameter.copy_(tensors[f"weight/{name}"])
            prefix = f"optimizer/{name}/"
            state = {
                key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)
            }
            self.optimizer.state[parameter] = {
                key: value.to(parameter.device) for key, value in state.items()
            }
        return int(cast("int", meta["step"]))


def _precision(spec: TrainSpec, context: Context) -> torch.autocast:
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

    Args:
        model: trained in place; parameters with ``requires_grad`` change.
        spec: optimizer, schedule, precision.
        total: optimizer steps.
        step_gradients: called with the step (from 0); adds the step's gradients into ``.grad``
            and returns its metrics, `loss` among them.
        context: state, progress, log.
        stops: in 0..total. After a resume, those that were passed before are not yielded again.

    Raises:
        DivergedError: a metric or the gradient is not finite.
    """
    loop = _Loop(model, spec, total, context)
    done = loop.restore()
    context.progress.start("train", total)
    if done == 0 and 0 in stops:
        yield 0
    model.train()
    model.zero_grad(set_to_none=True)
    for step in range(done, total):
        seed_everything(seed_for(context.seed, "step", str(step)))
        with _precision(spec, context):
            metrics = step_gradients(step)
        metrics = loop.update(step, metrics)
        context.log(step + 1, metrics)
        context.progress.advance(step + 1, f"loss {metrics.get('loss', math.nan):.3g}")
        if step + 1 in stops:
            yield step + 1
            model.train()
        loop.maybe_save(step + 1)
    model.eval()


# --------------------------------------------------------------------------- fine-tuning


def _nll_step(model: "PreTrainedModel", batches: Sequence[Batch], device: str) -> Metrics:
    loss, tokens = 0.0, 0
    for batch in batches:
        moved = to_device(batch, device)
        answers = answer_logits(model, moved)
        part = token_nll(answers.logits, answers.targets).sum() / batch.tokens
        part.backward()
        loss += float(part.detach())
        tokens += int(batch.attention_mask.sum())
    return {"loss": loss, "tokens": float(tokens)}


def fine_tune(
    model: "PreTrainedModel",
    dataset: Dataset,
    spec: TrainSpec,
    context: Context,
    stops: Collection[int] = (),
) -> Iterator[int]:
    """Minimise the mean NLL of the target tokens; yields as `optimize` does."""
    stream = Stream(len(dataset), context.seed, "train")
    pad = pad_id(context.tokenizer)

    def gradients(step: int) -> Metrics:
        chosen = stream.step(step, spec.batch_size)
        batches = collate(dataset, chosen, pad, micro=spec.micro_batch)
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
        return _nll_step(model, _full_batches(ids, recipe.train.micro_batch), context.device)

    for _ in optimize(model, recipe.train, total, gradients, context):
        pass


def _full_batches(ids: torch.Tensor, micro: int | None) -> list[Batch]:
    """Blocks without padding, every token but the first a target; ids int64 [B, T]."""
    size = micro or len(ids)
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
    model: "PreTrainedModel", dataset: Dataset, context: Context, spec: TrainSpec, *, mean: bool
) -> torch.Tensor:
    """Return each example's NLL under the model as it is now, without gradients.

    Args:
        model: scored in eval mode.
        dataset: n examples.
        context: device and tokenizer.
        spec: of the training that follows; its precision and micro-batch are used, so that the
            ratio to this reference is exactly 1 before the first step.
        mean: per-token mean instead of the sum.

    Returns:
        float32 [n] on the CPU, in the data set's order.
    """
    found = torch.zeros(len(dataset))
    training = model.training
    model.eval()
    size = spec.micro_batch or spec.batch_size
    with torch.no_grad(), _precision(spec, context):
        for batch in collate(dataset, range(len(dataset)), pad_id(context.tokenizer), micro=size):
            answers = answer_logits(model, to_device(batch, context.device))
            nll = token_nll(answers.logits, answers.targets)
            sums = nll.new_zeros(answers.count).index_add(0, answers.sequence, nll)
            if mean:
                sums = sums / batch.loss_mask.sum(1).to(sums.device)
            found[batch.index] = sums.cpu()
    model.train(training)
    return found


# --------------------------------------------------------------------------- loss methods


@dataclass(frozen=True)
class _Streams:
    forget: Stream
    retain: Stream
    environments: Mapping[str, Stream]


class LossMethod(Method):
    """A method that is a loss over forget and retain batches.

    Define `loss`; override `prepare` for what is computed once from the original model, and
    `backward` for what is more than a sum of micro-batch losses (see `ilubench.methods.ilu`).
    """

    train: TrainSpec
    trainable: tuple[str, ...] = ()

    def environment_batches(self) -> Mapping[str, int]:
        """Return environment name -> sequences a step."""
        return {}

    def environment_names(self) -> tuple[str, ...]:
        """Return the environments that the method trains on."""
        return tuple(self.environment_batches())

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Any:  # noqa: ANN401, ARG002
        """Return what `loss` needs of the original model; called once, before any step."""
        return None

    @abstractmethod
    def loss(self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return a micro-batch's partial loss (see `ilubench.interfaces.Batch`), a scalar."""

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the step's gradients into ``.grad``; return metrics, `loss` among them."""
        total = 0.0
        for micro in step.micro:
            part = self.loss(model, micro, prepared)
            part.backward()
            total += float(part.detach())
        return {"loss": total}

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Minimise the loss for `train`'s steps; the model is changed in place.

        Raises:
            DivergedError: a loss or gradient is not finite.
        """
        prepared = self.prepare(model, data, context)
        with trainable_only(model, self.trainable):
            streams = self._streams(data, context)

            def gradients(step: int) -> Metrics:
                batch = self._batch(step, streams, data, context)
                metrics = self.backward(model, batch, prepared)
                return {**metrics, "tokens": float(_tokens(batch))}

            total = self.train.total_steps(len(data.forget))
            for _ in optimize(model, self.train, total, gradients, context):
                pass
        return model

    def _streams(self, data: UnlearnData, context: Context) -> _Streams:
        seed = context.seed
        return _Streams(
            Stream(len(data.forget), seed, "forget"),
            Stream(len(data.retain), seed, "retain"),
            {
                name: Stream(len(data.environments[name]), seed, f"environment {name}")
                for name in self.environment_batches()
            },
        )

    def _batch(
        self, step: int, streams: _Streams, data: UnlearnData, context: Context
    ) -> StepBatch:
        pad, spec = pad_id(context.tokenizer), self.train
        progress = step / spec.total_steps(len(data.forget))

        def batches(dataset: Dataset, stream: Stream, count: int) -> list[Batch]:
            made = collate(dataset, stream.step(step, count), pad, micro=spec.micro_batch)
            return [to_device(replace(batch, progress=progress), context.device) for batch in made]

        forget = batches(data.forget, streams.forget, spec.batch_size)
        retain = batches(data.retain, streams.retain, spec.batch_size)
        environments = {
            name: batches(data.environments[name], streams.environments[name], count)
            for name, count in self.environment_batches().items()
        }
        micro = [UnlearnBatch(f, r) for f, r in zip(forget, retain, strict=True)]
        return StepBatch(micro, environments)


def _tokens(step: StepBatch) -> int:
    batches = [b for micro in step.micro for b in (micro.forget, micro.retain)]
    batches += [b for group in step.environments.values() for b in group]
    return sum(int(batch.attention_mask.sum()) for batch in batches)
