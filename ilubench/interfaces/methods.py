"""Unlearning methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from ilubench.errors import SpecError
from ilubench.interfaces.training import Context, UnlearnData
from ilubench.specs import SearchSpec, Spec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "Method",
    "goes_with_shards",
]


def goes_with_shards(kind: type, steps: Collection[str]) -> bool:
    """Return what the class says by `shards` that defines the first of the methods, or is below.

    Args:
        kind: of a method or an attack.
        steps: names of what computes its steps.
    """
    for one in kind.__mro__:
        if "shards" in vars(one):
            return bool(vars(one)["shards"])
        if not vars(one).keys().isdisjoint(steps):
            return False
    return False


class Method(Spec, ABC):
    """An unlearning method; subclass `ilubench.training.LossMethod` unless you need your own loop.

    Attributes:
        version: raise it whenever the same settings give another result.
        seeded: False when the result does not depend on the seed.
        trains: False when the result does not depend on the forget and retain sets.
        shards: whether the class's own `unlearn` or `backward` goes with a model whose weights are
            divided among several devices; what overrides them says so again.
    """

    version: ClassVar[int] = 1
    seeded: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    shards: ClassVar[bool] = False

    def environment_names(self) -> tuple[str, ...]:
        """Return the benign sets that the method trains on; attacks with them count as seen."""
        return ()

    def identity(self) -> Mapping[str, JsonValue]:
        """Return what determines the result besides the settings (hashes of files read)."""
        return {}

    def check_model(self, config: PretrainedConfig) -> None:
        """Find settings that do not fit a model, before any job; a base's are checked by itself.

        Args:
            config: of the target model.

        Raises:
            SpecError: names the field, its value, and what the model has.
        """

    def propose_search(self, config: PretrainedConfig) -> SearchSpec | None:  # noqa: ARG002
        """Return what `ilubench tune` tries of this method where a suite does not say it.

        `ilubench.training.proposals` has ranges that fit a model: learning rates by its width,
        layers by its depth.

        Args:
            config: of the target model.

        Returns:
            None where there is nothing to search, or the author proposes nothing.
        """
        return None

    def check_sharding(self) -> None:
        """Find what does not go with a model whose weights are divided among several devices.

        Raises:
            SpecError: the method has steps of its own and does not say that they do.
        """
        if self.trains and not goes_with_shards(type(self), ("unlearn", "backward")):
            raise SpecError(
                f"{type(self).__name__} does not train a model that is divided among devices",
                field="devices_per_job",
                remedy="leave it out",
            )

    @abstractmethod
    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        """Return the unlearned model (the same object, changed in place, or another)."""
