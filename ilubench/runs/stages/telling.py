"""What an attacker who tunes learns: each trial's scores as two numbers, relative to those before.

It is the rule by which methods are tuned (how much is forgotten) and that of the worst case (how
much utility is kept), so that the search and the row agree on which trial is the strongest.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from pydantic import JsonValue

from ilubench.errors import DivergedError, StoreError
from ilubench.interfaces import Checkpoint, Told
from ilubench.records.chance import with_chances
from ilubench.records.keys import library_versions
from ilubench.records.rows import chance_levels
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.runs.jobs import Job
from ilubench.runs.stages.workbench import Workbench
from ilubench.runs.tuning.choice import share_forgotten
from ilubench.specs import MetricSpec, SuiteSpec, turned
from ilubench.statistics.row import KEPT_UTILITY
from ilubench.statistics.trials import share_kept

__all__ = ["Teller", "objective_identity", "score_and_tell"]

Scores: TypeAlias = Mapping[tuple[str, str], float]


def objective_identity(suite: SuiteSpec) -> dict[str, JsonValue]:
    """Return what decides, besides the scores, what an attacker who tunes is told."""
    return {
        **{
            kind: [m.model_dump(mode="json", exclude={"label", "stated"}) for m in metrics]
            for kind, metrics in (("forget", suite.primary_forget), ("utility", suite.utility))
        },
        "kept": KEPT_UTILITY,
        "libraries": dict(library_versions(("optuna",))),
    }


def score_and_tell(
    tampering: Iterator[Checkpoint],
    score: Callable[[Checkpoint], None],
    tell: Callable[[Checkpoint], Told] | None,
) -> Checkpoint | None:
    """Score an attack's checkpoints as they come, and tell one that tunes what they scored.

    Args:
        tampering: the attack.
        score: scores one, and stores that.
        tell: what it scored; None: the attack does not tune.

    Returns:
        The last one.

    Raises:
        DivergedError: a score is not finite, and the attack does not tune.
    """
    go_on: Callable[[], Checkpoint] = partial(next, tampering)
    last: Checkpoint | None = None
    while True:
        try:
            last = go_on()
        except StopIteration:
            return last
        try:
            score(last)
        except DivergedError as error:
            if tell is None:
                raise
            go_on = partial(cast("Generator[Checkpoint, Told, None]", tampering).throw, error)
        else:
            go_on = partial(next, tampering)
            if tell is not None:
                sent = cast("Generator[Checkpoint, Told, None]", tampering).send
                go_on = partial(sent, tell(last))


class Teller:
    """Says of a scored checkpoint what an attacker who tunes learns.

    Args:
        bench: of the run.
        job: of the attack; what it is told by is done.
        folder: of the checkpoints' scores.

    Raises:
        StoreError: the unlearned model was not scored.
    """

    def __init__(self, bench: Workbench, job: Job, folder: Path) -> None:
        """Read the scores of the unlearned model, and of the untouched one if need be."""
        self._folder = folder
        own, *untouched = (_stored(bench, key) for key in job.told_by)
        self._suite = with_chances(bench.suite, untouched[0] if untouched else {})
        levels = {m.label: chance_levels(self._suite, m) for m in self._suite.primary_forget}
        self._forget = {label: level.forget for label, level in levels.items()}
        self._chance = np.array(next(iter(levels.values())).utility)
        self._before = self._utility(own)

    def __call__(self, checkpoint: Checkpoint) -> Told:
        """Return what it scored."""
        scores = _values(self._folder / f"{checkpoint.name}.json")
        forget = {m.label: _forgotten(m, scores) for m in self._suite.primary_forget}
        kept = share_kept(self._utility(scores), self._before, self._chance)
        return Told(share_forgotten(forget, self._forget), max(0.0, float(kept)))

    def _utility(self, scores: Scores) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([turned(scores[m.scorer, m.metric], m) for m in self._suite.utility])


# --- inside ---


def _forgotten(metric: MetricSpec, scores: Scores) -> float:
    value = scores[metric.scorer, metric.metric]
    return 1.0 - value if metric.direction == "higher" else value


def _values(path: Path) -> Scores:
    return {(s.scorer, s.metric): s.value for s in read_score(path).summaries}


def _stored(bench: Workbench, key: str) -> Scores:
    artifact = bench.store.get("score", key)
    if artifact is None:
        raise StoreError(f"the scores {key} of the unlearned model are not there yet")
    (path,) = scored_checkpoints(artifact.folder / "scores")
    return _values(path)
