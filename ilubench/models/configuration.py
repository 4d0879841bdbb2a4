"""A checkpoint's config.json: read, or what is wrong with it in one sentence."""

import contextlib
import inspect
import os
import re
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import JsonValue

from ilubench.errors import DataError, ModelError, did_you_mean
from ilubench.models.quiet import quiet
from ilubench.specs import untrusted
from ilubench.specs.untrusted import shorten

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "load_config",
    "other_settings",
    "read_json",
    "recipe_config",
    "refuse_absurd",
    "refuse_pointer",
    "refuse_unaffordable",
    "wrong_setting",
]

_POINTER = b"version https://git-lfs"

_ASIDE = re.compile(
    r"vocab_size|tie_word_embeddings|max_position_embeddings|use_cache|initializer_\w+|pretraining_tp"
    r"|\w+_token_id|\w*(dropout|pdrop)"
)
"""Settings by which the logits of a given text do not differ, or which others check."""

_DIGITS = 40
"""Of a number in a message."""

_ROTATIONS = (
    *("rope_theta", "rope_scaling", "partial_rotary_factor", "torch_dtype"),
    *("rotary_pct", "rotary_emb_base"),
)
"""Settings as older configurations write them, which transformers reads and names otherwise."""

_COMPUTED: set[str] = set()
"""Configurations that were tried out in this process, and compute."""

_MOST = (
    (re.compile(r"\w*layers?"), 500),
    (re.compile(r"\w*(heads?|experts?|groups?|blocks?)|num_labels"), 10_000),
    (re.compile(r"\w*(size|dim|embd|inner|width|rank|positions?|embeddings)"), 100_000_000),
)
"""Settings of a model, and the largest that they are anywhere: times four to ten, about."""

_WITHIN = (
    (re.compile(r"(\w+_)?eps(ilon)?"), 0.0, 1.0),
    (re.compile(r"\w*(dropout|pdrop)"), 0.0, 1.0),
    (re.compile(r"rope_theta|rotary_emb_base|rope_local_base_freq|factor"), 1e-6, 1e12),
)
"""Settings that make a model at any value, which computes nonsense beyond these."""

_QUANTISED = ("quantize_config.json", "quant_config.json")
"""Files by which older GPTQ and AWQ checkpoints say what config.json does not."""


def refuse_pointer(path: Path) -> None:
    """Raise if a file is what Git LFS leaves in the place of one that was not fetched.

    Raises:
        ModelError: it is.
    """
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            remedy = "run `git lfs pull` there, or download it again"
            raise ModelError(f"{path} is a Git LFS pointer, not the file itself; {remedy}")


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Return what a JSON file of a checkpoint holds.

    Raises:
        ModelError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise ModelError(f"{path.parent} has no {path.name}; is it a model's folder?")
    refuse_pointer(path)
    try:
        return untrusted.read_json(path, lax=True)
    except DataError as error:
        raise ModelError(f"{path} is no readable JSON; it is damaged, copy it again") from error


_PATIENCE = 3.0
"""Seconds in which a wrong setting is looked for; large models take long to describe."""


