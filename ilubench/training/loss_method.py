"""Methods that are a loss over forget and retain batches."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ilubench.data.batches import Stream
from ilubench.interfaces import (
    Context,
    Drawn,
    Effort,
    Lengths,
    Method,
    Metrics,
    Pass,
    Sizes,
    StepBatch,
    UnlearnBatch,
    UnlearnData,
    Updates,
)
from ilubench.specs import TrainSpec
from ilubench.training.loop import Batches, optimize, trainable_only

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LossMethod"]


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

    def work(self, sizes: Sizes) -> Effort:
        """Tell what the training asks for: `first_passes`, and `step_passes` of all steps."""
        steps = self.train.total_steps(len(sizes.forget))
        passes = (*self.first_passes(sizes), *self.step_passes(sizes))
        return Effort(passes, (Updates(steps, self.trainable),), self.kept_copies())

    def step_passes(self, sizes: Sizes) -> tuple[Pass, ...]:
        """Tell the passes of the training steps; by default a guess: each batch once."""
        names = ("forget", "retain", *(f"environment {n}" for n in self.environment_batches()))
        return tuple(Pass(self.drawn(sizes, name), guessed=True) for name in names)

    def first_passes(self, sizes: Sizes) -> tuple[Pass, ...]:  # noqa: ARG002
        """Tell the passes of `prepare`."""
        return ()

    def kept_copies(self) -> float:
        """Tell how many copies of the trained weights lie on the device besides the model."""
        return 0.0

    def drawn(self, sizes: Sizes, stream: str, run: Lengths | None = None) -> Drawn:
        """Return the batches of all steps.

        Args:
            sizes: of the data.
            stream: `forget`, `retain` or `environment NAME`.
            run: what the loss runs in the items' places, if not the items themselves.
        """
        name = stream.removeprefix("environment ")
        items = {"forget": sizes.forget, "retain": sizes.retain}.get(stream)
        count = self.train.batch_size
        if items is None:
            items, count = sizes.environments[name], self.environment_batches()[name]
        steps = self.train.total_steps(len(sizes.forget))
        return Drawn(items, sizes.seed, stream, steps, count, self.train.micro_batch, run)

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
            forget = Batches(data.forget, "forget", self.train, context)
            retain = Batches(data.retain, "retain", self.train, context)
            environments = {
                name: Batches(
                    data.environments[name], f"environment {name}", self.train, context, count
                )
                for name, count in self.environment_batches().items()
            }
            total = self.train.total_steps(len(data.forget))

            def gradients(step: int) -> Metrics:
                done = step / total
                pairs = zip(forget.step(step, done), retain.step(step, done), strict=True)
                batch = StepBatch(
                    [UnlearnBatch(*pair) for pair in pairs],
                    {name: own.step(step, done) for name, own in environments.items()},
                )
                metrics = self.backward(model, batch, prepared)
                return {**metrics, "tokens": float(_tokens(batch))}

            for _ in optimize(model, self.train, total, gradients, context):
                pass
        return model

    def forget_seen(self, data: UnlearnData, context: Context) -> frozenset[int]:
        """Return the positions of the forget examples that `train`'s steps will see.

        `prepare` finds them in its `data.forget_seen`. Override this where `backward` draws forget
        examples of its own; a method with an own loop has nothing to do: a base that it prepares
        itself is told of no positions, and is ready for all.
        """
        return self.seen(len(data.forget), context.seed)

    def seen(self, examples: int, seed: int) -> frozenset[int]:
        """Return the positions of so many forget examples that `train`'s steps will see."""
        total = self.train.total_steps(examples)
        stream = Stream(examples, seed, "forget")
        return frozenset(stream.step(0, total * self.train.batch_size))


def _tokens(step: StepBatch) -> int:
    batches = [b for micro in step.micro for b in (micro.forget, micro.retain)]
    batches += [b for group in step.environments.values() for b in group]
    return sum(int(batch.attention_mask.sum()) for batch in batches)
