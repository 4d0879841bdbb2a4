"""A run before it starts: its plan where data and model are at hand, its outline where not."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from ilubench.errors import AccessError, DataError
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.training_text import expected_overlaps, overlap_warnings
from ilubench.forecast.devices import card_named
from ilubench.forecast.estimate import Forecast, estimate_costs
from ilubench.forecast.sources import Source, list_sources
from ilubench.forecast.took import ORIGINS
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan, make_plan, outline_jobs
from ilubench.runs.references import References
from ilubench.runs.stages.workbench import Workbench, make_bench
from ilubench.scoring.engines.choice import Choice, choose
from ilubench.specs import Spec

__all__ = ["Outlook", "as_json", "look_ahead", "offline"]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's client off the network: what is not cached is an error at once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@dataclass(frozen=True)
class Outlook:
    """What a run would do, or a grid of runs.

    Attributes:
        experiments: what was asked for, one a method.
        device: of the run.
        engine: that would score.
        plan: its jobs with their keys; None where data or model are not at hand.
        jobs: its jobs, keyed only if there is a plan.
        done: keys of those that are done.
        missing: what is not at hand; empty where everything is.
        forecast: what it will cost; None where nothing can be said.
        unknown: why there is no forecast.
        warnings: on the training text.
        expected: what of the evaluation is in the training text as it is meant to be.
        sources: what it reads from a hub.
    """

    experiments: Sequence[Experiment]
    device: str
    engine: Choice
    plan: Plan | None
    jobs: tuple[Job, ...]
    done: frozenset[str]
    missing: str
    forecast: Forecast | None
    unknown: str
    warnings: tuple[str, ...]
    expected: tuple[str, ...]
    sources: tuple[Source, ...]


def look_ahead(*experiments: Experiment, card: str = "", timed: bool = False) -> Outlook:
    """Return what a run would do and cost; nothing is fetched, and nothing but a probe is computed.

    Args:
        experiments: the resolved run, or several that differ in their method.
        card: name of a card of the table to plan for; empty for the device that is here.
        timed: probe the real model on this device.

    Raises:
        DataError: data that are at hand are wrong, or the model that is to be probed is not.
        SpecError: a setting does not fit.
        UsageError: no such card, or the device cannot be used.
    """
    chosen = card_named(card) if card else None
    with offline():
        plan, missing = _planned(*experiments)
        bench = plan.bench if plan is not None else make_bench(*experiments)
        if plan is None:
            jobs = outline_jobs(*experiments)
            given = bench.suite.target.model is not None
            done = frozenset(job.key for job in jobs[:1] if given)
        else:
            jobs = plan.jobs
            done = frozenset(job.key for job in jobs if plan.is_done(job))
        probed = None
        if timed:
            from ilubench.forecast.probe import run_probe

            if missing:
                raise DataError(f"--probe times the real model and data: {missing}")
            probed = run_probe(bench, [job for job in jobs if job.key not in done])
        forecast, unknown = None, ""
        try:
            forecast = estimate_costs(bench, jobs, done, chosen, probed)
        except DataError as error:
            unknown = str(error)
        engine = _engine(bench)
        needed = list_sources(*experiments)
    rows = plan.rows if plan is not None else ()
    warned, expected = (
        tuple(dict.fromkeys(line for row in rows for line in find(row.experiment, row.overlap)))
        for find in (overlap_warnings, expected_overlaps)
    )
    return Outlook(
        experiments,
        bench.device,
        engine,
        plan,
        jobs,
        done,
        missing,
        forecast,
        unknown,
        warned,
        expected,
        needed,
    )


def _planned(*experiments: Experiment) -> tuple[Plan | None, str]:
    try:
        return make_plan(*experiments), ""
    except AccessError as error:
        return None, str(error)


def _engine(bench: Workbench) -> Choice:
    try:
        return bench.engine_choice
    except AccessError:
        return choose(bench.experiment.run.engine, None, bench.device)


def as_json(outlook: Outlook) -> dict[str, JsonValue]:
    """Return an outlook as `ilubench plan --json` prints it; times in seconds, sizes in bytes."""
    plan = outlook.plan
    costs = {c.job.key: c for c in outlook.forecast.jobs} if outlook.forecast else {}
    jobs: list[JsonValue] = []
    for job in outlook.jobs:
        cost = costs.get(job.key)
        jobs.append(
            {
                "stage": job.stage,
                "key": job.key if plan is not None else None,
                "label": job.label,
                "cached": job.key in outlook.done,
                "seconds": cost.took.seconds if cost and cost.took else None,
                "origin": cost.took.origin if cost and cost.took else None,
                "amount": _plain(cost.amount) if cost else None,
                "peak_bytes": cost.peak.total if cost else None,
            }
        )
    return {
        "run": plan.run_id if plan is not None else None,
        "folder": str(plan.folder) if plan is not None else None,
        "rows": [_row(row) for row in plan.rows] if plan is not None else [],
        "engine": outlook.engine.name,
        "engine_reason": outlook.engine.reason,
        "jobs": jobs,
        "warnings": list(outlook.warnings),
        "expected_overlaps": list(outlook.expected),
        "missing": outlook.missing,
        "forecast": _forecast(outlook.forecast) if outlook.forecast is not None else None,
        "unknown": outlook.unknown,
        "sources": [_plain(source) for source in outlook.sources],
    }


def _references(found: References) -> dict[str, JsonValue]:
    taken: dict[str, JsonValue] = {
        who: told.model_dump(mode="json") for who, told in found.records.items()
    }
    return {"shipped": taken, "refused": list(found.refused)}


def _row(plan: Plan) -> dict[str, JsonValue]:
    return {
        "method": plan.experiment.run.method.use,
        "run": plan.run_id,
        "folder": str(plan.folder),
        "jobs": [job.key for job in plan.jobs],
        "references": _references(plan.references),
    }


def _forecast(found: Forecast) -> dict[str, JsonValue]:
    seconds, low, high = found.total or (None, None, None)
    return {
        "device": found.device,
        "seconds": seconds,
        "low": low,
        "high": high,
        "origins": {
            origin: {"jobs": jobs, "from": ORIGINS[origin]}
            for origin, jobs in found.origins.items()
        },
        "stages": {
            stage: {"jobs": jobs, "seconds": took} for stage, (jobs, took) in found.stages.items()
        },
        "memory": {
            **_plain(found.peak),
            "total": found.peak.total,
            "copy": found.copy,
            "probed": found.held or None,
        }
        if found.peak
        else None,
        "cards": [_plain(fit) for fit in found.fits],
        "disk": {
            "stays": found.disk,
            "scratch": found.scratch,
            "fits": found.disk + found.scratch < found.free,
        },
        "stated": list(found.stated),
    }


def _plain(value: Any) -> dict[str, JsonValue]:  # noqa: ANN401
    made: Mapping[str, Any] = asdict(value)
    told = {k: v.model_dump(mode="json") if isinstance(v, Spec) else v for k, v in made.items()}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in told.items()}
