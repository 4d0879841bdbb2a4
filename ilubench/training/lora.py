"""Training low-rank adapters in the place of the weights, through peft; the weights get them."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.errors import SpecError, UsageError, did_you_mean
from ilubench.models.linear import linear_layers, linear_sizes
from ilubench.models.quiet import hushed, quiet
from ilubench.records.keys import library_versions
from ilubench.specs import LoraSpec
from ilubench.training.loop import trainable_only

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "ADAPTERS",
    "Merged",
    "check_lora",
    "check_lora_shards",
    "lora_identity",
    "target_layers",
    "train_part",
]

ADAPTERS = ("*.lora_[AB].*",)
"""Patterns of the adapters' parameters."""

Merged: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Makes a context in which the model is what it will be when its training ends."""


def target_layers(spec: LoraSpec, layers: Iterable[str]) -> list[str]:
    """Return the names of the layers that get an adapter.

    Args:
        spec: its `targets` say which.
        layers: the model's linear layers.

    Raises:
        SpecError: a target is none of them.
    """
    names = list(layers)
    for target in spec.targets:
        if not any(_ends(name, target) for name in names):
            problem = f"the model has no linear layer {target!r}, its head aside"
            ends = dict.fromkeys(name.rpartition(".")[2] for name in names)
            raise SpecError(problem, field="lora.targets", remedy=did_you_mean(target, ends))
    wanted = spec.targets
    return [name for name in names if not wanted or any(_ends(name, one) for one in wanted)]


def _ends(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def lora_identity(spec: LoraSpec | None) -> dict[str, JsonValue]:
    """Return the version of peft, where there are adapters."""
    return dict(library_versions(["peft"] if spec is not None else []))


def check_lora_shards(spec: LoraSpec | None, field: str) -> None:
    """Refuse adapters on a model that is divided among devices.

    Args:
        spec: of the adapters; None: there are none.
        field: where they are asked for.

    Raises:
        SpecError: names the field.
    """
    if spec is not None:
        problem = "adapters do not go with a model that is divided among devices"
        remedy = "leave out devices_per_job: one card holds more with adapters"
        raise SpecError(problem, field=field, remedy=remedy)


def check_lora(spec: LoraSpec | None, config: "PretrainedConfig") -> None:
    """Find what is missing for adapters, before any job.

    Args:
        spec: of the adapters; None: there are none.
        config: of the model.

    Raises:
        SpecError: a target is no layer of the model.
        UsageError: peft is not installed.
    """
    if spec is not None:
        _peft()
        target_layers(spec, linear_sizes(config))


def _peft() -> Any:  # noqa: ANN401
    try:
        with hushed():  # it imports what may quantise
            import peft
    except ImportError as error:
        raise UsageError("LoRA needs peft: pip install 'ilubench[lora]'") from error
    return peft


@contextlib.contextmanager
def train_part(
    model: "PreTrainedModel", patterns: Sequence[str], lora: LoraSpec | None, seed: int
) -> Iterator[Merged]:
    """Train some of the weights, or adapters, as long as the context lasts.

    At its end the adapters are merged into the weights, and gone.

    Args:
        model: keeps its class; adapters stand in its linear layers' places.
        patterns: of the parameters that are trained; none: all.
        lora: of the adapters that are trained instead.
        seed: of the job, from which the adapters are drawn.

    Yields:
        What makes the model whole for a while, to be scored or stored.

    Raises:
        SpecError: a pattern or target matches nothing.
        UsageError: peft is not installed.
    """
    if lora is None:
        with trainable_only(model, patterns):
            yield contextlib.nullcontext
        return
    peft = _peft()
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_layers(lora, linear_layers(model)),
    )
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with quiet(), warnings.catch_warnings(action="ignore"), torch.random.fork_rng([]):
        torch.manual_seed(seed_for(seed, "lora"))
        tuner = peft.LoraModel(model, config, "default")
    for parameter in _adapters(model):
        parameter.data = parameter.data.float()  # whose updates bfloat16 would lose
    try:
        yield lambda: _merged(model)
    except BaseException:
        tuner.unload()
        raise
    else:
        tuner.merge_and_unload()
    finally:
        for parameter, trained in before.items():
            parameter.requires_grad_(trained)


# --- inside ---


def _adapters(model: "PreTrainedModel") -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextlib.contextmanager
def _merged(model: "PreTrainedModel") -> Iterator[None]:
    """Put the merged layers into their adapters' places, and then all back, bit for bit.

    What peft takes off again is not what was there: sums are rounded. So the weights are kept, in
    the machine's memory.
    """
    from peft.tuners.lora import LoraLayer

    wrapped: dict[str, Any] = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    kept: dict[str, torch.Tensor] = {}
    for name, layer in wrapped.items():
        base = layer.get_base_layer()
        kept[name] = base.weight.detach().to("cpu", copy=True)
        layer.merge()
        model.set_submodule(name, base)
    try:
        yield
    finally:
        for name, layer in wrapped.items():
            cast("torch.Tensor", layer.get_base_layer().weight.data).copy_(kept.pop(name))
            layer.merged_adapters.clear()
            model.set_submodule(name, layer)
