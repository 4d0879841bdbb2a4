"""Attacks without steps: the linear layers' weights changed, level by level."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import torch

from ilubench.errors import SpecError
from ilubench.interfaces import Checkpoint, Context, Dataset, WeightAttack
from ilubench.models.forward import outline_model
from ilubench.models.linear import by_outputs, linear_layers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Change", "LevelAttack", "rising"]

Change: TypeAlias = Callable[[Mapping[str, torch.Tensor]], None]
"""Changes weights in place: layer -> [outputs, inputs]."""


def rising(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return levels as they are; refuse any that do not go from the weakest to the strongest.

    Raises:
        ValueError: one is not higher than the one before.
    """
    if any(later <= earlier for earlier, later in pairwise(levels)):
        told = ", ".join(f"{level:g}" for level in sorted(set(levels)))
        raise ValueError(f"levels go from the weakest to the strongest, each once: {told}")
    return levels


class LevelAttack(WeightAttack):
    """Changes the linear layers, the head aside, level by level; every attack of the kind is one.

    Every level begins with the weights as they were, bit for bit: they are kept in the machine's
    memory. The last one's weights stay.
    """

    @abstractmethod
    def levels(self, seed: int) -> Mapping[str, Change]:
        """Return name -> what is done to the weights, the weakest first.

        Args:
            seed: of what is drawn.
        """

    def roles(self) -> tuple[str, ...]:
        """Return none."""
        return ()

    def checkpoints(self, examples: int) -> tuple[int | str, ...]:  # noqa: ARG002
        """Return the unlearned model, then the levels."""
        return (0, *self.levels(0))

    def check_model(self, config: "PretrainedConfig") -> None:
        """Refuse a model whose layers hold many matrices in one tensor, which would stay.

        Raises:
            SpecError: names the tensor.
        """
        for name, parameter in outline_model(config).named_parameters():
            if parameter.dim() > 2:
                held = "holds several matrices in one tensor (experts), which is not changed"
                raise SpecError(f"{name} {held}", field="use", remedy="leave the attack out")

    def tamper(
        self,
        model: "PreTrainedModel",
        data: Mapping[str, Dataset],  # noqa: ARG002
        context: Context,
    ) -> Iterator[Checkpoint]:
        """Yield the live model before, and at each level."""
        return _score_levels(model, self.levels(context.seed))


def _score_levels(model: "PreTrainedModel", levels: Mapping[str, Change]) -> Iterator[Checkpoint]:
    yield Checkpoint(model, 0)
    weights = {name: by_outputs(layer) for name, layer in linear_layers(model).items()}
    kept: dict[str, torch.Tensor] = {}
    if len(levels) > 1:
        kept = {name: weight.to("cpu", copy=True) for name, weight in weights.items()}
    for place, (level, change) in enumerate(levels.items()):
        if place:
            for name, weight in weights.items():
                weight.copy_(kept[name])
        change(weights)
        yield Checkpoint(model, None, level)
