"""LoRA adapters merged into their base."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ilubench.data.hub.models import needed_files
from ilubench.data.hub.repository import Repository, fetch, listing
from ilubench.errors import ModelError
from ilubench.models.checkpoints import load_model
from ilubench.models.configuration import read_json, refuse_pointer
from ilubench.models.folder import FLOATS, headers
from ilubench.models.quiet import hushed, quiet
from ilubench.specs import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ADAPTER", "find_base", "merge_adapter"]

ADAPTER = "adapter_config.json"

_NAME = "default"
_PROBES, _CLOSE = 16, 1e-3  # tokens; of the largest logit


def find_base(adapter: Path, given: ModelSource | None) -> Path:
    """Return the folder of the model that an adapter belongs to.

    Args:
        adapter: its folder.
        given: in the place of the one that its configuration names.

    Raises:
        AccessError: the base is of a hub, and cannot be had.
        ModelError: no base is named, or there is no such folder.
    """
    settings = _settings(adapter)
    name = settings.get("base_model_name_or_path")
    if given is None and isinstance(name, str) and name:
        if Path(name).is_dir():
            given = ModelSource(path=name)
        elif name.count("/") == 1 and not name.startswith((".", "/")):
            given = ModelSource(hub=name, revision=settings.get("revision") or None)
        else:
            problem = f"its base is {name!r}, and there is no such folder"
            raise ModelError(f"{adapter / ADAPTER}: {problem}; give it: --base FOLDER")
    if given is None:
        raise ModelError(f"{adapter / ADAPTER} names no base; give it: --base FOLDER")
    if given.hub is None:
        folder = Path(str(given.path))
        if not folder.is_dir():
            raise ModelError(f"no model folder {str(folder)!r}; check the path (--base)")
        return folder
    wanted = Repository("model", given.hub, given.revision or "main", "base", "--base FOLDER")
    held = listing(wanted)
    return fetch(wanted, held, needed_files(wanted, held))


def merge_adapter(adapter: Path, weights: Path, base: Path) -> "PreTrainedModel":
    """Return the base with the adapter in its weights, in float32.

    Args:
        adapter: folder of its configuration.
        weights: its tensors, safetensors.
        base: folder of the model.

    Raises:
        ModelError: it is no LoRA, does not fit the base, changes nothing of it, or what comes out
            computes something else than the base with the adapter beside it.
    """
    settings = _settings(adapter)
    kind = settings.get("peft_type")
    if settings.get("megatron_config"):  # peft would import a module that the file names
        raise ModelError(f"{adapter / ADAPTER}: adapters of Megatron's layers are not merged")
    if kind != "LORA":
        problem = f"peft_type is {kind!r}, and only adapters of type 'LORA' can be merged"
        raise ModelError(f"{adapter / ADAPTER}: {problem}; merge it with what trained it")
    try:
        with hushed():
            import peft
    except ImportError as error:
        remedy = "`pip install peft` (the extra ilubench[lora])"
        raise ModelError(f"{adapter}: merging an adapter needs peft; {remedy}") from error
    from safetensors.torch import load_file

    refuse_pointer(weights)
    for name, header in headers([weights]):
        if header.kind not in FLOATS:
            problem = f"tensor {name!r} is of type {header.kind}, and floats are needed"
            raise ModelError(
                f"{adapter}: {problem}; it is quantised or damaged: give the adapter's own"
            )
    model = load_model(base, "cpu")
    try:
        with quiet(), warnings.catch_warnings(action="ignore"), torch.random.fork_rng([]):
            config = peft.PeftConfig.from_pretrained(str(adapter))
            config.inference_mode = True
            wrapped: Any = peft.PeftModel(cast("Any", model), config, _NAME).eval()
            result: Any = peft.set_peft_model_state_dict(wrapped, load_file(weights))
    except Exception as error:
        # whatever settings and tensors that do not go together lead to
        problem = "its settings, its tensors and the base do not go together"
        raise ModelError(
            f"{adapter}: {problem} ({base}); give its own base: --base FOLDER"
        ) from error
    missing = [name for name in result.missing_keys if f".{_NAME}" in name]
    if missing or result.unexpected_keys:
        what, names = (
            ("lacks", missing) if missing else ("has no place for", result.unexpected_keys)
        )
        raise ModelError(f"{adapter}: it {what} {len(names)} tensors, first {names[0]!r}")
    return _merged(wrapped, adapter)


def _merged(wrapped: Any, adapter: Path) -> "PreTrainedModel":  # noqa: ANN401
    """Merge, and see that the model which will be loaded computes what the two did."""
    rows = wrapped.get_input_embeddings().weight.shape[0]
    probe = torch.linspace(0, rows - 1, min(_PROBES, rows)).long()[None]
    problem = "changes nothing of its base; was it saved before it was trained?"
    try:
        with quiet(), warnings.catch_warnings(action="ignore"), torch.no_grad():
            with wrapped.disable_adapter():
                alone = wrapped(input_ids=probe).logits
            before = wrapped(input_ids=probe).logits
            # tokens that are trained alone need not be among those that were read
            some = wrapped.peft_config[_NAME].trainable_token_indices is not None
            if not some and torch.equal(alone, before):
                raise ModelError(f"{adapter} {problem}")
            model = wrapped.merge_and_unload(safe_merge=False)
            model.tie_weights()
            after = model(input_ids=probe).logits
    except (NotImplementedError, RuntimeError, ValueError) as error:
        problem = "peft cannot merge it as its settings say"
        raise ModelError(f"{adapter}: {problem}; merge it with what trained it") from error
    if not (after - before).abs().max() <= _CLOSE * before.abs().max():
        problem = "merged it computes something else than beside its base"
        tied = " (it changes one of two tensors that are tied in the base)"
        shown = tied if model.config.get_text_config().tie_word_embeddings else ""
        raise ModelError(f"{adapter}: {problem}{shown}; merge it with what trained it")
    return cast("PreTrainedModel", model)


def _settings(adapter: Path) -> dict[str, Any]:
    found = read_json(adapter / ADAPTER)
    if not isinstance(found, dict):
        raise ModelError(f"{adapter / ADAPTER} holds no settings; copy it again")
    return found
