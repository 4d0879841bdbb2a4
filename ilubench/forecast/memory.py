"""Peak memory of a job: parameters x bytes, and activations; and the words that make it smaller.

Not counted: copies of the weights that a method keeps besides (the original's, an attack's within a
step). `ilubench plan --probe` on a GPU measures what is really held.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ilubench.forecast.amounts import Amount
from ilubench.forecast.devices import CARDS
from ilubench.specs import LoraSpec, MemorySpec
from ilubench.specs.memory import memory_per_parameter

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "Fit",
    "Peak",
    "Shape",
    "fit_cards",
    "leaner_settings",
    "peak_memory",
    "shape_of",
    "uses_checkpointing",
]

_READ = {"cpu": 256, "cuda": 2048}
"""Tokens of prompts that the transformers engine reads at once."""

_CONTEXT = 0.6e9
"""Bytes of a GPU that the driver and kernels take: about."""

_OF_LAYER = re.compile(r"\.(\d+)\.")

DType = Literal["float32", "bfloat16"]

_WIDTH: Mapping[DType, float] = {"float32": 4.0, "bfloat16": 2.0}


@dataclass(frozen=True)
class Shape:
    """What determines the cost of a model.

    Attributes:
        sizes: parameter -> its numbers; a head that is tied to the embeddings is not there twice.
        layers: how many.
        hidden: width of the hidden states.
        inner: width of the MLP.
        keys: width of a token's keys (its values have the same).
        vocabulary: how many tokens there are.
        dtype: of the weights.
        scored: of the weights while they are scored.
        linear: linear layer -> its outputs and inputs, the head aside.
    """

    sizes: Mapping[str, int]
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int
    dtype: DType
    scored: DType
    linear: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(self.sizes.values())

    @property
    def width(self) -> float:
        """Bytes of a weight."""
        return _WIDTH[self.dtype]

    @property
    def scored_width(self) -> float:
        """Bytes of a weight while it is scored."""
        return _WIDTH[self.scored]

    @property
    def gathered(self) -> tuple[int, int]:
        """The parameters of the largest layer, and of what is not of a layer."""
        of_layer: dict[str, int] = {}
        for name, size in self.sizes.items():
            found = _OF_LAYER.search(name)
            key = found.group(1) if found else ""
            of_layer[key] = of_layer.get(key, 0) + size
        rest = of_layer.pop("", 0)
        return max(of_layer.values(), default=0), rest

    def trained(self, patterns: Sequence[str]) -> int:
        """Return the parameters whose names match one of the patterns; all, where none is given."""
        if not patterns:
            return self.parameters
        chosen = (n for n in self.sizes if any(fnmatch.fnmatch(n, p) for p in patterns))
        return sum(self.sizes[name] for name in chosen)

    def adapted(self, lora: LoraSpec) -> tuple[int, int]:
        """Return the parameters of adapters, and those of the layers that get them."""
        from ilubench.training import target_layers

        layers = [self.linear[name] for name in target_layers(lora, self.linear)]
        beside = sum(lora.rank * (outputs + inputs) for outputs, inputs in layers)
        return beside, sum(outputs * inputs for outputs, inputs in layers)

    def changed(self, amount: Amount) -> int:
        """Return the parameters that a job changes by training."""
        if not amount.steps:
            return 0
        return (
            self.trained(amount.trainable) if amount.lora is None else self.adapted(amount.lora)[1]
        )

    def saved(self, amount: Amount, memory: MemorySpec) -> float:
        """Return the bytes of a training's saved state."""
        if not amount.steps:
            return 0.0
        if amount.lora is not None:
            per = memory_per_parameter(memory, "float32")
            return self.adapted(amount.lora)[0] * (per.weights + per.moments)
        per = memory_per_parameter(memory, self.dtype)
        return self.trained(amount.trainable) * (per.weights + per.master + per.moments)


def shape_of(config: "PretrainedConfig", dtype: DType, scored: DType | None = None) -> Shape:
    """Return the shape of the model that a configuration describes; no weights are made."""
    from ilubench.models.forward import parameter_sizes
    from ilubench.models.linear import linear_sizes

    text: Any = config.get_text_config()
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    return Shape(
        parameter_sizes(config),
        int(text.num_hidden_layers),
        int(text.hidden_size),
        int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        int(getattr(text, "num_key_value_heads", None) or heads) * size,
        int(text.vocab_size),
        dtype,
        scored or dtype,
        linear_sizes(config),
    )


def uses_checkpointing(shape: Shape, memory: MemorySpec) -> bool:
    """Whether layers are computed again on the way back."""
    from ilubench.training.checkpointing import LARGE

    asked = memory.checkpointing
    return shape.parameters > LARGE if asked is None else asked


