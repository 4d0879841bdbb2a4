"""What is tried of a method's settings on a model that no suite has tuned it on yet."""

from typing import TYPE_CHECKING

from ilubench.specs import Candidates, Plain, RangeSpec, SearchSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["layer_at", "layers_at", "propose", "spread"]

_WIDTH = 4096
"""Hidden size of the 7B models that published learning rates are for."""


def propose(
    config: "PretrainedConfig",
    rates: tuple[float, float],
    fixed: dict[str, Plain | tuple[Plain, ...]] | None = None,
    **space: Candidates,
) -> SearchSpec:
    """Return a search over the learning rate and further settings.

    A learning rate is divided by the model's width: Adam's step moves the output of a matrix by an
    amount that grows with its number of inputs (Yang et al. 2022, arXiv 2203.03466, for hidden
    matrices). TOFU's published rates agree: 1e-5 at a width of 4096, 2e-5 at 2048.

    Args:
        config: of the model.
        rates: lowest and highest learning rate for a model of 7B weights (width 4096).
        fixed: settings that are not searched.
        space: setting -> what is tried.
    """
    factor = _WIDTH / config.get_text_config().hidden_size
    low, high = (float(f"{factor * rate:.2g}") for rate in rates)
    return SearchSpec(fixed=fixed or {}, space={"train.lr": spread(low, high), **space})


def spread(low: float, high: float) -> RangeSpec:
    """Return a range in which equal ratios are equally likely."""
    return RangeSpec(low=low, high=high, log=True)


def layer_at(config: "PretrainedConfig", depth: float) -> int:
    """Return the layer, from 0, at a share of a model's depth."""
    count: int = config.get_text_config().num_hidden_layers
    return min(count - 1, round(depth * count))


def layers_at(config: "PretrainedConfig", *depths: float) -> tuple[int, ...]:
    """Return the layers, from 0 and each once, at shares of a model's depth."""
    return tuple(dict.fromkeys(layer_at(config, depth) for depth in depths))
