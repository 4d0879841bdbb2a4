"""A model's folder, looked through before anything is loaded: files, headers, names and shapes."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ilubench.data.hub.models import INDEX, SINGLE, TEXTS, convert_command, indexed
from ilubench.errors import ModelError
from ilubench.models.configuration import load_config, read_json, refuse_pointer, wrong_setting
from ilubench.models.forward import parameter_sizes
from ilubench.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "FLOATS",
    "WRAPPERS",
    "check_folder",
    "check_tensors",
    "fill_model",
    "headers",
    "pickles",
    "weight_files",
    "without_weights",
]

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""What safetensors calls the types that weights may have."""

WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "DistributedDataParallel or DeepSpeed",
    "base_model.model.": "peft",
}
"""What stands before the names of tensors if a wrapped model was saved."""

_COMPUTED = re.compile(
    r"(rotary_emb\.\w+|attn\.causal_mask|attn(ention)?\.(masked_)?bias|attention\.attention\.bias)$"
)
"""Buffers that old checkpoints carry: masks and angles, which a model computes itself."""

_TRAINING = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
"""How the pickles begin that a Trainer leaves beside the weights."""

_SHARDS = ("global_step", "pytorch_model_fsdp")
_JOINED = "zero_to_fp32.py (DeepSpeed), `accelerate merge-weights` (FSDP)"

_SMALL = 10_000_000
"""Weights of a model that is soon made and fits anywhere."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's safetensors files, by name: those that transformers loads.

    Raises:
        ModelError: there is none, or one that the index names is absent.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        for path in (single, index):
            if path.exists():
                raise ModelError(f"{path} is no regular file; copy it again")
        raise ModelError(f"{folder} {without_weights(folder)}")
    refuse_pointer(index)
    files = sorted(folder / name for name in indexed(index))
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise ModelError(f"{folder} lacks {absent[0]!r}, which its index names; copy it there")
    if not isinstance(read_json(index).get("metadata"), dict):
        raise ModelError(f"{index}: it has no metadata with fields; copy it again, or write {{}}")
    return files


def without_weights(folder: Path) -> str:
    """Say what a folder without weights holds."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def first(*endings: str) -> str:
        return next((name for name in names if name.endswith(endings)), "")

    saved = [path.parent for path in folder.glob(f"checkpoint-*/{SINGLE}")]
    saved += [path.parent for path in folder.glob(f"checkpoint-*/{INDEX}")]
    numbered = [path for path in saved if path.name.partition("-")[2].isdecimal()]
    if numbered:
        last = max(numbered, key=lambda path: int(path.name.partition("-")[2]))
        return f"holds a training's checkpoints, not a model; give the last one: {last}"
    if part := first(".safetensors"):
        return f"has {part!r}, but neither {SINGLE} nor {INDEX}, which names its parts"
    if pickle := next(iter(pickles(names)), None):
        problem = f"has no .safetensors file, and pickles such as {pickle!r} are not loaded"
        whole = not {"pytorch_model.bin", "pytorch_model.bin.index.json"}.isdisjoint(names)
        source = folder if whole else folder / pickle
        return f"{problem}; convert the weights: {convert_command(source)}"
    if gguf := first(".gguf"):
        problem = f"has no .safetensors file, but {gguf!r}"
        return f"{problem}; convert the weights: {convert_command(folder / gguf)}"
    shards = next((name for name in names if name.startswith(_SHARDS)), None)
    if shards:
        return f"has shards of a training ({shards!r}), and no model; join them: {_JOINED}"
    return "has no .safetensors file; is it a model's folder?"


def pickles(names: Iterable[str]) -> list[str]:
    """Return the files that may be pickled weights: not a Trainer's other pickles."""
    endings = (".bin", ".pt", ".pth", ".ckpt")
    return sorted(n for n in names if n.endswith(endings) and not n.startswith(_TRAINING))


def check_folder(folder: Path) -> "PretrainedConfig":
    """Return the configuration of a checkpoint that can be loaded; no weights are read.

    Names and shapes are compared by transformers itself, which loads tensors of no data into a
    model of no data: a file's names need not be the model's.

    Raises:
        ModelError: it cannot be loaded, or would be another model than its files describe.
    """
    if (folder / "adapter_config.json").is_file():
        adapter = read_json(folder / "adapter_config.json")
        base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
        problem = "is an adapter (adapter_config.json), not a model"
        remedy = f"merge it into its base{f' {base!r}' if base else ''}"
        raise ModelError(f"{folder} {problem}; {remedy}: {convert_command(folder)}")
    files = weight_files(folder)
    for path in (*files, *(one for one in folder.iterdir() if one.name.endswith(TEXTS))):
        if path.is_file():
            refuse_pointer(path)
    generation = folder / "generation_config.json"
    if generation.is_file() and not isinstance(read_json(generation), dict):
        raise ModelError(f"{generation} holds no settings; copy it again, or remove it")
    config = load_config(folder)
    tensors = dict(headers(files))
    for prefix, wrapper in WRAPPERS.items():
        wrapped = next((name for name in tensors if name.startswith(prefix)), None)
        if wrapped:
            problem = f"its tensors are named as {wrapper} wraps them ({wrapped!r})"
            remedy = f"convert the weights: {convert_command(folder)}"
            raise ModelError(f"{folder}: {problem}; {remedy}")
    check_tensors(folder, config, tensors)
    return config


