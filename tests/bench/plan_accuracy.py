"""How near `ilubench plan` comes: predicted against actual.

    python tests/bench/plan_accuracy.py held-out OUT suite=mini     # finished runs, job by job
    python tests/bench/plan_accuracy.py pairs OUT suite=mini        # ... each run from each other
    python tests/bench/plan_accuracy.py second 3 suite=tests/fixtures/tiny.yaml ilu npo graddiff
    python tests/bench/plan_accuracy.py run suite=mini method=npo   # plans with a probe, and runs

`held-out`: the rates come from the finished jobs of all methods but one, and predict that one's; an
attack's from those of all other attacks. `pairs`: all that is known is one run of another method,
and the run that made what it found done; the forecast of the jobs that a run did is compared stage
by stage, by the code of `plan` itself.
`second` makes such runs first, each in a process of its own as users do, so many times; the words
without `=` are the methods, the first of which makes the target. Settings of a method are read from
its own runs. Wall-clock times of a busy machine scatter: the spread of equal jobs is printed beside
the error, which cannot be smaller.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilubench.experiments.experiment import Experiment, resolve
from ilubench.forecast.calibration import fitted_scoring, fitted_training, samples
from ilubench.forecast.estimate import Forecast, estimate
from ilubench.forecast.history import finished_jobs
from ilubench.forecast.inputs import Inputs
from ilubench.forecast.jobs import Demands
from ilubench.forecast.outlook import look_ahead
from ilubench.forecast.speed import Sample, load_seconds
from ilubench.runs.pipeline import run
from ilubench.runs.plan import make_bench, outline
from ilubench.runs.progress import Lines
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse
from ilubench.specs.yaml_files import load_yaml

STAGES = ("target", "unlearn", "score", "attack")


def main() -> None:
    """Read the command line."""
    what, *words = sys.argv[1:]
    if what == "held-out":
        held_out(Path(words[0]), words[1:])
    elif what == "pairs":
        show(list(pairs(Path(words[0]), words[1:])))
    elif what == "second":
        second(int(words[0]), words[1:])
    else:
        planned_and_run(words)


# --------------------------------------------------------------------------- finished runs


@dataclass(frozen=True)
class Run:
    """A finished run: its method, its jobs, and what those took that it did itself."""

    folder: Path
    method: str
    settings: Any
    attacks: tuple[str, ...]
    keys: dict[str, str]
    took: dict[str, float]


def runs_in(out: Path) -> list[Run]:
    """Return the finished runs of a folder."""
    found = []
    for file in sorted(out.glob("*/results.json")):
        record, config = json.loads(file.read_text()), load_yaml(file.with_name("config.yaml"))
        asked: Any = config["run"]
        jobs = record["jobs"]
        took = {job["label"]: job["seconds"] for job in jobs if job["state"] == "done"}
        keys = {job["label"]: job["key"] for job in jobs}
        attacks: Any = config["attacks"]
        use, settings = asked["method"]["use"], config["method"]
        found.append(Run(file.parent, use, settings, tuple(attacks), keys, took))
    return found


def again(one: Run, out: Path, words: Sequence[str]) -> Experiment:
    """Return a run's experiment, with another folder for its results."""
    asked = [*words, f"attacks={','.join(one.attacks)}", f"out={out}"]
    return resolve(parse(asked), method=PluginRef(use=one.method, settings=one.settings))


def target_of(one: Run) -> str:
    """Return the key of a run's target model."""
    return next(iter(one.keys.values()))


def pairs(out: Path, words: Sequence[str]) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield history, method, stage, predicted and actual seconds of each run from each other."""
    finished = runs_in(out)
    for known in finished:
        found = {key for label, key in known.keys.items() if label not in known.took}
        made = {one.folder: found & {one.keys[label] for label in one.took} for one in finished}
        history = [known, *(one for one in finished if made[one.folder])]
        for one in finished:
            if one.method == known.method or one in history:
                continue  # what it took itself is no forecast
            told = forecast_from(out, history, one, words)
            for stage in STAGES:
                mine = [c for c in told.jobs if c.job.stage == stage and not c.cached]
                sure = [c for c in mine if c.seconds is not None]
                if sure:
                    actual = sum(one.took[c.job.label] for c in sure)
                    predicted = sum(c.seconds or 0.0 for c in sure)
                    told_by = ", ".join(dict.fromkeys(one.method for one in history))
                    yield told_by, one.method, stage, predicted, actual


def forecast_from(out: Path, history: Sequence[Run], one: Run, words: Sequence[str]) -> Forecast:
    """Return what `plan` says of a run when others are all that has been done."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "store").symlink_to((out / "store").resolve())
        for known in history:
            (place / known.folder.name).symlink_to(known.folder.resolve())
        experiment = again(one, place, words)
        jobs = outline(experiment)
        done = {job.key for job in jobs if job.label not in one.took}
        return estimate(make_bench(experiment), target_of(one), jobs, done)


