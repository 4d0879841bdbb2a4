"""The models of a finished run, and what each scored, with what it read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from ilubench.errors import DataError
from ilubench.records.finished import FinishedRun
from ilubench.records.ranges import fa_scorer
from ilubench.records.results import RETRAIN
from ilubench.records.scores import method_samples, scored_courses
from ilubench.records.trials import has_trials
from ilubench.specs import DataSource, Estimator, FineTuningAccuracySpec, MetricSpec, SuiteSpec
from ilubench.statistics.bounds import UNBOUNDED, Range, keep_within
from ilubench.statistics.intervals import Figure, Samples, table_mean
from ilubench.statistics.row import FA

__all__ = ["Checkpoint", "Score", "checkpoints_of"]

MADE_HERE = "ilubench"
"""The owner in the names of models that only ilubench has made."""


@dataclass(frozen=True, eq=False)
class Score:
    """One metric of one model, on the metric's own scale.

    Attributes:
        scorer: as records name it; `gsm8k/fa` is an attack's FA.
        spec: what the suite says of the metric.
        purpose: what it is a measure of, in words.
        samples: every item's score, of each seed.
        figure: the mean with its interval.
        bounds: what an item can score.
        role: name of the rows that are asked; empty where the settings do not tell.
        source: where they are from.
        gated: whether a row that the scorer may read is gated.
    """

    scorer: str
    spec: MetricSpec | FineTuningAccuracySpec
    purpose: str
    samples: Samples
    figure: Figure
    bounds: Range
    role: str
    source: DataSource | None
    gated: bool


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One model: before any attack, or at a point of an attack's course.

    Attributes:
        who: as in a run's samples.
        model: its name, as owner/name.
        said: what it is, in words.
        attack: that it is of; empty before any.
        step: of the attack.
        level: of an attack that takes no steps.
        scores: of the metrics of which the suite says which way is better.
    """

    who: str
    model: str
    said: str
    attack: str = ""
    step: int = 0
    level: str = ""
    scores: list[Score] = field(default_factory=list)


def checkpoints_of(run: FinishedRun) -> tuple[Checkpoint, ...]:
    """Return the models of a run; those of attacks that tune are left out: each seed has its own.

    Raises:
        DataError: no samples, or seeds were scored on other items.
    """
    if run.samples is None or run.suite is None:
        raise DataError(f"{run.path}: {run.unread}")
    found: list[Checkpoint] = []
    for who in ("method", "reference", RETRAIN):
        measured = method_samples(run.samples, who)
        if not measured.scores:
            continue
        first = Checkpoint(who, *_named(run.suite, run.record.run, who))
        first.scores.extend(_scores(run, "", scored_courses(measured.scores), 0))
        found.append(first)
        for attack, runs in measured.attacks.items():
            if has_trials(runs):
                continue
            courses = scored_courses(runs)
            first.scores.extend(_scores(run, attack, courses, 0))
            levels = {step: name for one in runs.values() for step, name in one.levels.items()}
            for step in sorted({step for steps in courses.values() for step in steps} - {0}):
                level = levels.get(step, "")
                at = f"{attack}, {level}" if level else f"{attack} for {step} steps"
                name = f"{first.model.partition('/')[2]}.{attack}.{level or f'step-{step}'}"
                model, said = f"{MADE_HERE}/{_plain(name)}", f"{first.said}, then {at}"
                scores = [*_scores(run, attack, courses, step)]
                found.append(Checkpoint(who, model, said, attack, step, level, scores))
    return tuple(one for one in found if one.scores)


# --- inside ---


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _named(suite: SuiteSpec, run: str, who: str) -> tuple[str, str]:
    """A model's name, and what it is."""
    if who == "method":
        return f"{MADE_HERE}/{_plain(run)}", "the unlearned model"
    target = suite.target if who == "reference" else suite.retrain
    said = "the original model" if who == "reference" else "the model that never knew"
    hub = target.model.hub if target is not None and target.model is not None else None
    return hub or f"{MADE_HERE}/{suite.name}-{'target' if who == 'reference' else who}", said


def _scores(
    run: FinishedRun,
    attack: str,
    courses: Mapping[tuple[str, str], Mapping[int, Samples]],
    step: int,
) -> Iterator[Score]:
    suite = run.suite
    assert suite is not None
    estimators = {(s.scorer, s.metric): s.estimator for s in run.record.scores}
    for (scorer, metric), steps in courses.items():
        spec: MetricSpec | FineTuningAccuracySpec | None = suite.metric_of(scorer, metric)
        name, settings, purpose = scorer, suite.scorers.get(scorer), "what must be kept"
        if scorer == FA and attack:
            fa = suite.attacks[attack].fa
            spec = fa if fa is not None and fa.metric == metric else None
            name, settings = fa_scorer(attack), fa.scorer if fa is not None else None
            purpose = "what the fine-tuning is for"
        elif spec in suite.primary_forget:
            purpose = "what is to be forgotten; a benchmark of unlearning wants it unknown"
        # a mean of items is what can be computed again from samples alone
        kind = estimators.get((scorer, metric), Estimator())
        if spec is None or settings is None or step not in steps or kind != Estimator():
            continue
        bounds = run.metric_ranges.of(name, metric)
        figure = keep_within(table_mean(steps[step]), bounds or UNBOUNDED)
        role, source, gated = _reads(suite, settings.settings, attack if scorer == FA else "")
        yield Score(name, spec, purpose, steps[step], figure, bounds, role, source, gated)


def _reads(
    suite: SuiteSpec, settings: Mapping[str, JsonValue], attack: str
) -> tuple[str, DataSource | None, bool]:
    """The role that is asked, where it is from, and whether anything gated may be read."""
    sources = suite.all_sources()

    def full(role: str) -> str:
        own = f"{attack}.{role}"
        return own if own in sources else role

    named = [full(word) for word in _words([*settings.values()]) if full(word) in sources]
    # a scorer that names no role has them by default, which only its plugin knows
    gated = any(_gated(suite, sources[role]) for role in named or sources)
    data = settings.get("data")
    role = full(data) if isinstance(data, str) else ""
    return (role, sources[role], gated) if role in sources else ("", None, gated)


def _words(values: Sequence[JsonValue]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _words(value)
        elif isinstance(value, dict):
            yield from _words([*value.values()])


def _gated(suite: SuiteSpec, source: DataSource) -> bool:
    """Whether rows, or what they are made from, are gated."""
    made = source.generated.split(".")[0] if source.generated else ""
    inputs = suite.all_generators()[made].inputs.values() if made else ()
    return source.gated or any(_gated(suite, one) for one in inputs)
