"""Rates from finished jobs: what each did, and what it took, training and scoring apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from ilubench.forecast.history import Finished
from ilubench.forecast.jobs import Demands
from ilubench.forecast.speed import (
    FIXED,
    IMPORTS,
    Rates,
    Sample,
    fitted,
    load_seconds,
    scoring_features,
    training_features,
)
from ilubench.forecast.work import Work
from ilubench.runs.jobs import Job

__all__ = ["Speeds", "calibrated", "fitted_scoring", "fitted_training", "recorded", "samples"]


@dataclass(frozen=True)
class Speeds:
    """Rates of training and scoring; None where nothing tells."""

    training: Rates | None
    scoring: Rates | None


def calibrated(finished: Sequence[Finished], demands: Demands, jobs: Sequence[Job]) -> Speeds:
    """Return the rates of finished jobs of the suite.

    Args:
        finished: jobs of the suite on the device.
        demands: of the run.
        jobs: of the run.
    """
    training, scoring = samples(finished, demands, jobs)
    load = load_seconds(demands.moved)
    return Speeds(fitted_training(training, load), fitted_scoring(scoring, load))


def fitted_training(found: Sequence[Sample], load: float) -> Rates | None:
    """Return the rates of training; ``load`` is what a job's loading and saving may take."""
    origin = f"{len(found)} finished jobs of this suite here"
    return fitted(found, 2, origin, "measured", (load, IMPORTS))


def fitted_scoring(found: Sequence[Sample], load: float) -> Rates | None:
    """Return the rates of scoring; ``load`` as for training."""
    origin = f"{len(found)} finished jobs of this suite here"
    return fitted(found, 1, origin, "measured", (load, FIXED[1]))


def samples(
    finished: Sequence[Finished], demands: Demands, jobs: Sequence[Job]
) -> tuple[list[Sample], list[Sample]]:
    """Return what finished jobs did and took, in training and in scoring.

    An unlearning job counted its own passes; all of its time is training, what it loads and saves
    included. Of a target model only the steps count: it also reads its text and makes a tokenizer.
    An attack is taken to be the run's own attack of that name where it has as many steps,
    since its work does not depend on the method; what is not its steps is scoring.

    Args:
        finished: jobs of the suite on the device.
        demands: of the run.
        jobs: of the run.
    """
    known: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if job.stage != "unlearn" or job.who == "method":
            known.setdefault((job.stage, job.attack), job)
    training: list[Sample] = []
    scoring: list[Sample] = []
    for one in finished:
        like = known.get((one.stage, one.name if one.stage == "attack" else ""))
        if like is None:
            continue
        demand, anatomy = demands.of(like), demands.anatomy
        trained, name = one.cost.get("train_seconds", 0.0), one.name or one.stage
        starts = {kind: float(kind in one.began) for kind in ("training", "scoring")}
        same = round(demand.training.steps) == round(one.cost.get("steps", 0.0))
        if one.stage == "unlearn":
            work = recorded(one, demand.training, demands.width)
            if work.steps:
                features = training_features(work, anatomy, starts=starts["training"])
                training.append(Sample(features, max(one.seconds, trained), name))
            continue
        if not same:
            continue
        if demand.training.steps:
            features = training_features(demand.training, anatomy, jobs=0.0)
            training.append(Sample(features, trained, name))
        if one.stage == "target":
            continue
        features = scoring_features(
            demand.asking, demand.checkpoints, anatomy, starts=starts["scoring"]
        )
        scoring.append(Sample(features, one.seconds - trained, name))
    return training, scoring


def recorded(one: Finished, like: Work, width: float) -> Work:
    """Return a finished unlearning job's work.

    Args:
        one: counted its passes, and stored what it changed.
        like: of a job of the same data: its sequence lengths and answers are taken.
        width: bytes of a stored weight.
    """
    steps, forward, backward, down, up = (
        one.cost.get(name, 0.0)
        for name in (
            "steps",
            "forward_passes",
            "backward_passes",
            "forward_tokens",
            "backward_tokens",
        )
    )
    squares = like.forward_squares / like.forward_tokens if like.forward_tokens else 0.0
    answers = like.forward_answers / like.forward_tokens if like.forward_tokens else 0.0
    changed = sum(file.stat().st_size for file in one.folder.glob("*.safetensors")) / width
    return Work(
        steps,
        steps * changed,
        forward,
        backward,
        down,
        up,
        down * squares,
        up * squares,
        down * answers,
        up * answers,
    )
