"""A model that was unlearned elsewhere, given as a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from ilubench.errors import ModelError
from ilubench.interfaces import Context, Method, UnlearnData
from ilubench.models.checkpoints import find_folder, folder_sha256, load_model
from ilubench.models.configuration import other_settings
from ilubench.specs import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Checkpoint", "fitting_model"]


class Checkpoint(Method):
    """A model unlearned elsewhere: `ilubench attack MODEL` runs this.

    Attributes:
        model: the checkpoint; it must have the target model's tensors.
    """

    seeded: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    model: ModelSource

    def identity(self) -> Mapping[str, JsonValue]:
        """Return the hash of the checkpoint's files."""
        return {"weights": folder_sha256(find_folder(self.model, "method.model"))}

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Return the checkpoint's model; the target model is put aside.

        Raises:
            ModelError: it cannot be loaded, or has other tensors than the target model.
        """
        del data
        return fitting_model(self.model, model, context)


def fitting_model(
    source: ModelSource, target: "PreTrainedModel", context: Context
) -> "PreTrainedModel":
    """Load a model in the place of the target model, in its dtype.

    Raises:
        ModelError: it cannot be loaded, or has other tensors than the target model.
    """
    folder = find_folder(source)
    found = load_model(folder, context.device, target.dtype)
    here, there = (
        {name: tuple(tensor.shape) for name, tensor in part.state_dict().items()}
        for part in (found, target)
    )
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise ModelError(
                f"{folder} does not fit the suite's target model: tensor {name!r} is "
                f"{here.get(name, 'absent')}, in the target {there.get(name, 'absent')}"
            )
    for setting, mine, theirs in other_settings(found.config, target.config):
        problem = f"{setting} is {mine}, in the target {theirs}"
        raise ModelError(f"{folder} does not fit the suite's target model: {problem}")
    return found