def load_config(folder: Path) -> "PretrainedConfig":
    """Return the configuration of a causal language model, of full weights.

    Raises:
        ModelError: there is none, it is damaged, or it is one of another kind of model.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise ModelError(f"{path} holds {str(raw)[:20]!r} and no settings; copy it again")
    _refuse_quantised(folder, raw)
    _refuse_unknown(path, raw)
    refuse_absurd(raw, str(path))
    named = raw.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise ModelError(f"{path}: architectures is {shorten(str(named))}, and no list of names")
    for field in ("dtype", "torch_dtype"):
        name = raw.get(field) or "auto"
        if name != "auto" and not isinstance(getattr(torch, str(name), None), torch.dtype):
            raise ModelError(f"{path}: {field} is {name!r}, which is no dtype of torch")
    try:
        with quiet():
            found = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        # whatever a model's own class raises of settings that it does not expect
        raise ModelError(f"{path}: {wrong_setting(raw)}") from error
    config = cast("PretrainedConfig", found)
    text = config.get_text_config()
    for field in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if getattr(text, field, 1) == 0:
            name = text.attribute_map.get(field, field)
            raise ModelError(f"{path}: {name} is 0, which makes no model")
    _refuse_other_kinds(path, config)
    try:
        _try_out(config)
    except Exception as error:
        # as above, of settings that it meets only when it computes
        raise ModelError(f"{path}: {wrong_setting(raw)}") from error
    return config


def recipe_config(settings: Mapping[str, JsonValue]) -> "PretrainedConfig":
    """Return the configuration that a recipe spells out.

    Raises:
        ModelError: transformers does not accept it.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    given: dict[str, Any] = dict(settings)
    model_type = str(given.pop("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        remedy = did_you_mean(model_type, CONFIG_MAPPING)
        raise ModelError(f"recipe.config: unknown model_type {model_type!r}; {remedy}")
    refuse_absurd(given, "recipe.config")
    try:
        config = AutoConfig.for_model(model_type, **given)
        known = {*CONFIG_MAPPING[model_type]().to_dict(), *config.attribute_map, *_ROTATIONS}
        _try_out(config)
    except Exception as error:
        # whatever a model's own class raises of settings that it does not expect
        raise ModelError(f"recipe.config: {wrong_setting(settings)}") from error
    for name in given:
        if name not in known and not _is_read(name, config):
            remedy = did_you_mean(name, known)
            raise ModelError(f"recipe.config: unknown setting {name!r}; {remedy}")
    return config


def other_settings(
    mine: "PretrainedConfig", other: "PretrainedConfig"
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, mine, other) of settings by which two models of like weights compute otherwise.

    Tensors of the same shapes may be another model's: of other heads, say, or other rotations.
    """
    one, two = mine.get_text_config(), other.get_text_config()
    if one.model_type != two.model_type:
        yield "model_type", one.model_type, two.model_type
        return
    from transformers import PretrainedConfig

    general = PretrainedConfig().to_dict().keys()
    sides = one.to_dict(), two.to_dict()
    for name in type(two)().to_dict():
        here, there = (side.get(name) for side in sides)
        if here != there and name not in general and not _ASIDE.fullmatch(name):
            yield name, here, there


def _is_read(name: str, config: "PretrainedConfig") -> bool:
    """Whether the model's own code reads a setting that its configuration does not list."""
    code = type(config).__module__.replace(".configuration_", ".modeling_")
    words = rf"config\.{re.escape(name)}\b|config, [\"']{re.escape(name)}[\"']"
    return re.search(words, inspect.getsource(import_module(code))) is not None


def _refuse_unknown(path: Path, raw: Mapping[str, Any]) -> None:
    import transformers

    kind, known = raw.get("model_type"), transformers.CONFIG_MAPPING
    if isinstance(kind, str) and kind in known:
        return
    if raw.get("auto_map"):
        problem = "brings its own code, which is never run; only models of transformers are loaded"
        raise ModelError(f"{path.parent} {problem}")
    if not isinstance(kind, str):
        raise ModelError(f"{path} names no model_type; is it a language model's?")
    problem = f"transformers {transformers.__version__} has no model_type {kind!r}"
    raise ModelError(f"{path}: {problem}; {did_you_mean(kind, known)}")


def _refuse_other_kinds(path: Path, config: "PretrainedConfig") -> None:
    """Raise unless a model reads a text from its start to its end, and predicts the next token."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind, problem = config.model_type, ""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        problem = "is no causal language model"
    elif getattr(config, "is_encoder_decoder", False):
        problem = "has an encoder and a decoder"
    elif kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", True):
        problem = "is an encoder"  # its class would load, and read what it is to predict
    if problem:
        raise ModelError(f"{path}: a model of type {kind!r} {problem}; give one that writes text")


def _figure(value: float) -> str:
    """Return a number for a message; an integer may be too large to be a float."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = f"{value:,}"
    return text if len(text) <= _DIGITS else f"{text[:_DIGITS]}..."


def refuse_absurd(raw: Mapping[str, Any], where: str) -> None:
    """Raise where a model would take longer to describe than to train, or compute nonsense.

    Args:
        raw: its settings.
        where: they stand.

    Raises:
        ModelError: names the setting.
    """
    for name, value in _leaves(raw):
        most = next((most for names, most in _MOST if names.fullmatch(name)), None)
        if most is not None and not isinstance(value, str) and not -most <= value <= most:
            problem = f"{name} is {_figure(value)}, and at most {most:,} makes a model"
            raise ModelError(f"{where}: {problem}")
        for names, low, high in _WITHIN:
            number = isinstance(value, int | float) and names.fullmatch(name)
            if number and not low <= value <= high:
                problem = f"{name} is {_figure(value)}, which computes nonsense"
                raise ModelError(f"{where}: {problem}; it lies between {low:g} and {high:g}")


def refuse_unaffordable(parameters: int, where: str) -> None:
    """Raise where a new model's weights alone, in float32, are more than this machine's memory.

    Args:
        parameters: how many weights there are.
        where: its settings stand.

    Raises:
        ModelError: names both.
    """
    need = 4 * parameters
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        problem = f"it makes a model of {parameters:.2g} weights, which take {need / 1e9:,.0f} GB"
        raise ModelError(f"{where}: {problem}; this machine has {have / 1e9:,.0f} GB")


def wrong_setting(raw: Mapping[str, Any]) -> str:
    """Name the setting without which transformers makes a model of the others.

    Args:
        raw: what config.json says.
    """
    from transformers import AutoConfig

    kind = raw["model_type"]

    def accepted(settings: Mapping[str, Any]) -> bool:
        try:
            with quiet():
                _try_out(AutoConfig.for_model(kind, **settings))
        except Exception:  # noqa: BLE001 - whatever a model's class raises
            return False
        return True

    given = {name: value for name, value in raw.items() if name != "model_type"}
    if accepted(given):
        return f"it makes a {kind!r} model, into which the tensors cannot be loaded"
    end = time.monotonic() + _PATIENCE
    mends = [
        name
        for name in given
        if time.monotonic() < end and accepted({k: v for k, v in given.items() if k != name})
    ]
    alone = [name for name in mends if time.monotonic() < end and not accepted({name: given[name]})]
    if not mends:
        return f"its settings do not make a {kind!r} model"
    name = (alone or mends)[0]
    return f"{name} is {str(given[name])[:40]!r}, which does not make a {kind!r} model"


def _try_out(config: "PretrainedConfig") -> None:
    """Make a model without weights and train it on two tokens; what its class raises passes.

    Raises:
        AttributeError: it reads a setting that is not there, or reads it otherwise.
        TypeError: likewise.
    """
    from transformers import AutoModelForCausalLM

    text = f"{type(config).__name__} {config.to_json_string(use_diff=False)}"
    if text in _COMPUTED:
        return
    with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).train()
        # some classes look at numbers, and there are none
        with contextlib.suppress(RuntimeError, ValueError, LookupError, AssertionError):
            _ = model(input_ids=torch.zeros(1, 2, dtype=torch.long)).logits
    _COMPUTED.add(text)  # each checkpoint of a run has the same


def _refuse_quantised(folder: Path, raw: Mapping[str, Any]) -> None:
    """Raise if the weights are integers or 8-bit floats with scales: such are never trained here.

    Raises:
        ModelError: names method and bits.
    """
    text = raw.get("text_config")
    places = [raw, *([text] if isinstance(text, dict) else [])]
    names = ("quantization_config", "compression_config")
    found = next((one[name] for one in places for name in names if one.get(name) is not None), None)
    for name in _QUANTISED:
        if found is None and (folder / name).is_file():
            found = read_json(folder / name)
    if found is None:
        return
    facts = dict(_leaves(found))
    method = facts.get("quant_method")
    widths = (facts.get(name) for name in ("bits", "w_bit", "num_bits", "nbits"))
    bits = next((width for width in widths if width), None)
    if method is None and any(name.startswith(("load_in_", "bnb_")) for name in facts):
        method = "bitsandbytes"
    if bits is None:
        words = " ".join(str(name if value is True else value) for name, value in facts.items())
        wide = re.search(r"(?:fp|int|nf|load_in_)(\d+)", words.lower())
        bits = int(wide[1]) if wide else None
    shown = ", ".join([str(method or "method not named"), *([f"{bits} bit"] if bits else [])])
    raise ModelError(f"{folder} is quantised ({shown}); give the full weights")


def _leaves(value: object) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a tree, the outermost last."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
        yield from ((str(k), v) for k, v in value.items() if isinstance(v, str | int | float))
