"""Which attacks on the original and on the retrained model a run takes from shipped result sets.

A set is taken for the attacks and seeds in which a run of it and this run could stand in one table
(`ilubench.records.comparing.run_differences`); the code that measured it need not be the installed
one, as with the rows of a table. The original is scored here all the same, and must score alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import SpecError
from ilubench.experiments.experiment import Experiment, suite_method
from ilubench.interfaces.discovery import find_plugin
from ilubench.records.comparing import SAME_ORIGINAL, run_differences
from ilubench.records.estimators import estimate
from ilubench.records.finished import FinishedRun
from ilubench.records.likeness import setting_differences
from ilubench.records.reference_sets import (
    METHODS,
    ReferenceSet,
    find_set,
    reference_rows,
    seed_words,
    shipped_notes,
    taken_words,
)
from ilubench.records.results import REFERENCE, ModelScore, ReferenceRecord, ScoreSummary, Who
from ilubench.records.scores import lines_by, read_samples, scored_checkpoints
from ilubench.runs.jobs import Job
from ilubench.runs.record_head import record_head
from ilubench.runs.stages.workbench import Workbench
from ilubench.statistics.row import FA

__all__ = [
    "ReadSet",
    "References",
    "Taken",
    "find_references",
    "is_same_original",
    "metric_summaries",
]

_COMMIT = 40
"""Digits of a commit; a branch may have other weights tomorrow."""


@dataclass(frozen=True, eq=False)
class Taken:
    """What a run takes from a reference result set.

    Attributes:
        source: the set.
        record: what the run's record says of it.
    """

    source: ReferenceSet
    record: ReferenceRecord

    def covers(self, job: Job) -> bool:
        """Whether a job of the run need not be done."""
        told = self.record
        if job.attack:
            taken = job.attack in told.attacks and job.seed in told.seeds
        else:
            taken = told.scored and job.stage in ("unlearn", "score")
        return taken and job.who == self.source.who

    @cached_property
    def samples(self) -> pa.Table:
        """The samples, as the run has them."""
        return reference_rows(self.source, self.record)

    @property
    def scores(self) -> Iterator[ModelScore]:
        """The scores before any attack, where they are taken."""
        for score in self.source.run.record.scores if self.record.scored else ():
            if score.who == "method":  # the original is scored in each run
                told = {"who": self.source.who, "seed": self.record.seeds[-1]}
                yield score.model_copy(update=told)


@dataclass(frozen=True)
class References:
    """What a run takes from reference result sets, and why not more.

    Attributes:
        taken: a set each.
        refused: what does not match, in words.
    """

    taken: tuple[Taken, ...] = ()
    refused: tuple[str, ...] = ()

    def cover(self, job: Job) -> bool:
        """Whether a job of the run need not be done."""
        return any(one.covers(job) for one in self.taken)

    @property
    def keys(self) -> list[str]:
        """What tells a run that takes them from one that measures them."""
        return [f"{one.source.who} {one.source.sha256}" for one in self.taken]

    @property
    def records(self) -> dict[Who, ReferenceRecord]:
        """What the run's record says of what is taken."""
        return {one.source.who: one.record for one in self.taken}

    @property
    def shipped(self) -> list[str]:
        """What is taken, for people."""
        return [taken_words(who, taken) for who, taken in self.records.items()]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the run's figures must know."""
        return (
            *shipped_notes(self.records),
            *(f"not taken as shipped: {reason}" for reason in self.refused),
        )


ReadSet: TypeAlias = Callable[[Path, Who], ReferenceSet]


