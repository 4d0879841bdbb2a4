"""A leaderboard of one suite that runs in seconds: entries that were really measured."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from pydantic import TypeAdapter
from runs import TINY, command, target_folder
from safetensors.torch import save_file

from ilubench.leaderboard.records.files import read_entry, write_record
from ilubench.leaderboard.records.models import Entry, Weights
from ilubench.leaderboard.records.samples import point_to_samples
from ilubench.leaderboard.submit.entry import About, submit_run
from ilubench.models.checkpoints import apply_changes, load_model
from ilubench.records.keys import file_sha256
from ilubench.records.ranges import Ranges
from ilubench.records.rows import Compared, robustness_row
from ilubench.records.scores import method_samples
from ilubench.specs import SuiteSpec
from ilubench.statistics.row import RobustnessRow

SEEDS = "0..2"
FRESH = "100..102"
ROW = TypeAdapter(RobustnessRow)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ilubench-board-")  # removed at exit


@cache
def quick_suite() -> Path:
    """Return the file of the suite `quick`: the tiny one with a single attack of two steps."""
    values = yaml.safe_load(TINY.read_text())
    attack = values["attacks"]["agnews"]
    attack["settings"]["train"]["steps"] = 2
    attack["settings"]["fractions"] = [0.5, 1.0]
    attack["data"]["train"]["limit"] = 8
    values |= {"name": "quick", "attacks": {"agnews": attack}}
    values["environments"] = {"agnews": "agnews.train"}
    values["methods"] = {"default": {"train": {"lr": 1.0e-3, "steps": 3, "batch_size": 4}}}
    path = Path(_folder().name) / "quick.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@cache
def run_folder() -> Path:
    """Return the folder of a finished run of npo on the quick suite."""
    out = Path(_folder().name) / "out"
    words = (f"suite={quick_suite()}", "method=npo", f"seeds={SEEDS}", f"out={out}", "--json")
    done = command("run", *words)
    assert done.code == 0, done.err
    return out / str(done.json["run"])


def measured() -> Path:
    """Return the `out` folder of that run: its store, and what other tests run."""
    return run_folder().parent


@cache
def published() -> tuple[Path, tuple[Weights, ...]]:
    """Return the folder of the whole unlearned models, one file a seed, and their records."""
    folder, out = Path(_folder().name) / "published", measured()
    folder.mkdir()
    record = json.loads((run_folder() / "results.json").read_text())
    jobs = [j for j in record["jobs"] if j["stage"] == "unlearn" and "npo" in j["label"]]
    found = []
    for seed, job in zip(record["seeds"], jobs, strict=True):
        model = load_model(target_folder(out), "cpu")
        apply_changes(model, out / "store" / "unlearn" / job["key"])
        file = folder / f"npo-{seed}.safetensors"
        save_file({n: t.contiguous() for n, t in model.state_dict().items()}, file)
        found.append(Weights(seed=seed, sha256=file_sha256(file), bytes=file.stat().st_size))
    return folder, tuple(found)


def board(root: Path) -> Path:
    """Return the path of an honest entry in leaderboards of its own."""
    return submit_run(run_folder(), root, About(by="Ada"), weights=published()[1]).path


def edited(path: Path, **changes: Any) -> Path:
    """Change fields of an entry, and its name by that of its method."""
    entry = read_entry(path)
    found = Entry.model_validate({**entry.model_dump(mode="json"), **changes})
    path.unlink()
    place = path.with_name(f"{found.entry}.json")
    write_record(place, found)
    return place


def altered(path: Path, change: Callable[[pa.Table], pa.Array]) -> None:
    """Give an entry other samples, and all figures that follow from them.

    Args:
        path: of the entry.
        change: the samples -> the new values.
    """
    entry = read_entry(path)
    file = path.parent / entry.samples.path
    samples = pq.read_table(file)
    place = samples.column_names.index("value")
    samples = samples.set_column(place, "value", change(samples))
    pq.write_table(samples, file)
    suite = SuiteSpec.model_validate(entry.config["suite"])
    run = entry.run
    found = Compared(*(method_samples(samples, who) for who in ("method", "reference", "retrain")))
    ranges = Ranges.of_suite(suite, run.ranges)
    rows = {
        metric.label: ROW.dump_python(
            robustness_row(suite, metric, run.attacks, run.seeds, found, ranges), mode="json"
        )
        for metric in suite.primary_forget
    }
    before = samples.filter(pc.equal(samples["attack"], ""))
    scores = [
        score.model_copy(update={"value": _mean(before, score.who, score.seed, score.metric)})
        for score in run.scores
    ]
    told = run.model_copy(update={"rows": rows, "scores": tuple(scores)})
    pointer = point_to_samples(path.parent, entry.samples.path)
    write_record(path, entry.model_copy(update={"run": told, "samples": pointer}))


def _mean(samples: pa.Table, who: str, seed: int, metric: str) -> float:
    for name, value in (("who", who), ("seed", seed), ("metric", metric)):
        samples = samples.filter(pc.equal(samples[name], value))
    return float(pc.mean(samples["value"]).as_py())


def store_copy(out: Path) -> Path:
    """Return a fresh `out` folder whose store has the target and what was measured."""
    shutil.copytree(measured() / "store", out / "store")
    return out
