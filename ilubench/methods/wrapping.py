"""Methods around another one: its training settings are theirs unless they are given their own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import torch
from pydantic import Field, model_validator

from ilubench.interfaces import Context, UnlearnBatch, UnlearnData
from ilubench.interfaces.discovery import PluginField, create_plugin
from ilubench.specs import Candidates, LoraSpec, Plain, PluginRef, SearchSpec, TrainSpec
from ilubench.specs.merging import merge_mappings
from ilubench.training import LossMethod

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Wrapper"]

Base: TypeAlias = Annotated[
    LossMethod, PluginField("methods", lends=("train", "trainable", "lora"))
]
"""A setting: the method that a wrapper trains, by its own `train`, `trainable` and `lora`."""


def _as_the_base(values: Any, default: str) -> Any:  # noqa: ANN401
    """Return a wrapper's raw fields with `base` and what it lends filled in and agreeing.

    Args:
        values: raw fields; `base` is a name, `{use, settings}` or an object.
        default: name of the base when none is given.

    Raises:
        ValueError: the base is no LossMethod.
    """
    if not isinstance(values, Mapping):
        return values
    base = values.get("base", default)
    if isinstance(base, str | Mapping):
        base = create_plugin("methods", PluginRef.model_validate(base))
    if not isinstance(base, LossMethod):
        problem = f"base: {type(base).__name__} is not a LossMethod"
        raise ValueError(problem)  # noqa: TRY004 - pydantic reports no TypeError
    train = values.get("train") or {}
    if isinstance(train, Mapping):
        below = base.train.model_dump(mode="json")
        train = TrainSpec.model_validate(merge_mappings(below, train))
    lora = values.get("lora")
    part = {
        "trainable": tuple(values.get("trainable") or ()),
        "lora": LoraSpec.model_validate(lora) if isinstance(lora, Mapping) else lora,
    }
    if not any(part.values()):
        part = {"trainable": base.trainable, "lora": base.lora}
    return {**values, "base": _trained_as(base, train, part), "train": train, **part}


def _trained_as(base: LossMethod, train: TrainSpec, part: Mapping[str, Any]) -> LossMethod:
    changes: dict[str, Any] = {"train": train, **part}
    inner = getattr(base, "base", None)
    if isinstance(inner, LossMethod):  # a wrapper in a wrapper: its base prepares with these too
        changes["base"] = _trained_as(inner, train, part)
    return base.model_copy(update=changes)


class Wrapper(LossMethod):
    """A method around another one; what it does not define is the base's.

    Attributes:
        base: the method that is trained; `train`, and `trainable` or `lora`, are its own unless
            given.
    """

    base: Base = Field(default="npo", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _train_as_the_base(cls, values: Any) -> Any:  # noqa: ANN401
        return _as_the_base(values, cls.model_fields["base"].default)

    def propose_around(
        self,
        config: "PretrainedConfig",
        fixed: dict[str, Plain | tuple[Plain, ...]] | None = None,
        **space: Candidates,
    ) -> SearchSpec:
        """Return a search over the base's learning rate and settings of the wrapper's own.

        Args:
            config: of the model.
            fixed: settings that are not searched.
            space: setting -> what is tried.
        """
        found = self.base.propose_search(config)
        space_of_base = found.space if found is not None else {}
        rates = {name: tried for name, tried in space_of_base.items() if name == "train.lr"}
        return SearchSpec(fixed=fixed or {}, space={**rates, **space})

    def environment_batches(self) -> Mapping[str, int]:
        """Return the base's."""
        return self.base.environment_batches()

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Any:  # noqa: ANN401
        """Return what the base needs of the original model."""
        return self.base.prepare(model, data, context)

    def loss(self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return the base's partial loss; what is put around it needs the whole step."""
        return self.base.loss(model, batch, prepared)
