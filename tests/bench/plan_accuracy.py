"""How near `ilubench plan` comes: planned over actual seconds, for the finished runs of a folder.

    python tests/bench/plan_accuracy.py OUT suite=mini            # each run from all others
    python tests/bench/plan_accuracy.py OUT suite=mini --probe    # each from a probe alone

Wall-clock times of a busy machine scatter: no ratio can be nearer than equal jobs are alike.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilubench.experiments.experiment import resolve_experiment
from ilubench.forecast.estimate import Forecast, estimate_costs
from ilubench.forecast.probe import run_probe
from ilubench.runs.plan import outline_jobs
from ilubench.runs.stages.workbench import make_bench
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words
from ilubench.specs.yaml_files import load_yaml


@dataclass(frozen=True)
class Run:
    """A finished run: its method, its attacks, and what the jobs took that it did itself."""

    folder: Path
    method: PluginRef
    attacks: str
    took: dict[str, float]
    keys: frozenset[str]


def runs_in(out: Path) -> list[Run]:
    """Return the finished runs of a folder."""
    found = []
    for file in sorted(out.glob("*/results.json")):
        config: Any = load_yaml(file.with_name("config.yaml"))
        jobs = json.loads(file.read_text())["jobs"]
        took = {job["label"]: job["seconds"] for job in jobs if job["state"] == "done"}
        method = PluginRef(use=config["run"]["method"]["use"], settings=config["method"])
        keys = frozenset(job["key"] for job in jobs if job["state"] == "done")
        found.append(Run(file.parent, method, ",".join(config["attacks"]), took, keys))
    return found


def planned(one: Run, known: Sequence[Run], words: Sequence[str], *, timed: bool) -> Forecast:
    """Return what `plan` says of a run's own jobs when those of other runs are all that is done."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "store").symlink_to((one.folder.parent / "store").resolve())
        for other in known:
            here = place / other.folder.name
            here.mkdir()
            for name in ("env.json", "config.yaml"):
                (here / name).symlink_to((other.folder / name).resolve())
            jobs = json.loads((other.folder / "plan.json").read_text())["jobs"]
            rest = [job for job in jobs if job["key"] not in one.keys]  # runs share the original's
            (here / "plan.json").write_text(json.dumps({"jobs": rest}))
        asked = [*words, f"attacks={one.attacks}", f"out={place}"]
        experiment = resolve_experiment(parse_words(asked), method=one.method)
        todo = outline_jobs(experiment)
        done = {job.key for job in todo if job.label not in one.took}
        bench = make_bench(experiment)
        probed = run_probe(bench, [job for job in todo if job.key not in done]) if timed else None
        return estimate_costs(bench, todo, done, probed=probed)


def compared(
    out: Path, words: Sequence[str], *, timed: bool
) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield stage, label, origin, planned and actual seconds of each job that can be told."""
    runs = runs_in(out)
    for one in runs:
        known = [] if timed else [other for other in runs if other != one]
        for cost in planned(one, known, words, timed=timed).jobs:
            if cost.took is not None:
                actual = one.took[cost.job.label]
                yield (
                    cost.job.stage,
                    cost.job.label,
                    cost.took.origin,
                    cost.took.seconds,
                    actual,
                )


def main() -> None:
    """Print each job, and each stage's sum and median."""
    words = [word for word in sys.argv[2:] if word != "--probe"]
    found = list(compared(Path(sys.argv[1]), words, timed="--probe" in sys.argv))
    for stage, label, origin, told, took in found:
        print(f"{stage:8} {told:8.2f} / {took:8.2f} = {told / took:5.2f}  {origin:8}  {label}")
    for stage, origin in dict.fromkeys((row[0], row[2]) for row in found):
        mine = [(told, took) for s, _, o, told, took in found if (s, o) == (stage, origin)]
        ratios = sorted(told / took for told, took in mine)
        whole = sum(told for told, _ in mine) / sum(took for _, took in mine)
        near = sum(1 / 1.25 <= ratio <= 1.25 for ratio in ratios)
        print(
            f"{stage:8} {origin:8} sum {whole:.2f}, median {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} .. {ratios[-1]:.2f}), {near} of {len(ratios)} within 25 %"
        )


if __name__ == "__main__":
    main()
