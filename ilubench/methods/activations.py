"""The hidden states behind a model's layers."""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import torch
from pydantic import AfterValidator, Field

from ilubench.errors import ModelError, SpecError
from ilubench.interfaces import Batch
from ilubench.models.forward import body_inputs, model_layers, within

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "Layers",
    "check_layers",
    "counted_tokens",
    "find_layer",
    "hidden_state",
    "hidden_states",
]


def _once_each(layers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(layers)) < len(layers):
        raise ValueError(f"a layer is named twice: {layers}")
    return layers


Layers: TypeAlias = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_once_each)
]
"""A setting: indices of layers, from 0, each once."""


class _Reached(Exception):  # noqa: N818 - no error: it ends a forward early
    """The layer has been computed; those above it are not needed."""


def hidden_state(model: "PreTrainedModel", batch: Batch, layer: int) -> torch.Tensor:
    """Return the output of layer ``layer`` (from 0): [B, T, H]; layers above it are not run.

    Raises:
        SpecError: the model has no such layer.
        ModelError: the model's layers cannot be found.
    """
    return hidden_states(model, batch, (layer,))[0]


def hidden_states(
    model: "PreTrainedModel", batch: Batch, layers: Sequence[int]
) -> list[torch.Tensor]:
    """Return the outputs of several layers (from 0), each [B, T, H], of one forward.

    Layers above the highest of them are not run.

    Raises:
        SpecError: the model has no such layer.
        ModelError: the model's layers cannot be found.
    """
    found: dict[int, torch.Tensor] = {}
    highest = max(layers)

    def reading(layer: int) -> Callable[[object, object, Any], None]:
        def keep(_layer: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
            found[layer] = output[0] if isinstance(output, tuple) else output
            if layer == highest:
                raise _Reached

        return keep

    def read() -> list[torch.Tensor]:
        with contextlib.suppress(_Reached):
            model.base_model(**body_inputs(model, batch), use_cache=False)
        return [found[layer] for layer in layers]

    with contextlib.ExitStack() as hooks:
        for layer in set(layers):
            hooks.callback(find_layer(model, layer).register_forward_hook(reading(layer)).remove)
        return within(model, read)


def counted_tokens(batch: Batch, tokens: Literal["content", "targets"]) -> torch.Tensor:
    """Return which tokens' activations count: bool [B, T].

    Args:
        batch: right-padded.
        tokens: `content`, all but padding and the first token of a sequence, whose activation
            does not depend on the text; or `targets`, those with a loss.
    """
    if tokens == "targets":
        return batch.loss_mask
    chosen = batch.attention_mask.bool()
    chosen[:, 0] = False
    return chosen


def check_layers(config: "PretrainedConfig", layers: Sequence[int], field: str) -> None:
    """Raise unless a model has all of these layers, counted from 0.

    A configuration that does not say how many there are is let pass; `find_layer` looks again.

    Args:
        config: of the model.
        layers: what the setting says.
        field: the setting's name.

    Raises:
        SpecError: names the field, the layer, and how many there are.
    """
    count = getattr(config, "num_hidden_layers", None)
    missing = [layer for layer in layers if isinstance(count, int) and layer >= count]
    if missing:
        raise _no_layer(missing[0], cast("int", count), field)


def _no_layer(layer: int, count: int, field: str) -> SpecError:
    problem = f"the model has {count} layers, no layer {layer}"
    return SpecError(problem, field=field, remedy=f"give one of 0..{count - 1}")


def find_layer(model: "PreTrainedModel", layer: int, field: str = "") -> torch.nn.Module:
    """Return one of the model's layers, counted from 0.

    Args:
        model: any with a list of layers.
        layer: which.
        field: the setting that says so, for messages.

    Raises:
        SpecError: the model has no such layer.
        ModelError: the model's layers cannot be found.
    """
    count = model.config.num_hidden_layers
    layers = model_layers(model)
    if not layers:
        raise ModelError(f"the layers of a {type(model).__name__} cannot be found")
    if layer >= count:
        raise _no_layer(layer, count, field)
    return layers[layer]