def find_references(
    experiment: Experiment, bench: Workbench, jobs: Sequence[Job], read: ReadSet
) -> References:
    """Return what a run takes from shipped result sets, as it was asked.

    Args:
        experiment: the run.
        bench: of the run.
        jobs: all of the run, as if it took nothing.
        read: reads a set.

    Raises:
        SpecError: a set was asked for and is not there, or does not match; says in what.
        DataError: a set cannot be read.
    """
    asked = experiment.run.references
    attacked = {job.who for job in jobs if job.attack} - {"method"}
    if experiment.method_name == REFERENCE:
        attacked.discard("reference")  # those are its own
    if asked == "run" or not attacked:
        return References()
    taken: list[Taken] = []
    refused: dict[str, list[str]] = {}
    mine: FinishedRun | None = None
    for who in sorted(attacked):
        name, folder = METHODS[who], find_set(experiment.suite.name, who)
        if folder is None:
            if asked == "shipped":
                refused.setdefault("no result set comes with the suite", []).append(name)
            continue
        mine = mine or _prospect(experiment, bench)
        found = _match(bench, jobs, read(folder, who), mine)
        taken += [found.taken] if found.taken is not None else []
        for reason in found.refused:
            refused.setdefault(reason, []).append(name)
    reasons = tuple(f"{', '.join(names)}: {reason}" for reason, names in refused.items())
    if asked == "shipped" and reasons:
        remedy = "references=auto measures here what does not match"
        raise SpecError("; ".join(reasons), field="references", remedy=remedy)
    return References(tuple(taken), reasons)


def is_same_original(bench: Workbench, jobs: Sequence[Job], references: References) -> bool:
    """Whether the original scores here as in the sets that are taken; so long as it is not scored.

    Args:
        bench: of the run.
        jobs: of the run.
        references: what it takes.
    """
    found = (_other_original(bench, jobs, one.source) for one in references.taken)
    return not any(differing for one in found for differing in one)


def metric_summaries(
    experiment: Experiment, references: References
) -> Iterator[tuple[tuple[str, str, int, int, str], ScoreSummary]]:
    """Yield (who, attack, seed, step, level) and the mean of each metric that is taken."""
    known = {(n, m): e for n, s in experiment.scorers.items() for m, e in s.metrics().items()}
    tasks = {attack.name: attack.fa.metrics() for attack in experiment.attacks if attack.fa}
    names = ("who", "attack", "seed", "step", "level", "scorer", "metric")
    for one in references.taken:
        columns = [one.samples[name].to_numpy() for name in ("value", "group", "label")]
        for line, lines in lines_by(one.samples, names):
            *_, scorer, metric = cast("tuple[str, ...]", line)
            where = cast("tuple[str, str, int, int, str]", line[:-2])
            by = tasks[where[1]][metric] if scorer == FA else known[scorer, metric]
            value, se = estimate(by, *(column[lines].tolist() for column in columns))
            told = {"scorer": scorer, "metric": metric, "estimator": by, "n": len(lines)}
            yield where, ScoreSummary(**told, value=value, se=se)


# --- inside ---


class _Found(NamedTuple):
    taken: Taken | None
    refused: tuple[str, ...]


def _match(bench: Workbench, jobs: Sequence[Job], found: ReferenceSet, mine: FinishedRun) -> _Found:
    """What of a set is taken, and what does not match."""
    whole = next(_whole_differences(bench, jobs, found, mine), "")
    if whole:
        return _Found(None, (whole,))
    differing: dict[str, list[str]] = {}
    attacks = []
    for attack in mine.record.attacks:
        reason = _attack_difference(found.run, mine, attack)
        if reason:
            differing.setdefault(reason, []).append(attack)
        else:
            attacks.append(attack)
    refused = [
        reason if len(names) == len(mine.record.attacks) else f"{', '.join(names)}: {reason}"
        for reason, names in differing.items()
    ]
    seeds = [seed for seed in mine.record.seeds if seed in found.run.record.seeds]
    others = [seed for seed in mine.record.seeds if seed not in seeds]
    if others and attacks:
        refused.append(f"{seed_words(others)} (the set has {seed_words(found.run.record.seeds)})")
    if not attacks or not seeds:
        return _Found(None, tuple(refused))
    told = ReferenceRecord(
        run=found.run.record.run,
        samples=found.sha256,
        attacks=tuple(attacks),
        seeds=tuple(seeds),
        # nothing is left to do that its weights are needed for; the original is scored here anyway
        scored=found.who != "reference" and not others and len(attacks) == len(mine.record.attacks),
        machine=found.machine,
        libraries=dict(found.run.libraries),
    )
    return _Found(Taken(found, told), tuple(refused))