@dataclass(frozen=True)
class Peak:
    """Bytes on the device at a job's peak.

    Attributes:
        weights: the model.
        gradients: one buffer.
        optimizer: master copies and moments.
        activations: kept for the way back.
        logits: at the head, and what the loss makes of them.
        scoring: keys, values, states and logits of the engine, and what a wider type adds to the
            weights meanwhile.
        context: of the driver.
        host: master copies and moments in the machine's memory.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    scoring: float
    context: float
    host: float

    @property
    def total(self) -> float:
        """The larger of training and of scoring, when no gradients are kept."""
        kept = self.weights + self.optimizer + self.context
        return kept + max(self.gradients + self.activations + self.logits, self.scoring)


def peak_memory(
    amount: Amount,
    memory: MemorySpec,
    shape: Shape,
    device: str,
    batch: int = 1,
    devices: int = 1,
) -> Peak:
    """Return what a job takes at its peak, on each of its devices.

    Divided among several, a layer and what is not of a layer are gathered when they run, and the
    next layer beside; the first device has the whole model while the transformers engine scores.

    Args:
        amount: of the job.
        memory: how it trains.
        shape: of the model.
        device: `cpu` or `cuda`.
        batch: sequences that are scored at once.
        devices: of the job.
    """
    from ilubench.models.forward import LOGITS

    full = shape.trained(amount.trainable) if amount.steps and amount.lora is None else 0
    trained, beside = full / shape.parameters, 0
    per = memory_per_parameter(memory, shape.dtype, trained)
    more = memory_per_parameter(memory, "float32")  # for each of the adapters' parameters
    if amount.lora is not None:
        beside, _ = shape.adapted(amount.lora)
    half = amount.precision == "bfloat16" and shape.dtype == "float32"
    width = 2.0 if half else shape.width
    states = width * shape.hidden
    kept = shape.layers * _layer(shape, width)
    if uses_checkpointing(shape, memory):
        kept = shape.layers * states + _layer(shape, width)
    head = min(amount.held, LOGITS // shape.vocabulary) * shape.vocabulary
    read = shape.scored_width
    written = 2.0 * shape.keys * shape.layers * read * _READ[device] * batch
    engine = _READ[device] * (_layer(shape, read) + 2 * read * shape.hidden)
    engine += min(LOGITS, batch * shape.vocabulary) * 8.0
    engine += shape.parameters * (read - (shape.width if devices == 1 else 0.0))
    mine = shape.parameters / devices
    layer, rest = shape.gathered if devices > 1 else (0, 0)
    return Peak(
        mine * per.weights + (2 * layer + rest) * shape.width + beside * more.weights,
        # a layer's whole gradient, and its sum over the devices in float32
        mine * per.gradients
        + (layer + rest) * (shape.width + 4.0 if amount.steps else 0.0)
        + beside * more.gradients,
        mine * (per.device - per.weights - per.gradients)
        + beside * (more.device - more.weights - more.gradients),
        # half-precision products of float32 weights keep a copy of these
        amount.held * kept + (2.0 * trained * shape.parameters if half else 0.0),
        head * (width + 3 * 4.0),
        (written + engine) if amount.read else 0.0,
        _CONTEXT if device == "cuda" else 0.0,
        shape.parameters * per.host + beside * more.host,  # of all devices
    )


def _layer(shape: Shape, width: float) -> float:
    """Bytes of a layer, a position: norms, projections, rotated, attention's output, the MLP's."""
    layer = width * (8 * shape.hidden + 3 * shape.keys + 4 * shape.inner)
    # narrower types have the norms' inputs in float32 besides
    return layer + (4.0 * 2 * shape.hidden if width < _WIDTH["float32"] else 0.0)


def leaner_settings(memory: MemorySpec, dtype: str) -> Iterator[tuple[str, MemorySpec]]:
    """Yield words that take less memory, the mildest first, and what they make of the settings."""
    steps: list[tuple[str, dict[str, object]]] = [("memory.checkpointing=true", {})]
    if dtype != "float32":
        steps += [
            ("memory.moments=bfloat16", {"moments": "bfloat16"}),
            (
                "memory.update=stochastic memory.moments=bfloat16",
                {"update": "stochastic", "moments": "bfloat16"},
            ),
            (
                "memory.update=stochastic memory.moments=float8",
                {"update": "stochastic", "moments": "float8"},
            ),
        ]
    steps.append(("memory.offload=true", {"offload": True}))
    for words, changes in steps:
        made = memory.model_copy(update={"checkpointing": True, **changes})
        if made != memory:
            yield words, made


@dataclass(frozen=True)
class Fit:
    """Whether a run fits a card.

    Attributes:
        card: its size.
        memory: bytes of it.
        words: the mildest words with which it fits; empty where it fits as it is; None where none
            makes it fit.
        then: bytes at the peak with these.
    """

    card: str
    memory: float
    words: str | None
    then: float


def fit_cards(
    amounts: Sequence[Amount], memory: MemorySpec, shape: Shape, batch: int
) -> tuple[Fit, ...]:
    """Return for each size of card in the table whether jobs fit, and with which words."""

    def needs(settings: MemorySpec) -> float:
        return max(peak_memory(one, settings, shape, "cuda", batch).total for one in amounts)

    ways = [("", memory), *leaner_settings(memory, shape.dtype)]
    told = [(words, needs(settings)) for words, settings in ways]
    found = []
    for size in sorted({card.memory for card in CARDS}):
        words, then = next(((w, n) for w, n in told if n <= size), (None, told[-1][1]))
        found.append(Fit(f"{size / 1e9:.0f} GB", size, words, then))
    return tuple(found)
