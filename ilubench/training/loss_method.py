"""Methods that are a loss over forget and retain batches."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from pydantic import Field, JsonValue, model_validator

from ilubench.data.batches import Stream
from ilubench.interfaces import (
    Context,
    Method,
    Metrics,
    StepBatch,
    UnlearnBatch,
    UnlearnData,
)
from ilubench.models.sharding import sum_over_ranks
from ilubench.specs import LoraSpec, SearchSpec, TrainSpec
from ilubench.training.loop import Batches, count_tokens, optimize
from ilubench.training.lora import (
    ADAPTERS,
    check_lora,
    check_lora_shards,
    lora_identity,
    train_part,
)
from ilubench.training.proposals import propose

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["LossMethod"]


class LossMethod(Method):
    """A method that is a loss over forget and retain batches.

    Define `loss`; override `prepare` for what is computed once from the original model, and
    `backward` for what is more than a sum of micro-batch losses (see `ilubench.methods.ilu`).

    Attributes:
        train: optimizer and length of the training.
        trainable: patterns of the parameters that are trained, such as `*.mlp.down_proj.*`; none:
            all.
        lora: low-rank adapters that are trained instead, and merged at the end.
    """

    shards: ClassVar[bool] = True

    train: TrainSpec
    trainable: tuple[str, ...] = ()
    lora: LoraSpec | None = Field(default=None, exclude_if=lambda lora: lora is None)

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        if self.lora is not None and self.trainable:
            raise ValueError("trainable and lora: one of them is trained; leave the other out")
        return self

    @property
    def changing(self) -> tuple[str, ...]:
        """Patterns of the parameters that change while it trains; none: all.

        What keeps their original values, once it trains, has the original model.
        """
        return self.trainable if self.lora is None else ADAPTERS

    def identity(self) -> Mapping[str, JsonValue]:
        """Return the version of peft, where it is used."""
        return lora_identity(self.lora)

    def check_model(self, config: "PretrainedConfig") -> None:
        """Find adapters that do not fit the model; a method with more to find asks this, too.

        Raises:
            SpecError: a target is no layer of the model.
            UsageError: adapters are asked for, and peft is not installed.
        """
        check_lora(self.lora, config)

    def check_sharding(self) -> None:
        """Refuse adapters, and steps that do not say that they go with shards.

        Raises:
            SpecError: names the setting.
        """
        super().check_sharding()
        check_lora_shards(self.lora, "method.lora")

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec | None:
        """Return a search over the learning rate alone; override it for what else matters."""
        return propose(config, (2e-6, 3e-5))

    def environment_batches(self) -> Mapping[str, int]:
        """Return environment name -> sequences a step."""
        return {}

    def environment_names(self) -> tuple[str, ...]:
        """Return the environments that the method trains on."""
        return tuple(self.environment_batches())

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Any:  # noqa: ANN401, ARG002
        """Return what `loss` needs of the original model; called once, before any step.

        What is to be trained can be told already, and computes what the original does.
        """
        return None

    @abstractmethod
    def loss(self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return a micro-batch's partial loss (see `ilubench.interfaces.Batch`), a scalar."""

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the step's gradients into ``.grad``; return metrics, `loss` among them.

        Metrics are of the whole step: of all ranks, where the model is sharded.
        """
        total = 0.0
        for micro in step.micro:
            part = self.loss(model, micro, prepared)
            part.backward()
            total += float(part.detach())
        return {"loss": sum_over_ranks(total)}

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Minimise the loss for `train`'s steps; the model is changed in place.

        Raises:
            DivergedError: a loss or gradient is not finite.
            SpecError: a setting does not fit the model.
        """
        self.check_model(model.config)
        known = replace(data, forget_seen=self.forget_seen(data, context))
        with train_part(model, self.trainable, self.lora, context.seed):
            prepared = self.prepare(model, known, context)
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
                batch = StepBatch(
                    [UnlearnBatch(*pair) for pair in forget.step_with(retain, step, done)],
                    {name: own.step(step, done) for name, own in environments.items()},
                )
                metrics = self.backward(model, batch, prepared)
                own = [b for micro in batch.micro for b in (micro.forget, micro.retain)]
                own += [b for group in batch.environments.values() for b in group]
                return {**metrics, "tokens": count_tokens(own)}

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
