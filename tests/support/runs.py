"""Runs of the tiny suite for end-to-end tests: one target model and one finished run, made once."""

import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from places import FIXTURES

from ilubench.cli import app
from ilubench.cli.guard import guarded
from ilubench.experiments.experiment import resolve_experiment
from ilubench.runs.plan import Plan, make_plan
from ilubench.specs.overrides import parse_words

TINY = FIXTURES / "tiny.yaml"
SUITE = f"suite={TINY}"


@dataclass(frozen=True)
class Outcome:
    """What a command left on its streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


WEAK = "allow_weak_target=true"
"""The tiny target knows next to nothing, and six items show less."""


def allowing(words: Sequence[str]) -> list[str]:
    """Return the words of a command, with the target of a test's own suite allowed to be weak."""
    own = any(word.startswith("suite=") and word.endswith(".yaml") for word in words)
    told = any(word.startswith("allow_weak_target=") for word in words)
    if told or not own or words[0] not in ("run", "plan", "attack"):
        return [*words]
    return [*words, WEAK]


def command(*words: str) -> Outcome:
    """Run the command line in this process."""
    words = tuple(allowing(words))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = guarded(lambda: app(list(words), standalone_mode=False))
    logging.captureWarnings(False)
    return Outcome(code, out.getvalue(), err.getvalue())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"}


def process(*words: str, cwd: Path | None = None) -> Outcome:
    """Run the command line in a process of its own, its streams in pipes."""
    done = subprocess.run(
        [sys.executable, "-m", "ilubench", *allowing(words)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=cwd,
        check=False,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let what is started meanwhile take signals, which jobs of a shell or of nohup ignore."""
    asked: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in asked.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def planned(*words: str) -> Plan:
    return make_plan(resolve_experiment(parse_words([SUITE, WEAK, *words])))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ilubench-tests-")  # removed at exit


@cache
def made() -> Path:
    """Return the `out` folder of a finished run of ilu, its store with the target in it."""
    out = Path(_folder().name) / "made"
    done = command("run", SUITE, "method=ilu", f"out={out}", "--json")
    assert done.code == 0, done.err
    return out


def target_folder(out: Path) -> Path:
    (folder,) = (f for f in (out / "store" / "target").iterdir() if f.is_dir())
    return folder


def with_target(made_out: Path, out: Path) -> Path:
    """Return a fresh `out` folder whose store has nothing but the target model."""
    shutil.copytree(made_out / "store" / "target", out / "store" / "target")
    return out


def rows(out: Path) -> Any:
    """Return what a run's results say that must not depend on when and how it ran."""
    (path,) = out.glob("*/results.json")
    record = json.loads(path.read_text())
    jobs = [(job["stage"], job["key"], job["label"]) for job in record["jobs"]]
    kept = ("run", "suite", "method", "method_version", "seeds", "attacks", "seen", "rows")
    return {name: record[name] for name in kept}, jobs, record["failures"]


def samples(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return every per-sample value in the store, by artifact and checkpoint."""
    found = {}
    for path in sorted((out / "store").glob("*/*/scores/*.parquet")):
        name = str(path.relative_to(out / "store"))
        found[name] = pq.read_table(path).to_pylist()
    assert found
    return found


def weights(out: Path) -> dict[str, bytes]:
    """Return the bytes of every stored tensor file but the target's."""
    files = sorted((out / "store").glob("*/*/*.safetensors"))
    return {
        str(path.relative_to(out / "store")): path.read_bytes()
        for path in files
        if path.parts[-3] != "target"
    }


def keys(plan: Plan, stage: str, who: str = "method") -> Sequence[str]:
    return [job.key for job in plan.jobs if job.stage == stage and job.who == who]
