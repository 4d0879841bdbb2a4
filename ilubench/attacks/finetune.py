"""Full fine-tuning on a benign data set: the attack that every suite has."""

import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

from pydantic import Field, JsonValue

from ilubench.errors import SpecError
from ilubench.interfaces import Checkpoint, Context, Dataset, WeightAttack
from ilubench.specs import LoraSpec, TrainSpec
from ilubench.training import fine_tune, train_part
from ilubench.training.lora import check_lora, check_lora_shards, lora_identity

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["FineTune"]


MOST_CHECKPOINTS = 10_000
"""Epochs after each of which a model may be scored."""

Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]
QUARTERS = (0.25, 0.5, 0.75, 1.0)
"""They stay in an attack of two steps, where the first quarter is none."""


class FineTune(WeightAttack):
    """Fine-tuning, full or of low-rank adapters; the loss is on the answer tokens.

    Attributes:
        train: optimizer and length; the same steps for every method.
        role: what it trains on: a role of the attack's own data or of the suite's, the name of one
            of the suite's environments, or `forget` or `retain`, the suite's whole set.
        examples: at most so many of them, drawn once: all methods and seeds meet the same ones.
        fractions: shares of the steps at which the model is scored, above 0 and at most 1.
        each_epoch: score at the end of every epoch, too.
        lora: low-rank adapters that are trained in the weights' place, and merged to be scored.
    """

    shards: ClassVar[bool] = True

    train: TrainSpec
    # two that older records do not have: left out where they change nothing
    role: str = Field(default="train", exclude_if=lambda role: role == "train")
    examples: int | None = Field(default=None, ge=1, exclude_if=lambda count: count is None)
    fractions: tuple[Share, ...] = Field(default=QUARTERS, min_length=1)
    each_epoch: bool = True
    lora: LoraSpec | None = Field(default=None, exclude_if=lambda lora: lora is None)

    def roles(self) -> tuple[str, ...]:
        """Return the role that it trains on."""
        return (self.role,)

    def checkpoints(self, examples: int) -> tuple[int, ...]:
        """Return the steps that are scored, 0 first.

        Args:
            examples: how many there are to train on.

        Raises:
            SpecError: there would be so many that nobody scores them.
        """
        examples = min(examples, self.examples or examples)
        total = self.train.total_steps(examples)
        stops = {0, total} | {round(share * total) for share in self.fractions}
        if self.each_epoch:
            epochs = int(total * self.train.batch_size / examples + 1e-9)
            if epochs > MOST_CHECKPOINTS:
                problem = f"the model would be scored {epochs} times, after every epoch"
                raise SpecError(problem, field="each_epoch", remedy="set it to false")
            stops |= {self.train.steps_of(epoch + 1, examples) for epoch in range(epochs)}
        return tuple(sorted(stop for stop in stops if stop <= total))

    def identity(self) -> Mapping[str, JsonValue]:
        """Return the version of peft, where it is used."""
        return lora_identity(self.lora)

    def check_model(self, config: "PretrainedConfig") -> None:
        """Refuse adapters that do not fit the model.

        Raises:
            SpecError: a target is no layer of the model.
            UsageError: adapters are asked for, and peft is not installed.
        """
        check_lora(self.lora, config)

    def check_sharding(self) -> None:
        """Refuse adapters on a model that is divided among devices.

        Raises:
            SpecError: names the setting.
        """
        super().check_sharding()
        check_lora_shards(self.lora, "lora")

    def check_examples(self, counts: Mapping[str, int]) -> None:
        """Refuse a fraction, other than the usual ones, at which no step has been made.

        Raises:
            SpecError: names `fractions`.
        """
        total = self.checkpoints(counts[self.role])[-1]
        for share in self.fractions:
            if share not in QUARTERS and not round(share * total):
                raise SpecError(
                    f"{share:g} of {total} steps is step 0, where the attack has not begun",
                    field="fractions",
                    remedy=f"give {1 / total:.2g} or more",
                )

    def tamper(
        self, model: "PreTrainedModel", data: Mapping[str, Dataset], context: Context
    ) -> Iterator[Checkpoint]:
        """Yield the live model at step 0 and along the fine-tuning."""
        dataset = data[self.role]
        if self.examples is not None and self.examples < len(dataset):
            drawn = random.Random(0).sample(range(len(dataset)), self.examples)
            dataset = [dataset[place] for place in sorted(drawn)]
        stops = self.checkpoints(len(dataset))
        # all: an attacker is not bound by what the method froze
        with train_part(model, (), self.lora, context.seed) as merged:
            for step in fine_tune(model, dataset, self.train, context, stops):
                with merged():
                    yield Checkpoint(model, step)
