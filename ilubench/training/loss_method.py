"""Methods that are a loss over forget and retain batches."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ilubench.data.batches import Stream, to_device
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
from ilubench.specs import TrainSpec
from ilubench.training.loop import micro_batches, optimize, trainable_only

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LossMethod"]


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
        known = replace(data, forget_seen=self.forget_seen(data, context))
        prepared = self.prepare(model, known, context)
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

    def forget_seen(self, data: UnlearnData, context: Context) -> frozenset[int]:
        """Return the positions of the forget examples that `train`'s steps will see.

        `prepare` finds them in its `data.forget_seen`. Override this where `backward` draws forget
        examples of its own; a method with an own loop has nothing to do: a base that it prepares
        itself is told of no positions, and is ready for all.
        """
        total = self.train.total_steps(len(data.forget))
        stream = Stream(len(data.forget), context.seed, "forget")
        return frozenset(stream.step(0, total * self.train.batch_size))

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
        spec = self.train
        progress = step / spec.total_steps(len(data.forget))

        def batches(dataset: Dataset, stream: Stream, count: int) -> list[Batch]:
            made = micro_batches(dataset, stream.step(step, count), spec, context)
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
