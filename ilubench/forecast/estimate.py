"""A run's forecast: its jobs' demands in hours, gigabytes and downloads, and where that is from."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ilubench.experiments.experiment import Experiment
from ilubench.forecast.anatomy import Anatomy
from ilubench.forecast.calibration import Speeds, calibrated
from ilubench.forecast.devices import CARDS, Card, card_of
from ilubench.forecast.history import STARTS, Began, finished_jobs
from ilubench.forecast.inputs import Inputs
from ilubench.forecast.jobs import Demand, Demands
from ilubench.forecast.memory import Peak, leaner, peak
from ilubench.forecast.speed import DISK, assumed, scoring_features, training_features
from ilubench.forecast.work import Asking, Work
from ilubench.runs.jobs import Job
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import MemorySpec

__all__ = ["Fit", "Forecast", "JobCost", "estimate"]

_UPDATE = 32.0
"""Bytes read and written for each updated parameter: weights, gradient, master copy, moments."""

_HOST = 20e9
"""Bytes a second between a card and the machine's memory: an assumption."""


@dataclass(frozen=True)
class JobCost:
    """A job's forecast.

    Attributes:
        job: which.
        cached: done already.
        demand: what it asks for; None for a cached one.
        seconds: it takes; None where nothing tells.
        low: at least, roughly.
        high: at most, roughly.
        peak: memory; None for a cached one.
    """

    job: Job
    cached: bool
    demand: Demand | None = None
    seconds: float | None = None
    low: float = 0.0
    high: float = 0.0
    peak: Peak | None = None


@dataclass(frozen=True)
class Fit:
    """Whether a run fits a card.

    Attributes:
        card: name.
        memory: bytes of it.
        needs: bytes at the peak, by the settings as they are.
        words: the mildest words with which it fits; empty where it fits as it is; None where none
            makes it fit.
        then: bytes at the peak with these.
    """

    card: str
    memory: float
    needs: float
    words: str | None
    then: float


@dataclass(frozen=True)
class Forecast:
    """What a run will cost.

    Attributes:
        device: `cpu`, or a card's name.
        jobs: all of the run.
        speeds: where times are from.
        seconds: of the open jobs; None where nothing tells.
        low: at least, roughly.
        high: at most, roughly.
        by_stage: stage -> (open jobs, seconds).
        peak: of the open job that takes most; None where none is open.
        fits: whether it fits cards of the table.
        disk: bytes that stay.
        scratch: bytes of a job's saved state, while it runs.
        free: bytes free where results go.
        stated: roles (and `suite.target.model`) whose size is as stated in the suite, approximate.
        guessed: labels of jobs whose training is a guess.
    """

    device: str
    jobs: tuple[JobCost, ...]
    speeds: Speeds
    seconds: float | None
    low: float
    high: float
    by_stage: Mapping[str, tuple[int, float]]
    peak: Peak | None
    fits: tuple[Fit, ...]
    disk: float
    scratch: float
    free: int
    stated: tuple[str, ...]
    guessed: tuple[str, ...]


def estimate(
    bench: Workbench,
    target: str,
    jobs: Sequence[Job],
    done: Collection[str],
    card: Card | None = None,
    probed: Speeds | None = None,
) -> Forecast:
    """Return a run's forecast; nothing is trained and nothing is fetched.

    Args:
        bench: of the run.
        target: key of the target model.
        jobs: of the run.
        done: keys of those that are done.
        card: plan for this one, not for the device that is here.
        probed: rates of a probe.

    Raises:
        DataError: data that are at hand are wrong; or they are not, and no size is stated.
    """
    experiment = bench.experiment
    inputs = Inputs(bench, target)
    demands = Demands(experiment, inputs)
    here = _device_name(bench.device)
    todo = [job for job in jobs if job.key not in done]
    speeds = Speeds(None, None)
    if todo:
        speeds = _speeds(bench, demands, jobs, (card, here), probed)
    memory, kind = experiment.run.memory, "cuda" if card else bench.device.partition(":")[0]
    first = {
        name: next((job.key for job in todo if job.stage in stages), "")
        for name, stages in STARTS.items()
    }
    costs = []
    for job in jobs:
        if job.key in done:
            costs.append(JobCost(job, cached=True))
            continue
        starts = {name: float(job.key == key) for name, key in first.items()}
        costs.append(_cost(job, demands, speeds, starts, (memory, kind)))
    open_costs = [cost for cost in costs if not cost.cached]
    seconds, low, high = _total(open_costs)
    largest = max((c.peak for c in open_costs if c.peak), key=lambda p: p.total, default=None)
    wanted = [c.demand for c in open_costs if c.demand]
    return Forecast(
        card.name if card else here,
        tuple(costs),
        speeds,
        seconds,
        low,
        high,
        dict(_stages(open_costs)),
        largest,
        tuple(_fits(wanted, memory, demands.anatomy)) if todo else (),
        sum(demand.stored for demand in wanted),
        max((demand.scratch for demand in wanted), default=0.0),
        _free(Path(experiment.run.out)),
        tuple(sorted(inputs.stated)),
        tuple(c.job.label for c in open_costs if c.demand and not c.demand.known),
    )


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(device))


