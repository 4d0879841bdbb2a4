"""How long a run's open jobs will take: as jobs of their kind did here, else as was expected."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeAlias

from ilubench.errors import StoreError
from ilubench.interfaces import WeightAttack
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan

__all__ = ["Expect", "RemainingTime", "expect_nothing"]

Expect: TypeAlias = Callable[[Plan], Mapping[str, float]]
"""Plan -> key of an open job -> seconds that it will take, of those of which it can be told."""

_GUESS = {"target": 180.0, "unlearn": 20.0, "score": 5.0, "attack": 20.0}
"""Seconds of a job of which none like it has been seen yet."""


def expect_nothing(plan: Plan) -> Mapping[str, float]:  # noqa: ARG001
    """Return nothing: nobody knows what jobs will take."""
    return {}


class RemainingTime:
    """Remaining time of a plan's jobs; finished ones teach it.

    Args:
        plan: the jobs.
        expect: returns job -> seconds; asked again when the first job of a kind has ended.
    """

    def __init__(self, plan: Plan, expect: Expect = expect_nothing) -> None:
        """Learn from the jobs that are done already."""
        self._plan, self._expect, self._expected = plan, expect, expect(plan)
        self._running, self._most = 0, 1
        self._left = {job.key: job for job in plan.jobs if not plan.is_done(job)}
        self._seen: dict[tuple[str, str, str], list[float]] = {}
        for job in plan.jobs:
            seconds = plan.seconds(job)
            if seconds is not None:
                self._seen.setdefault(self._kind(job), []).append(seconds)

    @staticmethod
    def _kind(job: Job) -> tuple[str, str, str]:
        return job.stage, job.attack, job.who

    def expected(self, job: Job) -> float:
        """Return the seconds that a job will take."""
        seen = self._seen.get(self._kind(job))
        if not seen and job.key in self._expected:
            return self._expected[job.key]
        if not seen:
            close = [s for kind, s in self._seen.items() if kind[:2] == self._kind(job)[:2]]
            seen = [value for values in close for value in values]
        return sum(seen) / len(seen) if seen else self._guess(job)

    def _guess(self, job: Job) -> float:
        lengths = self._lengths
        if job.attack not in lengths:
            return _GUESS[job.stage]
        return _GUESS[job.stage] * lengths[job.attack] * len(lengths) / sum(lengths.values())

    @cached_property
    def _lengths(self) -> dict[str, float]:
        """Attack -> mean tokens of what it trains on; those of one suite are of like steps."""
        bench, found = self._plan.bench, {}
        try:
            for attack in self._plan.experiment.attacks:
                if isinstance(attack.plugin, WeightAttack) and attack.plugin.roles():
                    roles = tuple(attack.reads(bench.suite).values())
                    tokens = [len(one.input_ids) for one in bench.examples(roles)]
                    found[attack.name] = sum(tokens) / len(tokens)
        except StoreError:  # the target model's tokenizer is not made yet
            return {}
        return found

    def started(self) -> None:
        """Count a job that runs."""
        self._running += 1
        self._most = max(self._most, self._running)

    def finished(self, outcome: Outcome) -> None:
        """Learn from a job that ended."""
        self._left.pop(outcome.job.key, None)
        self._running -= outcome.state in ("done", "failed")
        if outcome.state == "done":
            kind = self._kind(outcome.job)
            if kind not in self._seen:
                self._expected = self._expect(self._plan)
            self._seen.setdefault(kind, []).append(outcome.seconds)

    def seconds(self) -> float:
        """Return the seconds of all open jobs, as many at once as ran at once so far."""
        return sum(self.expected(job) for job in self._left.values()) / self._most
