"""The suite's model that never saw the forget set: the gold standard of unlearning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import JsonValue

from ilubench.errors import ModelError
from ilubench.interfaces import Context, Method, UnlearnData
from ilubench.methods.checkpoint import fitting_model
from ilubench.models.checkpoints import find_folder, folder_sha256
from ilubench.models.tokenizers import load_tokenizer
from ilubench.specs import FromSuite, ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Retrain"]


class Retrain(Method):
    """A model trained like the target, but never on the forget set: the gold standard.

    What an attack brings "back" in this model, the attack has taught: the same attack on it is the
    reference of each row's never-knew difference.

    Attributes:
        model: its weights, those of the suite; they must have the target model's tensors. None:
            the suite's recipe makes them.
    """

    seeded: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    model: Annotated[ModelSource | None, FromSuite("retrain")] = None

    def identity(self) -> Mapping[str, JsonValue]:
        """Return the hash of the weights' files, where there are any."""
        if self.model is None:
            return {}
        return {"weights": folder_sha256(find_folder(self.model, "suite.retrain.model"))}

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Return the retrained model; the target model is put aside.

        Raises:
            ModelError: it cannot be loaded, or has other tensors or, where it brings a tokenizer,
                other tokens than the target model.
        """
        del data
        assert self.model is not None  # else the recipe makes it in place of this
        remedy = "give others by suite.retrain.model.path=FOLDER, or do without: never_knew=false"
        try:
            found = fitting_model(self.model, model, context)
        except ModelError as error:
            raise ModelError(f"{error}; {remedy}") from error
        folder = find_folder(self.model)
        own = load_tokenizer(folder) if (folder / "tokenizer.json").is_file() else None
        if own is not None and own.get_vocab() != context.tokenizer.get_vocab():
            raise ModelError(f"{folder} has other tokens than the target model; {remedy}")
        return found
