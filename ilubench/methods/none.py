"""The original model, untouched: the reference of every row."""

from typing import TYPE_CHECKING, ClassVar

from ilubench.interfaces import Context, Method, UnlearnData

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["NoUnlearning"]


class NoUnlearning(Method):
    """The original model: the reference of every row."""

    seeded: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Return the model as it is."""
        del data, context
        return model