class Header:
    """A tensor of a file, of which only type and shape were read; as transformers reads it."""

    def __init__(self, kind: str, shape: Iterable[int]) -> None:
        self.kind, self.shape, self.misread = kind, tuple(shape), False

    def __getitem__(self, _all: object) -> "Header":
        return self

    def to(self, *, dtype: torch.dtype, **_device: object) -> torch.Tensor:
        self.misread = dtype.is_floating_point and self.kind not in FLOATS
        return torch.empty(self.shape, dtype=dtype, device="meta")


def headers(files: Iterable[Path]) -> Iterator[tuple[str, Header]]:
    """Yield the tensors of safetensors files, by name.

    Raises:
        ModelError: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118
                    part = handle.get_slice(name)
                    yield name, Header(part.get_dtype(), part.get_shape())
        except (OSError, SafetensorError) as error:
            size = path.stat().st_size
            problem = f"{path} ({size:,} bytes) is cut short or damaged"
            raise ModelError(f"{problem}; copy it again") from error


def fill_model(
    config: "PretrainedConfig", tensors: Mapping[str, Any], dtype: torch.dtype
) -> tuple["PreTrainedModel", dict[str, Any]]:
    """Return a model of these tensors, and what transformers says of those that do not fit."""
    import transformers

    text = config.get_text_config()
    with quiet(), torch.random.fork_rng([]):
        made: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        loaded: tuple[PreTrainedModel, dict[str, Any]] = made.from_pretrained(
            None,
            config=text if made.config_class is type(text) else config,
            state_dict=tensors,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
        )
    return loaded


def check_tensors(folder: Path, config: "PretrainedConfig", tensors: Mapping[str, Header]) -> None:
    """Raise unless tensors are those of a configuration's model, none more and none less.

    Raises:
        ModelError: names the first that is not.
    """
    try:
        _refuse_larger(folder, config, sum(math.prod(one.shape) for one in tensors.values()))
        model, info = fill_model(config, tensors, torch.float32)
    except ModelError:
        raise
    except Exception as error:
        # whatever a model's own class raises of settings or tensors that do not go together
        problem = wrong_setting(read_json(folder / "config.json"))
        raise ModelError(f"{folder / 'config.json'}: {problem}") from error
    for name, header in tensors.items():
        if header.misread:
            problem = f"tensor {name!r} is of type {header.kind}, and floats are needed"
            raise ModelError(f"{folder}: {problem}; it is quantised or damaged: give full weights")
    order = list(model.state_dict())
    for name, found, wanted in sorted(info["mismatched_keys"], key=lambda one: order.index(one[0])):
        here = f"tensor {name!r} is {list(found)} in the file"
        by = _setting(config, name, found, wanted)
        raise ModelError(f"{folder}: {here}, {list(wanted)} by config.json{by}")
    missing, unused = sorted(info["missing_keys"]), _unused(info["unexpected_keys"])
    named = (config.architectures or [""])[0]
    kind = f"; it is a {named}" if named and named != type(model).__name__ else ""
    if missing:
        more = f" and has {unused[0]!r}, which the model has not" if unused else ""
        raise ModelError(f"{folder} lacks {_tensors(missing)}{more}{kind}")
    if unused:
        raise ModelError(
            f"{folder}: the model of config.json has no place for {_tensors(unused)}"
            f"{_deeper(config, unused)}{kind}; it would compute something else than was trained"
        )


def _refuse_larger(folder: Path, config: "PretrainedConfig", held: int) -> None:
    """Raise for a model of far more weights than the files hold: what is absent is made in full."""
    need = sum(parameter_sizes(config).values())
    if need > max(2 * held, _SMALL):
        problem = f"it makes a model of {need:.2g} weights, and the files beside it hold {held:.2g}"
        raise ModelError(f"{folder / 'config.json'}: {problem}; it is another model's")


def _tensors(names: Sequence[str]) -> str:
    return f"{len(names)} tensors, first {names[0]!r}" if len(names) > 1 else f"tensor {names[0]!r}"


def _unused(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not _COMPUTED.search(name))


def _setting(
    config: "PretrainedConfig", name: str, found: Iterable[int], wanted: Iterable[int]
) -> str:
    """Name the setting that a shape comes from, where one has that very number."""
    odd = next((there for here, there in zip(found, wanted, strict=False) if here != there), None)
    text = config.get_text_config()
    by_token = any(part in name for part in ("embed", "wte", "lm_head"))
    fields = ["vocab_size"] if by_token else []
    fields += [field for field, value in text.to_dict().items() if type(value) is int]
    field = (
        next((one for one in fields if getattr(text, one) == odd), None)
        if odd is not None
        else None
    )
    return f" ({field} is {odd})" if field else ""


def _deeper(config: "PretrainedConfig", names: Iterable[str]) -> str:
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    numbers = [int(found[1]) for name in names if (found := _LAYER.search(name))]
    if not numbers or not isinstance(layers, int) or max(numbers) < layers:
        return ""
    return f" (num_hidden_layers is {layers}, the file has {max(numbers) + 1})"
