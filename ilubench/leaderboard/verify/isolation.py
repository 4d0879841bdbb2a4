"""A method unlearns in a process of its own, without network, attack and evaluation data.

The process gets a folder: the target model, the forget and retain sets and the environments that
the method declares, as token ids. Its environment has no token and no cache, its home is empty. On
Linux it runs in namespaces of its own (`unshare`): no network device is up, other processes are not
to be seen, and the suite's files, the mini world's code and the caches are covered by empty
folders. Where namespaces are not allowed, an audit hook of Python refuses the same, which stops
Python code only; the record says which it was. Neither is a sandbox against malice: the package
has been reviewed before, and runs as the user who verifies.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue

import ilubench
from ilubench.data.seeds import seed_for
from ilubench.errors import JobError, StoreError
from ilubench.specs import DataSource
from ilubench.specs.suite_files import suite_files
from ilubench.specs.yaml_files import tasks_folder

if TYPE_CHECKING:
    from ilubench.experiments.experiment import Experiment
    from ilubench.interfaces import Example, Progress
    from ilubench.runs.stages.workbench import Workbench

__all__ = ["NAMESPACES", "PYTHON", "Cell", "hidden_places", "namespaces", "unlearn_apart"]

NAMESPACES = "in namespaces without network (unshare)"
PYTHON = "with network and files refused by Python's audit hook; namespaces were not allowed"

META = "isolated"
"""Field of an artifact's meta that says how it was made."""

UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
OWN_PROCESSES = ("--pid", "--fork", "--kill-child", "--mount-proc")

COVER = """
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mount -t tmpfs -o ro,size=4k none "$1" || exit 125
  else mount --bind /dev/null "$1" || exit 125; fi
  shift
done
shift
exec "$@"
"""
"""Covers the places before `--`, then becomes the command behind it."""

SHOWN = 5
"""Refused attempts that a message names."""

KEPT = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
KEPT_BEGINNINGS = ("LC_", "OMP_", "MKL_", "GOMP_", "CUDA_", "NVIDIA_", "CUBLAS_")
"""Variables that the process keeps: how to compute, nothing about where the user's things are."""


@dataclass(frozen=True)
class Cell:
    """Where a method unlearns.

    Attributes:
        command: that starts a process without network; empty where the system does not allow it.
        hidden: files and folders with attack and evaluation data.
        package: folder that the method's package was installed into; None for ilubench's own.
    """

    command: tuple[str, ...]
    hidden: tuple[Path, ...]
    package: Path | None = None

    @property
    def how(self) -> str:
        """For the record."""
        return NAMESPACES if self.command else PYTHON


def namespaces() -> tuple[str, ...]:
    """Return the command that starts a process in namespaces of its own; empty where none works."""
    program = shutil.which("unshare")
    if sys.platform != "linux" or program is None:
        return ()
    for words in ((*UNSHARE, *OWN_PROCESSES), UNSHARE):
        command = (program, *words[1:])
        probe = (*command, "--", "sh", "-c", COVER, "sh", "/var/tmp", "--", "true")
        done = subprocess.run(probe, capture_output=True, check=False, timeout=60)
        if done.returncode == 0:
            return command
    return ()


def hidden_places(experiment: "Experiment") -> tuple[Path, ...]:
    """Return what a method must not read: suites, local data, the mini world, caches, the store."""
    own = Path(ilubench.__file__).parent
    home = Path.home()
    answers = [tasks_folder(), own / "data" / "mini", own / "data" / "generators"]
    for place in answers:
        if not place.is_dir():  # else a method would be verified with the answers in sight
            raise StoreError(f"{place}: not there, so it cannot be hidden; install ilubench anew")
    places = [*answers]
    places += [own.parent / "leaderboards", Path(experiment.run.out) / "store"]
    places += [home / ".cache", home / ".huggingface"]
    places += [
        Path(os.environ[name]) for name in ("HF_HOME", "XDG_CACHE_HOME") if name in os.environ
    ]
    places += suite_files(experiment.run.suite)
    places += [Path(source.path) for source in _sources(experiment) if source.path]
    found = list(dict.fromkeys(path.resolve() for path in places if path.exists()))
    # covering a folder covers what lies in it: Python, ilubench and the process's own room must not
    needed = (Path(sys.prefix), Path(sys.base_prefix), own, Path(experiment.run.out))
    kept = [path.resolve() for path in needed]
    found = [path for path in found if not any(one.is_relative_to(path) for one in kept)]
    # what lies in a covered folder is gone with it, and cannot be covered again
    return tuple(path for path in found if not any(one in path.parents for one in found))


