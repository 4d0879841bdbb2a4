"""A module that needs what is not there."""

from typing import TYPE_CHECKING

from ilubench.interfaces import Context, Method, UnlearnData

if TYPE_CHECKING:
    from transformers import PreTrainedModel

raise ImportError("libexotic.so.3: cannot open shared object file")


class BrokenMethod(Method):
    """Never gets so far."""

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Return the model as it is."""
        return model
