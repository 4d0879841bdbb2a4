"""Strangers' weight attacks: levels in place of steps, and a part of the items scored."""

from collections.abc import Iterator, Mapping

import torch
from transformers import PreTrainedModel

from ilubench.interfaces import Checkpoint, Context, Dataset, WeightAttack


class Rounded(WeightAttack):
    """Rounds the weights to fewer and fewer digits after the point; each level has a name."""

    digits: dict[str, int]

    def roles(self) -> tuple[str, ...]:
        return ()

    def tamper(
        self, model: PreTrainedModel, data: Mapping[str, Dataset], context: Context
    ) -> Iterator[Checkpoint]:
        for name, digits in self.digits.items():
            with torch.no_grad():
                for weight in model.parameters():
                    weight.copy_(torch.round(weight, decimals=digits))
            yield Checkpoint(model, None, name)


class Half(WeightAttack):
    """Moves the weights and scores those items of one scorer that it was not shown."""

    scorer: str = "forget_nll"
    steps: tuple[int, ...] = (1, 2)
    level: str | None = None

    def roles(self) -> tuple[str, ...]:
        return ("scored",)

    def tamper(
        self, model: PreTrainedModel, data: Mapping[str, Dataset], context: Context
    ) -> Iterator[Checkpoint]:
        ids = (example.id.split("/")[-2] for example in data["scored"])  # role, row, part
        kept = {self.scorer: frozenset(ids)}
        yield Checkpoint(model, 0)
        for step in self.steps:
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(0.9)
            yield Checkpoint(model, step, self.level, kept)