def show(found: Sequence[tuple[str, str, str, float, float]]) -> None:
    """Print each comparison, and the median of each stage."""
    for known, method, stage, predicted, actual in found:
        ratio = predicted / actual
        line = f"{stage:8} {predicted:8.2f} / {actual:8.2f} = {ratio:.2f}"
        print(f"{line}   {method} from {known}")
    for stage in STAGES:
        ratios = sorted(p / a for _, _, s, p, a in found if s == stage)
        if ratios:
            within = sum(1 / 1.25 <= r <= 1.25 for r in ratios)
            spread = f"{ratios[0]:.2f} .. {ratios[-1]:.2f}, {within} of {len(ratios)} within 25 %"
            print(f"{stage:8} median {statistics.median(ratios):.2f} ({spread})")


def second(times: int, words: Sequence[str]) -> None:
    """Make runs of some methods, so many times from scratch, and compare all pairs."""
    settings = [word for word in words if "=" in word]
    methods = [word for word in words if "=" not in word]
    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            for method in methods:
                asked = [*settings, f"method={method}", f"out={folder}"]
                command = [sys.executable, "-m", "ilubench.cli", "run", *asked]
                subprocess.run(command, check=True, capture_output=True, env=os.environ)
            found += list(pairs(Path(folder), settings))
    show(found)


# --------------------------------------------------------------------------- held out


def held_out(out: Path, words: Sequence[str]) -> None:
    """Predict each method's and each attack's jobs from those of the others."""
    experiment = resolve(parse([*words, f"out={out}"]))
    bench, jobs = make_bench(experiment), outline(experiment)
    target = next((target_of(one) for one in runs_in(out)), "given")
    finished = finished_jobs(out, experiment.suite.name, "cpu")
    demands = Demands(experiment, Inputs(bench, target))
    training, scoring = samples(finished, demands, jobs)
    print(f"{len(finished)} finished jobs")
    load = load_seconds(demands.moved)
    _table("training", training, load)
    _table("scoring", scoring, load)


def _table(title: str, found: Sequence[Sample], load: float) -> None:
    print(f"\n{title}, s: predicted from the others' jobs / median = median ratio (spread)")
    ratios = []
    fit = fitted_training if title == "training" else fitted_scoring
    for name in sorted({sample.name for sample in found}):
        mine = [s for s in found if s.name == name]
        rates = fit([s for s in found if s.name != name], load)
        if rates is None:
            continue
        predicted = statistics.median(rates.seconds(s.features) for s in mine)
        actual = [s.seconds for s in mine]
        ratio = statistics.median(rates.seconds(s.features) / s.seconds for s in mine)
        ratios.append(ratio)
        median = statistics.median(actual)
        spread = f"{min(actual):6.1f} .. {max(actual):6.1f}"
        print(f"  {name:12} {predicted:7.1f} / {median:7.1f} = {ratio:4.2f}   ({spread})")
    within = sum(1 / 1.25 <= ratio <= 1.25 for ratio in ratios)
    print(f"  within 25 %: {within} of {len(ratios)}")


# --------------------------------------------------------------------------- run


def planned_and_run(words: Sequence[str]) -> None:
    """Plan with a probe, run, and compare stage by stage."""
    from rich.console import Console

    with tempfile.TemporaryDirectory() as folder:
        asked = [*words, *([] if any(w.startswith("out=") for w in words) else [f"out={folder}"])]
        experiment = resolve(parse(asked))
        began = time.monotonic()
        try:
            outlook = look_ahead(experiment, timed=True)
        except Exception as error:  # noqa: BLE001 - the target is not made yet: no probe
            print(f"no probe: {error}")
            outlook = look_ahead(experiment)
        print(f"planned in {time.monotonic() - began:.0f} s")
        result = run(experiment, Lines(Console()))
        assert outlook.forecast is not None
        actual = {job.key: job.seconds or 0.0 for job in result.record.jobs}
        told = [c for c in outlook.forecast.jobs if c.seconds is not None and not c.cached]
        show(
            [
                ("the plan", c.job.label, c.job.stage, c.seconds or 0.0, actual[c.job.key])
                for c in told
            ]
        )


if __name__ == "__main__":
    main()
