"""Pickled weights -> safetensors, in a process of their own.

Run as `python -P -m ilubench.models.pickles TOLD PICKLE SAFETENSORS ...`. torch's `weights_only`
loader runs no code of a pickle; whatever gets past it meets a process without network or other
programs, with bounded memory and time, that only writes tensors.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ilubench.errors import ModelError

__all__ = ["unpickle"]

_NESTS = ("state_dict", "model_state_dict", "model", "module")
"""Where trainers put a model's tensors, beside the state of the training."""

_REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")

_SPARE, _TIMES = 2 << 30, 4  # bytes; so many copies of the file may be in memory at once
_SECONDS, _PACE = 300, 5 << 20  # of the processor, and bytes a second beyond them

_DAMAGED = "is cut short or damaged, or no pickle of torch; copy it again"


def unpickle(sources: Sequence[Path], scratch: Path) -> dict[Path, str]:
    """Write the tensors of pickles as safetensors; return file -> the pickle's key they lay under.

    Raises:
        ModelError: one has code, or something else than tensors, or is damaged.
    """
    told = scratch / "told.json"
    targets = [scratch / f"{number}.safetensors" for number in range(len(sources))]
    pairs = [str(one.absolute()) for pair in zip(sources, targets, strict=True) for one in pair]
    command = [sys.executable, "-P", "-m", __name__, str(told), *pairs]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if not told.is_file():
        problem = f"the process that reads pickles ended with code {done.returncode}"
        remedy = "is a file damaged, or no memory or space on the disk left?"
        raise ModelError(f"{sources[0]}: {problem}; {remedy}")
    found = json.loads(told.read_text(encoding="utf-8"))
    if found["problem"]:
        raise ModelError(f"{sources[len(found['within'])]} {found['problem']}")
    return dict(zip(targets, found["within"], strict=True))


# --------------------------------------------------------------------------- the other process


class _RefusedError(Exception):
    """What is wrong with a pickle."""


def _main(told: Path, paths: Sequence[Path]) -> None:
    from safetensors.torch import save_file

    within: list[str] = []
    problem = ""
    _confine(max(path.stat().st_size for path in paths[::2]), len(paths))
    for source, target in zip(paths[::2], paths[1::2], strict=True):
        try:
            key, found = _tensors_of(_loaded(source))
            tensors = _separate(found)
        except _RefusedError as error:
            problem = str(error)
            break
        except Exception:  # noqa: BLE001 - whatever a damaged file leads to
            problem = _DAMAGED
            break
        save_file(tensors, target, {"format": "pt"})
        within.append(key)
    told.write_text(json.dumps({"within": within, "problem": problem}), encoding="utf-8")


def _confine(size: int, files: int) -> None:
    """Bound this process's memory and time, and keep it from network and other programs."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # what the system has not
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        memory = pages * resource.getpagesize() + _TIMES * size + _SPARE
        seconds = files * (_SECONDS + size // _PACE)
        for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds)):
            hard = resource.getrlimit(kind)[1]
            if hard == resource.RLIM_INFINITY or limit < hard:
                resource.setrlimit(kind, (limit, hard))

    def refuse(event: str, _given: object) -> None:
        if event.startswith(_REFUSED):
            raise _RefusedError("tried to reach a network or another program, which it may not")

    sys.addaudithook(refuse)


def _loaded(source: Path) -> object:
    import pickle
    import zipfile

    whole = zipfile.is_zipfile(source)
    if whole:
        odd = torch.serialization.get_unsafe_globals_in_checkpoint(str(source))
        if odd:
            names = ", ".join(sorted(odd)[:3])
            raise _RefusedError(
                f"has code in it ({names}), which is never run; save its state_dict()"
            )
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=whole)
    except pickle.UnpicklingError:
        if whole:
            raise
        problem = "has more in it than tensors, perhaps code, which is never run, or is damaged"
        raise _RefusedError(f"{problem}; save its state_dict()") from None


def _tensors_of(found: object) -> tuple[str, Mapping[str, Any]]:
    """Return the tensors by name, and the key that they lay under."""
    if not isinstance(found, Mapping):
        raise _RefusedError(f"holds a {type(found).__name__}, and no tensors by name")
    for key in ("", *_NESTS):
        inner = found.get(key) if key else found
        if isinstance(inner, Mapping) and inner and all(map(_is_tensor, inner.values())):
            return key, inner
    for name, value in found.items():
        if not _is_tensor(value):
            raise _RefusedError(
                f"holds {str(name)[:60]!r}, a {type(value).__name__}, and no tensor"
            )
    raise _RefusedError("holds no tensors")


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that share no memory, as safetensors wants them: tied ones are doubled."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise _RefusedError(f"names a tensor by {name!r}, which is no text")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise _RefusedError(f"holds {name!r} sparse, quantised or without its values")
        place = tensor.untyped_storage().data_ptr()
        plain = tensor.detach()
        found[name] = (
            plain.clone(memory_format=torch.contiguous_format)
            if place in seen
            else plain.contiguous()
        )
        seen.add(place)
    return found


if __name__ == "__main__":
    _main(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]])