# --------------------------------------------------------------------------- seconds


def _speeds(
    bench: Workbench,
    demands: Demands,
    jobs: Sequence[Job],
    place: tuple[Card | None, str],
    probed: Speeds | None,
) -> Speeds:
    """Return the rates: of finished jobs, else of a probe, else of the card's data sheet."""
    card, here = place
    experiment = bench.experiment
    found = Speeds(None, None)
    if card is None:
        name = experiment.suite.name
        finished = finished_jobs(Path(experiment.run.out), name, here)
        found = calibrated(finished, demands, jobs)
        card = card_of(here)
    if probed is not None:
        found = Speeds(found.training or probed.training, found.scoring or probed.scoring)
    if card is not None and (found.training is None or found.scoring is None):
        training, scoring = assumed(card, _products(experiment), demands.anatomy, _UPDATE)
        found = Speeds(found.training or training, found.scoring or scoring)
    return found


def _products(experiment: Experiment) -> str:
    """The type that most products are computed in: the attacks', as there are most of them."""
    if experiment.suite.dtype == "bfloat16":
        return "bfloat16"
    specs = (getattr(attack.plugin, "train", None) for attack in experiment.attacks)
    return next((str(s.precision) for s in specs if s is not None), "float32")


def _cost(
    job: Job,
    demands: Demands,
    speeds: Speeds,
    starts: Mapping[Began, float],
    place: tuple[MemorySpec, str],
) -> JobCost:
    demand, anatomy = demands.of(job), demands.anatomy
    most = peak(demand.load, place[0], anatomy, place[1])
    seconds = low = high = 0.0
    known = True
    work, asking = demand.training, demand.asking
    loads = float(job.stage in ("target", "unlearn"))
    for rates, wanted, features in (
        (
            speeds.training,
            work != Work() or loads,
            training_features(work, anatomy, jobs=loads, starts=starts["training"]),
        ),
        (
            speeds.scoring,
            asking != Asking(),
            scoring_features(asking, demand.checkpoints, anatomy, starts=starts["scoring"]),
        ),
    ):
        if not wanted:
            continue
        if rates is None:
            known = False
            continue
        part = rates.seconds(features)
        if rates.kind == "assumed":
            part += demand.moved / DISK / 2
            part += 2 * most.host * work.steps / _HOST if rates is speeds.training else 0.0
        seconds += part
        low += part / rates.low
        high += part * rates.high
    return JobCost(job, False, demand, seconds if known else None, low, high, most)


def _total(costs: Sequence[JobCost]) -> tuple[float | None, float, float]:
    if any(cost.seconds is None for cost in costs):
        return None, 0.0, 0.0
    seconds = sum(cost.seconds or 0.0 for cost in costs)
    return seconds, sum(cost.low for cost in costs), sum(cost.high for cost in costs)


def _stages(costs: Sequence[JobCost]) -> Iterator[tuple[str, tuple[int, float]]]:
    for stage in ("target", "unlearn", "score", "attack"):
        mine = [cost for cost in costs if cost.job.stage == stage]
        if mine:
            yield stage, (len(mine), sum(cost.seconds or 0.0 for cost in mine))


# --------------------------------------------------------------------------- places


def _fits(demands: Sequence[Demand], memory: MemorySpec, anatomy: Anatomy) -> Iterator[Fit]:
    """Yield whether the run fits cards of each size, and with which words it would."""

    def needs(settings: MemorySpec, micro: float = 1.0) -> float:
        return max(
            peak(
                replace(
                    d.load,
                    tokens=round(d.load.tokens * micro),
                    answers=round(d.load.answers * micro),
                ),
                settings,
                anatomy,
                "cuda",
            ).total
            for d in demands
        )

    now = needs(memory)
    dtype = demands[0].load.dtype
    for size in sorted({card.memory for card in CARDS}):
        name = f"{size / 1e9:.0f} GB"
        if now <= size:
            yield Fit(name, size, now, "", now)
            continue
        words: str | None = None
        then = now
        for told, settings in leaner(memory, dtype):
            then = needs(settings)
            if then <= size:
                words = told
                break
        yield Fit(name, size, now, words, then)


def _free(out: Path) -> int:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
