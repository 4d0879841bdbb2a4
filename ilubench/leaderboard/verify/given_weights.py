"""Unlearned weights that are given, one file a seed, in the place of a method's."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, JsonValue

from ilubench.data.hub.models import SINGLE
from ilubench.data.seeds import seed_for
from ilubench.errors import ModelError
from ilubench.interfaces import Context, Method, UnlearnData
from ilubench.records.keys import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["GivenOnce", "GivenWeights", "weights_like"]


class GivenWeights(Method):
    """Published weights, attacked again: each fresh seed has one of them.

    Attributes:
        sha256: seed -> of its file; what records show.
        files: seed -> where the file lies; no part of records and keys.
    """

    trains: ClassVar[bool] = False

    sha256: dict[int, str] = Field(min_length=1)
    files: dict[int, Path] = Field(exclude=True)

    def identity(self) -> Mapping[str, JsonValue]:
        """Return nothing: the hashes are settings, and hashes determine the weights."""
        return {}

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Return the model with the weights of the context's seed.

        Raises:
            ModelError: the file is not the one that was matched, or does not fit the model.
        """
        del data
        seed = next(one for one in self.files if seed_for(one, "unlearn") == context.seed)
        path = self.files[seed]
        if file_sha256(path) != self.sha256[seed]:
            raise ModelError(f"{path} was changed while it was in use; its SHA-256 is another")
        return weights_like(model, path)


class GivenOnce(GivenWeights):
    """The weights of a method without randomness: one file, which every seed attacks."""

    seeded: ClassVar[bool] = False


def weights_like(model: "PreTrainedModel", path: Path) -> "PreTrainedModel":
    """Load a safetensors file as a checkpoint of a model's configuration, device and dtype.

    Raises:
        ModelError: no safetensors file, or other tensors or shapes than the model has.
    """
    from ilubench.models.checkpoints import load_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model.config.save_pretrained(folder)
        (folder / SINGLE).symlink_to(path.resolve())
        try:
            return load_model(folder, str(model.device), model.dtype)
        except ModelError as error:
            raise ModelError(f"{path} does not fit the suite's target: {error}") from error
