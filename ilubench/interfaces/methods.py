"""Unlearning methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from ilubench.interfaces.training import Context, UnlearnData
from ilubench.specs import Spec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "Method",
]


class Method(Spec, ABC):
    """An unlearning method; subclass `ilubench.training.LossMethod` unless you need your own loop.

    Attributes:
        version: raise it whenever the same settings give another result.
        seeded: False when the result does not depend on the seed.
        trains: False when the result does not depend on the forget and retain sets.
    """

    version: ClassVar[int] = 1
    seeded: ClassVar[bool] = True
    trains: ClassVar[bool] = True

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

    @abstractmethod
    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        """Return the unlearned model (the same object, changed in place, or another)."""
