"""Whether the original model knows what is to be forgotten, before anything is unlearned.

A wrong tokenizer, prompts that end early, options read letter by letter, a metric that cannot see a
script: whatever goes wrong in scoring makes a model look as if it had forgotten. So the original
model's scores are compared with chance and with what the suite states of its target.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from ilubench.errors import ModelError, SpecError
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.suites import read_suite
from ilubench.records.chance import at_chance, with_chances
from ilubench.records.results import REFERENCE, ScoreSummary, Who
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import MetricSpec, SuiteSpec

__all__ = ["check_original", "original_notes"]

_GO_ON = "allow_weak_target=true goes on in spite of it"

Scores: TypeAlias = dict[tuple[str, str], ScoreSummary]
"""(scorer, metric) -> the original model's."""


def check_original(bench: Workbench, jobs: Sequence[Job]) -> None:
    """Stop before the first job that unlearns or attacks, if the original model seems not to know.

    Args:
        bench: shared state.
        jobs: of a run; the original's score is done.

    Raises:
        ModelError: a score is at chance, or is not the one that the suite states of its own target.
    """
    experiment = bench.experiment
    costly = (
        job.stage in ("unlearn", "attack") and not job.scores_original
        for job in jobs
        if not bench.is_done(job)
    )
    if experiment.run.allow_weak_target or not any(costly):
        return
    scores, suite = _scores(bench, jobs, "reference"), _measured_suite(bench, jobs)
    found = [*_weak(suite, scores)]
    if _is_own_target(experiment):
        found += _missed(experiment, scores)
    if found:
        raise ModelError(
            f"suite {experiment.suite.name}: {'; '.join(found)}. Nothing was unlearned or "
            f"attacked; look at the model ({bench.target_folder}), its tokenizer and the data. "
            f"{_GO_ON}"
        )


def original_notes(plan: Plan) -> Iterator[str]:
    """Yield what a reader must know of a run that went on, or that has its own target or data."""
    experiment = plan.experiment
    if experiment.method_name == REFERENCE and not experiment.attacks:
        return  # a model is scored, whatever it is
    scores = _scores(plan.bench, plan.jobs, "reference")
    suite = _measured_suite(plan.bench, plan.jobs)
    went_on = (
        "allow_weak_target" if experiment.run.allow_weak_target else "all jobs were done before"
    )
    yield from (f"{text} ({went_on})" for text in _weak(suite, scores))
    own = _is_own_target(experiment)
    why = "allow_weak_target" if own else "target, data or scorers are not the suite's"
    yield from (f"{text} ({why})" for text in _missed(experiment, scores))


def _is_own_target(experiment: Experiment) -> bool:
    """Whether target, data and metrics' scorers are the suite file's; if it is gone, they are."""
    suite = experiment.suite
    try:
        stated, _ = read_suite(experiment.run.suite)
    except SpecError:
        return True
    alike = (suite.target, suite.data) == (stated.target, stated.data)
    used = {metric.scorer for metric in suite.metrics}  # a tuning's suite has no others
    return alike and all(suite.scorers[name] == stated.scorers.get(name) for name in used)


def _scores(bench: Workbench, jobs: Sequence[Job], who: Who) -> Scores:
    """The scores of a model that nothing was done to; none where it was not scored."""
    found: Scores = {}
    for job in jobs:
        mine = job.looks_first and job.who == who
        artifact = bench.store.get(job.stage, job.key) if mine else None
        if artifact is not None:
            for path in scored_checkpoints(artifact.folder / "scores"):
                found.update({(s.scorer, s.metric): s for s in read_score(path).summaries})
    return found


def _measured_suite(bench: Workbench, jobs: Sequence[Job]) -> SuiteSpec:
    levels = {name: score.value for name, score in _scores(bench, jobs, "untouched").items()}
    return with_chances(bench.suite, levels)


def _measured(
    specs: Iterable[MetricSpec], scores: Scores
) -> Iterator[tuple[MetricSpec, ScoreSummary, str]]:
    for spec in specs:
        score = scores.get((spec.scorer, spec.metric))
        if score is not None:
            told = f"{spec.metric} of {spec.scorer} is {score.value:.4f} for the original model"
            yield spec, score, told


def _weak(suite: SuiteSpec, scores: Scores) -> Iterator[str]:
    for specs, looks in (
        (suite.primary_forget, "it looks as if it had forgotten already"),
        (suite.utility, "it has no utility that could be kept"),
    ):
        for spec, score, told in _measured(specs, scores):
            if at_chance(score, spec):
                items = f"{score.n} item" if score.n == 1 else f"{score.n} items"
                yield (
                    f"{told}, over {items}, no better than chance ({spec.chance_level:g}) beyond "
                    f"its interval: {looks}"
                )


def _missed(experiment: Experiment, scores: Scores) -> Iterator[str]:
    suite = experiment.suite
    for spec, score, told in _measured(suite.metrics, scores):
        stated = spec.stated
        if stated is not None and abs(score.value - stated.value) > stated.within:
            yield f"{told}, and the suite states {stated.value:g} +- {stated.within:g}"
