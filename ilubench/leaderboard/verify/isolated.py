"""The process in which a submitted method unlearns.

Started by `python -I -m ilubench.leaderboard.verify.isolated`.

It has a folder with the target model, the forget and retain sets and the declared environments as
token ids, and writes the changed tensors back. An audit hook (PEP 578), which code that comes later
cannot remove, refuses connections and the files that hold attack and evaluation data, and notes
what was tried; where the system allows it, :mod:`ilubench.leaderboard.verify.isolation` has taken
both away before this process began, so that code below Python meets nothing either.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

JOB, RESULT, OUT = "job.json", "result.json", "out"

LOOK_UPS = (
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
)
ADDRESSED = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
FILES = ("open", "os.listdir", "os.scandir")
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")


def guard(hidden: Sequence[str], *, processes: bool) -> list[str]:
    """Refuse network and hidden files for the rest of this process's life.

    Args:
        hidden: files and folders that must not be read.
        processes: also refuse to start programs, which the hook would not reach.

    Returns:
        What was tried, in words: it grows as it happens, also when the refusal is caught.
    """
    tried: list[str] = []
    roots = tuple(os.path.realpath(path) for path in hidden)

    def refuse(what: str) -> None:
        tried.append(what)
        raise PermissionError(f"not allowed while unlearning is verified: {what}")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in FILES:
            path = args[0] if args else None
            if isinstance(path, str | bytes) and _below(os.fsdecode(path), roots):
                refuse(f"read {os.fsdecode(path)}")
        elif event in LOOK_UPS:
            refuse(f"look up {args[0]!r} in the network")
        elif event in ADDRESSED:
            if getattr(args[0], "family", None) != getattr(socket, "AF_UNIX", None):
                refuse(f"reach {args[1]!r} in the network")
        elif processes and event in PROCESSES:
            refuse(f"start {args[0]!r}")

    sys.addaudithook(hook)
    return tried


def main(folder: Path) -> int:
    """Carry out the job in a folder; what became of it is written there in any case."""
    # what libraries do when they are imported is no attempt of the method
    import transformers  # noqa: F401

    import ilubench.runs.stages.cost
    import ilubench.training  # noqa: F401

    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    if job["path"]:
        sys.path.append(job["path"])
    tried = guard(job["hidden"], processes=job["refuse_processes"])
    result: dict[str, object] = {}
    try:
        result["cost"] = _unlearn(folder, job)
    except Exception as error:  # noqa: BLE001 - a stranger's method may raise anything
        import traceback

        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    result["tried"] = tried
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
    return 0


def _unlearn(folder: Path, job: Mapping[str, Any]) -> Mapping[str, object]:
    """As the stage `unlearn` does it, from files."""
    import torch

    from ilubench.interfaces import Context, UnlearnData
    from ilubench.interfaces.discovery import create_plugin
    from ilubench.models.checkpoints import load_model, save_changes
    from ilubench.models.tokenizers import load_tokenizer
    from ilubench.records.store import FolderState
    from ilubench.runs.stages.cost import Passes, StepLog
    from ilubench.specs import MemorySpec, PluginRef
    from ilubench.training import seed_everything

    target, words, out = folder / "target", folder / "tokenizer", folder / OUT
    method = create_plugin("methods", PluginRef(use=job["use"], settings=job["settings"]))
    data = UnlearnData(
        forget=_examples(folder / "forget.jsonl"),
        retain=_examples(folder / "retain.jsonl"),
        environments={
            name: _examples(folder / "environments" / f"{place}.jsonl")
            for place, name in enumerate(job["environments"])
        },
    )
    passes = Passes()
    log = StepLog(out / "log.jsonl", passes)
    context = Context(
        seed=job["seed"],
        device=job["device"],
        tokenizer=load_tokenizer(words if words.is_dir() else target),
        state=FolderState(out),
        progress=_Silent(),
        log=log,
        memory=MemorySpec.model_validate(job["memory"]),
    )
    model = load_model(target, job["device"], getattr(torch, job["dtype"]))
    seed_everything(job["seed"])
    with passes.counting(model):
        model = method.unlearn(model, data, context)
    save_changes(model, target, out)
    return log.cost()


def _examples(file: Path) -> list[Any]:
    from ilubench.interfaces import Example

    found = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            name, ids, mask = json.loads(line)
            found.append(Example(name, tuple(ids), tuple(map(bool, mask))))
    return found


class _Silent:
    """Shows nothing."""

    def start(self, phase: str, total: int) -> None:
        """Do nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Do nothing."""


def _below(path: str, roots: Sequence[str]) -> bool:
    found = os.path.realpath(path)
    return any(found == root or found.startswith(root + os.sep) for root in roots)


if __name__ == "__main__":
    run: Callable[[Path], int] = main
    sys.exit(run(Path(sys.argv[1])))
