"""How a run shows itself: nested bars with an ETA in a terminal, plain lines in a pipe."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ilubench.experiments.training_text import overlap_warnings
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan

__all__ = ["Lines", "job_bars", "make_reporter"]

_GUESS = {"target": 180.0, "unlearn": 20.0, "score": 5.0, "attack": 20.0}
"""Seconds of a job of which none like it has been seen yet."""


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class _Estimate:
    """Remaining time, from what jobs of the same kind took."""

    def __init__(self, plan: Plan) -> None:
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
        seen = self._seen.get(self._kind(job))
        if not seen:
            close = [s for kind, s in self._seen.items() if kind[:2] == self._kind(job)[:2]]
            seen = [value for values in close for value in values]
        return sum(seen) / len(seen) if seen else _GUESS[job.stage]

    def finished(self, outcome: Outcome) -> None:
        self._left.pop(outcome.job.key, None)
        if outcome.state == "done":
            self._seen.setdefault(self._kind(outcome.job), []).append(outcome.seconds)

    def remaining(self) -> float:
        return sum(self.expected(job) for job in self._left.values())


def _headline(plan: Plan) -> str:
    todo = [job for job in plan.jobs if not plan.is_done(job)]
    experiment = plan.experiment
    settings = experiment.method.model_dump(mode="json", exclude={"train"})
    shown = ", ".join(f"{key}={_short(value)}" for key, value in settings.items())
    seeds = ",".join(str(seed) for seed in experiment.seeds)
    attacks = ",".join(attack.name for attack in experiment.attacks) or "none"
    place = f"engine {plan.bench.engine_choice.name} on {plan.bench.device}"
    lines = [
        f"suite    {experiment.suite.name} v{experiment.suite.version}: {experiment.suite.title}",
        f"method   {experiment.method_name}" + (f" ({shown})" if shown else ""),
        f"attacks  {attacks}; seeds {seeds}; {place}",
        f"jobs     {len(plan.jobs)}, of which {len(todo)} to do",
        f"folder   {plan.folder}",
    ]
    if experiment.scores_only:
        lines[1:3] = [f"scored   by {', '.join(experiment.scorers)}; {place}"]
    if plan.title:
        lines[1] = f"tuning   {plan.title}"
    if experiment.seen:
        lines.insert(3, f"seen     {', '.join(experiment.seen)} (the method trains on it)")
    found = overlap_warnings(experiment, plan.overlap)
    return "\n".join([*lines, *(f"warning  {line}" for line in found)])


def _short(value: object) -> str:
    if isinstance(value, dict) and "use" in value:
        inner = {
            k: v for k, v in value.get("settings", {}).items() if k not in ("train", "trainable")
        }
        return f"{value['use']}({', '.join(f'{k}={_short(v)}' for k, v in inner.items())})"
    if isinstance(value, list):
        return "[" + ",".join(_short(item) for item in value) + "]"
    return str(value)


class _Silent:
    """Progress within a job that nobody watches."""

    def start(self, phase: str, total: int) -> None:
        """Show nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Show nothing."""


class Lines:
    """Plain lines, one a job: for pipes and logs."""

    def __init__(self, console: Console) -> None:
        """Write to ``console``."""
        self._console = console
        self._begun = time.monotonic()
        self.progress = _Silent()

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        """Print the plan's headline."""
        self._estimate = _Estimate(plan)
        self._total, self._ended = len(plan.jobs), 0
        self._print(_headline(plan))

    def started(self, job: Job) -> None:
        """Print nothing: the end of a job is the line."""

    def finished(self, outcome: Outcome) -> None:
        """Print a line, unless the job was cached."""
        self._ended += 1
        self._estimate.finished(outcome)
        if outcome.state == "cached":
            return
        left = _clock(self._estimate.remaining())
        place = f"[{self._ended}/{self._total}]"
        line = f"{place} {outcome.job.label}: {outcome.state}, {outcome.seconds:.1f} s, ETA {left}"
        self._print(line)
        if outcome.failure is not None:
            self._print(f"{place} failed: {outcome.failure.message}")


class Bars:
    """Nested live bars: the run with its ETA, the job, the phase within it."""

    def __init__(self, console: Console) -> None:
        """Draw on ``console``; `live` must be entered."""
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self.progress = self
        self._phase: TaskID | None = None

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Draw while the context is open."""
        with self._bars:
            yield

    def planned(self, plan: Plan) -> None:
        """Print the plan's headline and open the run's bar."""
        self._estimate = _Estimate(plan)
        self._console.print(_headline(plan), markup=False, highlight=False)
        self._run = self._bars.add_task("run", total=len(plan.jobs), note="")
        self._phase = self._bars.add_task("", total=1, note="", visible=False)
        self._job: Job | None = None
        self._show_eta()

    def _show_eta(self, done_share: float = 0.0) -> None:
        left = self._estimate.remaining()
        if self._job is not None:
            left -= done_share * self._estimate.expected(self._job)
        self._bars.update(self._run, note=f"ETA {_clock(max(0.0, left))}")

    def started(self, job: Job) -> None:
        """Name the job."""
        self._job = job
        self._bars.update(self._run, description=job.label)

    def finished(self, outcome: Outcome) -> None:
        """Advance the run's bar."""
        self._estimate.finished(outcome)
        self._job = None
        self._bars.advance(self._run)
        if outcome.state not in ("cached", "skipped"):
            line = f"{outcome.job.label}: {outcome.state}, {outcome.seconds:.1f} s"
            self._console.print(line, markup=False, highlight=False)
        if outcome.failure is not None:
            self._console.print(f"  {outcome.failure.message}", markup=False, style="red")
        if self._phase is not None:
            self._bars.update(self._phase, visible=False)
        self._show_eta()

    def start(self, phase: str, total: int) -> None:
        """Open a phase of the current job."""
        if self._phase is not None:
            self._bars.reset(self._phase, total=max(1, total), description=f"  {phase}", note="")
            self._bars.update(self._phase, visible=True)

    def advance(self, done: int, note: str = "") -> None:
        """Move the phase's bar."""
        if self._phase is not None:
            self._bars.update(self._phase, completed=done, note=note)


@contextlib.contextmanager
def make_reporter(console: Console) -> Iterator[Bars | Lines]:
    """Yield bars in a terminal, lines elsewhere."""
    if console.is_terminal:
        bars = Bars(console)
        with bars.live():
            yield bars
    else:
        yield Lines(console)


class _JobBars:
    """Progress of one job, with nothing around it."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=1, note="")

    def start(self, phase: str, total: int) -> None:
        """Open a phase."""
        self._bars.reset(self._task, total=max(1, total), description=phase, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=done, note=note)


@contextlib.contextmanager
def job_bars(console: Console) -> Iterator["_JobBars | _Silent"]:
    """Yield the progress of a single job."""
    if not console.is_terminal:
        yield _Silent()
        return
    bars = Bars(console)
    with bars.live():
        yield _JobBars(bars._bars)