def unlearn_apart(
    bench: "Workbench", experiment: "Experiment", seed: int, cell: Cell, progress: "Progress"
) -> None:
    """Put the weights that a method makes on its own into the store, as the stage `unlearn` does.

    Raises:
        JobError: the method failed, or tried what it may not, whether or not it went on.
        StoreError: the store has weights of this method and seed that were not made apart.
    """
    from ilubench.runs.stages.keys import unlearn_key

    key = unlearn_key(bench, experiment.method, seed)
    label = f"method {experiment.method_name}, seed {seed}"
    done = bench.store.get("unlearn", key)
    if done is not None:
        if META in done.meta():
            return
        problem = f"{done.folder} was unlearned outside of the verification"
        raise StoreError(f"{problem}; give a folder of its own: --out FOLDER")
    with bench.store.work("unlearn", key) as folder:
        room = Path(experiment.run.out).resolve() / "isolated" / key
        shutil.rmtree(room, ignore_errors=True)
        progress.start(f"{label}, {cell.how.split(' (')[0]}", 1)
        try:
            _furnish(room, bench, experiment, seed, cell)
            result = _carried_out(room, cell, label)
            for name in ("changes.safetensors", "log.jsonl"):
                if (room / "out" / name).is_file():
                    shutil.copyfile(room / "out" / name, folder / name)
        finally:
            shutil.rmtree(room, ignore_errors=True)
        progress.advance(1)
        meta: dict[str, JsonValue] = {
            "stage": "unlearn",
            "target": bench.target,
            "method": experiment.method_name,
            "seed": seed,
            META: cell.how,
            "cost": result["cost"],
        }
        bench.store.finish("unlearn", key, meta)


# --- inside ---


def _sources(experiment: "Experiment") -> Iterable[DataSource]:
    suite = experiment.suite
    for generator in suite.all_generators().values():
        yield from generator.inputs.values()
    yield from suite.data.values()
    for attack in suite.attacks.values():
        yield from attack.data.values()


def _furnish(
    room: Path, bench: "Workbench", experiment: "Experiment", seed: int, cell: Cell
) -> None:
    """Write all that the process is given."""
    from ilubench.experiments.experiment import environment_role
    from ilubench.models.folder import weight_files

    method, suite = experiment.method, experiment.suite
    for name in ("home", "tmp", "work", "out", "target", "environments"):
        (room / name).mkdir(parents=True)
    source = bench.target_folder
    weights = weight_files(source)
    endings = (".json", ".jsonl", ".txt", ".model", ".jinja")
    texts = [path for path in source.iterdir() if path.is_file() and path.name.endswith(endings)]
    for path in (*texts, *weights):
        shutil.copyfile(path, room / "target" / path.name)
    if bench.given_tokenizer is not None:
        bench.tokenizer.save_pretrained(room / "tokenizer")
    names = method.environment_names()
    _write_examples(room / "forget.jsonl", bench.examples(suite.forget))
    _write_examples(room / "retain.jsonl", bench.examples(suite.retain))
    for place, name in enumerate(names):
        rows = bench.examples((environment_role(suite, name),))
        _write_examples(room / "environments" / f"{place}.jsonl", rows)
    job: dict[str, JsonValue] = {
        "use": experiment.method_name,
        "settings": method.model_dump(mode="json"),
        "environments": list(names),
        "seed": seed_for(seed, "unlearn"),
        "device": bench.device,
        "dtype": suite.dtype,
        "memory": experiment.run.memory.model_dump(mode="json"),
        "path": str(cell.package) if cell.package else "",
        "hidden": [str(path) for path in cell.hidden],
        "refuse_processes": not cell.command,
    }
    (room / "job.json").write_text(json.dumps(job), encoding="utf-8")


def _write_examples(file: Path, examples: "Sequence[Example]") -> None:
    with file.open("w", encoding="utf-8") as lines:
        for one in examples:
            line = [one.id, list(one.input_ids), list(map(int, one.loss_mask))]
            lines.write(json.dumps(line) + "\n")


def _carried_out(room: Path, cell: Cell, label: str) -> dict[str, JsonValue]:
    """Start the process, wait for it, and read what it left."""
    command = [sys.executable, "-I", "-m", "ilubench.leaderboard.verify.isolated", str(room)]
    if cell.command:
        covered = [str(path) for path in cell.hidden]
        command = [*cell.command, "--", "sh", "-c", COVER, "sh", *covered, "--", *command]
    log = room / "stderr.txt"
    with log.open("wb") as errors:
        done = subprocess.run(
            command,
            cwd=room / "work",
            env=_environment(os.environ, room),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            check=False,
        )
    try:
        result = cast("dict[str, JsonValue]", json.loads((room / "result.json").read_text()))
    except (OSError, ValueError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no message"
        problem = f"the isolated process ended with code {done.returncode}: {last}"
        raise JobError(f"{label}: {problem}") from None
    tried = cast("list[str]", result.get("tried") or [])
    if tried:
        found = list(dict.fromkeys(tried))
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise JobError(
            f"{label} tried to {', to '.join(found[:SHOWN])}{more}, which a verified method must "
            "do without: it gets the forget set, the retain set, its declared environments and the "
            "target model"
        )
    if "error" in result:
        raise JobError(f"{label} failed: {result['error']}")
    return result


def _environment(given: Mapping[str, str], room: Path) -> dict[str, str]:
    """Return the process's variables: no token, no cache, no network."""
    kept = {
        name: value
        for name, value in given.items()
        if name in KEPT or name.startswith(KEPT_BEGINNINGS)
    }
    home = room / "home"
    return {
        **kept,
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(room / "tmp"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
