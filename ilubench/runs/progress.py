"""How a run shows itself: nested bars with an ETA in a terminal, plain lines in a pipe."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from ilubench.experiments.experiment import Experiment
from ilubench.experiments.training_text import expected_overlaps, overlap_warnings
from ilubench.interfaces import Progress as Shown
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.remaining import Expect, RemainingTime, expect_nothing

__all__ = ["Lines", "make_reporter"]


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _headline(plan: Plan) -> str:
    todo = [job for job in plan.jobs if not plan.is_done(job)]
    experiment = plan.experiment
    seeds = ",".join(str(seed) for seed in experiment.seeds)
    attacks = ",".join(attack.name for attack in experiment.attacks) or "none"
    given = experiment.suite.unused_recipes.items()
    place = f"engine {plan.bench.engine_choice.name} on {plan.bench.device}"
    lines = [
        f"suite    {experiment.suite.name} v{experiment.suite.version}: {experiment.suite.title}",
        *(line for row in plan.rows for line in _method_lines(row.experiment, plan)),
        *(f"{name:<8} {where} (its recipe is not used)" for name, where in given),
        f"attacks  {attacks}; seeds {seeds}; {place}",
        f"jobs     {len(plan.jobs)}, of which {len(todo)} to do" + _shared(plan),
        *dict.fromkeys(line for row in plan.rows for line in _reference_lines(row)),
        *(f"folder   {row.folder}" for row in plan.rows),
    ]
    if experiment.scores_only:
        lines[1:-2] = [f"scored   by {', '.join(experiment.scorers)}; {place}"]
    if plan.title:
        lines[1] = f"tuning   {plan.title}"
    for head, find in (("overlap", expected_overlaps), ("warning", overlap_warnings)):
        found = (line for row in plan.rows for line in find(row.experiment, row.overlap))
        lines += [f"{head}  {line}" for line in dict.fromkeys(found)]
    return "\n".join(lines)


def _method_lines(experiment: Experiment, plan: Plan) -> Iterator[str]:
    # in a grid as it was asked for: two may be variants of one method
    name = experiment.run.method.use if plan.grid else experiment.method_name
    settings = experiment.method.model_dump(mode="json", exclude={"train"})
    shown = ", ".join(f"{key}={_short(value)}" for key, value in settings.items())
    yield f"method   {name}" + (f" ({shown})" if shown else "")
    if experiment.seen:
        yield f"seen     {', '.join(experiment.seen)} (the method trains on it)"


def _reference_lines(plan: Plan) -> Iterator[str]:
    yield from (f"shipped  {words}" for words in plan.references.shipped)
    yield from (f"run here {reason}" for reason in plan.references.refused)


def _shared(plan: Plan) -> str:
    """Say how many jobs several runs of a grid have in common."""
    times = Counter(job.key for row in plan.grid for job in row.jobs)
    several = sum(count > 1 for count in times.values())
    return f"; {several} are of several methods" if several else ""


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

    def __init__(self, console: Console, expect: Expect = expect_nothing) -> None:
        """Write to ``console``."""
        self._console, self._expect = console, expect

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        """Print the plan's headline."""
        self._remaining = RemainingTime(plan, self._expect)
        self._total, self._ended = len(plan.jobs), 0
        self._print(_headline(plan))

    def started(self, job: Job) -> Shown:
        """Print nothing: the end of a job is the line."""
        self._remaining.started()
        return self.show(job.label)

    def show(self, label: str) -> Shown:  # noqa: ARG002
        """Print nothing."""
        return _Silent()

    def silent(self, job: Job, seconds: float) -> None:
        """Print that a job says nothing."""
        self._print(f"{job.label}: no sign of progress for {seconds:.0f} s")

    def tell(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def finished(self, outcome: Outcome) -> None:
        """Print a line, unless the job was cached."""
        self._ended += 1
        self._remaining.finished(outcome)
        if outcome.state == "cached":
            return
        left = _clock(self._remaining.seconds())
        place = f"[{self._ended}/{self._total}]"
        line = f"{place} {outcome.job.label}: {outcome.state}, {outcome.seconds:.1f} s, ETA {left}"
        self._print(line)
        if outcome.failure is not None:
            self._print(f"{place} failed: {outcome.failure.message}")


class _Row:
    """A job's bar: its phases, one after the other."""

    def __init__(self, bars: Progress, label: str) -> None:
        self._bars, self._phase = bars, ""
        self.task = bars.add_task(f"  {label}", total=1, note="")

    def start(self, phase: str, total: int) -> None:
        """Open a phase."""
        self._phase = phase
        self._bars.reset(self.task, total=max(1, total), note=phase)

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar."""
        self._bars.update(self.task, completed=done, note=f"{self._phase} {note}".rstrip())


NOTE = 20
REST = 47
"""Columns of a live line besides its label: of the spinner, the bar, the time and the phase."""

LEAST_LABEL, MOST_LABEL = 16, 50


def _fixed(width: int | None = None) -> Column:
    """A column that keeps its line, and its width if it is given one."""
    return Column(width=width, no_wrap=True, overflow="ellipsis")


class Bars:
    """Nested live bars: the run with its ETA, below it each job that runs."""

    def __init__(self, console: Console, expect: Expect = expect_nothing) -> None:
        """Draw on ``console``; `live` must be entered."""
        self._console, self._expect = console, expect
        label = max(LEAST_LABEL, min(MOST_LABEL, console.width - REST))
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=_fixed(label)),
            BarColumn(bar_width=8),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=_fixed()),
            TimeElapsedColumn(table_column=_fixed()),
            TextColumn("{task.fields[note]}", markup=False, table_column=_fixed(NOTE)),
            console=console,
            transient=True,
        )
        self._rows: dict[str, _Row] = {}

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Draw while the context is open."""
        with self._bars:
            yield

    def planned(self, plan: Plan) -> None:
        """Print the plan's headline and open the run's bar."""
        self._remaining = RemainingTime(plan, self._expect)
        self._console.print(_headline(plan), markup=False, highlight=False)
        self._run = self._bars.add_task("run", total=len(plan.jobs), note="")
        self._show_eta()

    def _show_eta(self) -> None:
        self._bars.update(self._run, note=f"ETA {_clock(self._remaining.seconds())}")

    def started(self, job: Job) -> Shown:
        """Open the job's bar."""
        self._remaining.started()
        self._rows[job.key] = row = _Row(self._bars, job.label)
        return row

    def show(self, label: str) -> Shown:
        """Open a bar for work that is no job of a plan."""
        return _Row(self._bars, label)

    def silent(self, job: Job, seconds: float) -> None:
        """Say it behind the job's bar."""
        self._bars.update(self._rows[job.key].task, note=f"no sign for {seconds:.0f} s")

    def tell(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def finished(self, outcome: Outcome) -> None:
        """Advance the run's bar and close the job's."""
        self._remaining.finished(outcome)
        self._bars.advance(self._run)
        if outcome.state not in ("cached", "skipped"):
            line = f"{outcome.job.label}: {outcome.state}, {outcome.seconds:.1f} s"
            self._console.print(line, markup=False, highlight=False)
        if outcome.failure is not None:
            self._console.print(f"  {outcome.failure.message}", markup=False, style="red")
        row = self._rows.pop(outcome.job.key, None)
        if row is not None:
            self._bars.remove_task(row.task)
        self._show_eta()


@contextlib.contextmanager
def make_reporter(console: Console, expect: Expect = expect_nothing) -> Iterator[Bars | Lines]:
    """Yield bars in a terminal, lines elsewhere; ``expect`` tells what the open jobs will take."""
    if console.is_terminal:
        bars = Bars(console, expect)
        with bars.live():
            yield bars
    else:
        yield Lines(console, expect)