def _prospect(experiment: Experiment, bench: Workbench) -> FinishedRun:
    """The run as it will be, to be compared with finished ones."""
    settings = {a.name: a.plugin.model_dump(mode="json") for a in experiment.attacks}
    head = record_head(experiment, bench)
    size: dict[str, str | int] = {"world_size": experiment.run.devices_per_job}
    return FinishedRun(
        Path(experiment.run.out),
        head.model_copy(update={"conditions": head.conditions | size}),
        {},
        experiment.suite,
        None,
        "",
        settings,
        configured=True,
        memory=experiment.run.memory,
    )


def _whole_differences(
    bench: Workbench, jobs: Sequence[Job], found: ReferenceSet, mine: FinishedRun
) -> Iterator[str]:
    """What makes all of a set useless."""
    record, name = found.run.record, METHODS[found.who]
    if record.failures:
        yield "some of its jobs failed"
    version = find_plugin("methods", name).version
    if record.method_version != version:
        yield _told("the method's version", record.method_version, version)
    settings = suite_method(bench.suite, name).settings
    for what, there, here in setting_differences(record.method.get("settings"), settings):
        yield _told(what, there, here)
    source = bench.suite.target.model
    pinned = source is not None and (source.sha256 or len(source.revision or "") == _COMMIT)
    if not pinned and not (record.target and mine.record.target):
        yield "the target model's weights are not known to be those of the set"
    yield from _other_original(bench, jobs, found)


def _attack_difference(found: FinishedRun, mine: FinishedRun, attack: str) -> str:
    """The first thing in which two runs of one attack are not alike; empty where they are."""
    if attack not in found.record.attacks:
        return "the set does not have it"
    for what, there, here in run_differences(_alone(found, attack), _alone(mine, attack)):
        return _told(what.removesuffix(f" of {attack}"), there, here)
    return ""


def _alone(run: FinishedRun, attack: str) -> FinishedRun:
    """A run as if only one attack had been made."""
    record, known = run.record, run.suite.attacks if run.suite is not None else {}
    roles = {
        role: rows
        for role, rows in record.data.items()
        if role.partition(".")[0] not in known or role.startswith(f"{attack}.")
    }
    protocol = {name: told for name, told in record.protocol.items() if name == attack}
    only = {"attacks": (attack,), "protocol": protocol, "data": roles}
    settings = {name: told for name, told in run.settings.items() if name == attack}
    return replace(run, record=record.model_copy(update=only), recorded={}, settings=settings)


def _told(what: str, there: object, here: object) -> str:
    return f"{what} ({there} in the set, {here} here)"


def _other_original(bench: Workbench, jobs: Sequence[Job], found: ReferenceSet) -> Iterator[str]:
    """In what the original scores otherwise than in the set; nothing before it is scored."""
    score = next((job for job in jobs if job.scores_original and job.stage == "score"), None)
    artifact = bench.store.get("score", score.key) if score is not None else None
    if artifact is None:
        return
    (path,) = scored_checkpoints(artifact.folder / "scores")
    here = read_samples(path.with_suffix(".parquet"))
    there = found.samples.filter(
        pc.and_(pc.equal(found.samples["who"], "reference"), pc.equal(found.samples["attack"], ""))
    )
    for spec in bench.suite.metrics:
        sides = [_by_item(table, spec.scorer, spec.metric) for table in (there, here)]
        if sides[0].keys() != sides[1].keys():
            yield f"the original model's items of {spec.scorer} (others in the set than here)"
            continue
        means = [sum(side.values()) / len(side) for side in sides]
        if abs(means[0] - means[1]) > SAME_ORIGINAL:
            words = f"the original model's {spec.metric} of {spec.scorer}"
            yield _told(words, *(f"{mean:.4f}" for mean in means))


def _by_item(samples: pa.Table, scorer: str, metric: str) -> Mapping[str, float]:
    asked = pc.and_(pc.equal(samples["scorer"], scorer), pc.equal(samples["metric"], metric))
    own = samples.filter(asked)
    return dict(zip(own["item"].to_pylist(), own["value"].to_pylist(), strict=True))
