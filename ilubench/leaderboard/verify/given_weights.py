"""Unlearned weights that are given, one file a seed, in the place of a method's."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, JsonValue

from ilubench.data.seeds import seed_for
from ilubench.errors import ModelError
from ilubench.interfaces import Context, Method, UnlearnData
from ilubench.records.keys import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["GivenOnce", "GivenWeights"]

COMPUTED = "rotary_emb.inv_freq"
"""A computed buffer that old checkpoints carry."""


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
        put_weights(model, path)
        return model


class GivenOnce(GivenWeights):
    """The weights of a method without randomness: one file, which every seed attacks."""

    seeded: ClassVar[bool] = False


def put_weights(model: "PreTrainedModel", path: Path) -> None:
    """Replace a model's tensors by those of a safetensors file; nothing else is read from it.

    Raises:
        ModelError: no safetensors file, or other tensors or shapes than the model has.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    current = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    try:
        with safe_open(path, framework="pt") as handle:
            names = {name for name in handle.keys() if not name.endswith(COMPUTED)}  # noqa: SIM118
            odd = sorted(names ^ current.keys() - (tied - names))
            if odd:
                where = "only there" if odd[0] in names else "not there"
                raise ModelError(f"{path}: tensor {odd[0]!r} of the suite's target is {where}")
            with torch.no_grad():
                for name in sorted(names):
                    shape = tuple(handle.get_slice(name).get_shape())
                    if shape != tuple(current[name].shape):
                        wanted = tuple(current[name].shape)
                        raise ModelError(f"{path}: tensor {name!r} is {shape}, not {wanted}")
                    current[name].copy_(handle.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error
