"""ilubench from Python: run what the command line runs, and read what runs leave as tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ilubench.errors import JobError, SpecError, UsageError
from ilubench.records.finished import FinishedRun, read_run
from ilubench.statistics.intervals import Figure

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

    from ilubench.experiments.experiment import Experiment
    from ilubench.records.results import RunRecord

__all__ = ["Run", "load", "run", "run_grid"]

MOST_FAILURES = 3
"""That an error names."""

Plot = Literal["course", "recovery", "fa_difference"]
Key = TypeVar("Key", str, tuple[str, str], tuple[str, str, int])


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        finished: its record and samples, as the commands read them.
    """

    folder: Path
    finished: FinishedRun

    @property
    def record(self) -> "RunRecord":
        """All that is in `results.json`."""
        return self.finished.record

    @property
    def verdict(self) -> str:
        """The sentence that says what happened, with its uncertainty."""
        from ilubench.reports.verdict_text import verdict_text

        return verdict_text(self.record, self.finished.rows, self.finished.suite)

    @cached_property
    def rows(self) -> "pd.DataFrame":
        """A line a primary forget metric: each figure and the ends of its 95 % interval.

        Forget metrics are turned: higher is better forgotten. Columns are the figures of
        :class:`~ilubench.statistics.row.RobustnessRow`; those of utility are of the metric that
        kept least. A figure that has no value is missing (NaN).
        """
        lines = {}
        for label, row in self.finished.rows.items():
            worst = row.utility.worst
            kept = {} if worst is None else {"utility_kept": row.utility.kept[worst]}
            at, step = row.worst_at or ("", None)
            told = {"worst_attack": at, "worst_step": step, "status": row.status}
            lines[label] = {**_figures(row), **_ends(kept), **told}
        return _frame(lines, "metric")

    @cached_property
    def attacks(self) -> "pd.DataFrame":
        """A line a primary metric and attack: its figures, those at its end, with intervals."""
        lines = {}
        for label, row in self.finished.rows.items():
            for attack in row.attacks:
                end = attack.steps[-1]
                last = {"end": end.forget, "end_utility_kept": end.utility_kept, "end_fa": end.fa}
                lines[label, attack.attack] = {**_figures(attack), **_ends(last)}
        return _frame(lines, "metric", "attack")

    @cached_property
    def course(self) -> "pd.DataFrame":
        """A line a primary metric, attack and checkpoint: the metric, utility kept and FA."""
        lines = {
            (label, attack.attack, step.step): {**_figures(step), "eligible": step.eligible}
            for label, row in self.finished.rows.items()
            for attack in row.attacks
            for step in attack.steps
        }
        return _frame(lines, "metric", "attack", "step")

    @cached_property
    def scores(self) -> "pd.DataFrame":
        """A line a metric, model and seed before any attack, on the metrics' own scales."""
        import pandas as pd

        self.finished.check_scores()
        return pd.DataFrame([score.model_dump() for score in self.record.scores])

    @cached_property
    def samples(self) -> "pd.DataFrame":
        """A line an item, metric and checkpoint.

        Raises:
            UsageError: there is none beside the record.
        """
        from ilubench.records.scores import plain_samples

        if self.finished.samples is None:
            raise UsageError(f"{self.folder}: {self.finished.unread}")
        found: pd.DataFrame = plain_samples(self.finished.samples).to_pandas()
        return found

    def plot(self, what: Plot = "course", *, metric: str = "") -> "matplotlib.figure.Figure":
        """Return a figure.

        Args:
            what: the metric along each attack (`course`), `recovery` or `fa_difference` by attack.
            metric: label of a primary forget metric; the first if empty.

        Raises:
            UsageError: no such metric.
            DataError: nothing was attacked.
        """
        from ilubench.records.comparing import common_labels
        from ilubench.reports.figures.courses import draw_attacks, lines_of
        from ilubench.reports.figures.overviews import draw_by_attack

        if what == "course":
            return draw_attacks([self.finished], metric=metric)
        if what not in ("recovery", "fa_difference"):
            raise UsageError(f"no plot {what!r}; choose from: course, recovery, fa_difference")
        labels = common_labels([self.finished])
        if metric and metric not in labels:
            raise UsageError(f"no metric {metric!r}; choose from: {', '.join(labels)}")
        return draw_by_attack(lines_of([self.finished], metric or labels[0]), what)

    def __repr__(self) -> str:
        """The verdict, and where it lies."""
        return f"<Run {self.folder}: {self.verdict}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict and the figures."""
        import html

        return (
            f"<p>{html.escape(self.verdict)}</p>{self.rows.T.to_html(float_format='{:.3f}'.format)}"
        )


def load(folder: str | Path) -> Run:
    """Return a finished run.

    Args:
        folder: the run's, or its `results.json`.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = Path(folder)
    return Run(path if path.is_dir() else path.parent, read_run(path))


def run(*words: str, quiet: bool = False, **settings: object) -> Run:
    """Unlearn, attack and score: what `ilubench run` does with the same words.

    What was computed before is taken from the store; stopped at any moment, the same call goes on.

    Args:
        words: as on the command line, for keys that are no names: `"method.train.lr=1e-4"`.
        quiet: show no progress.
        settings: the other keys: `suite="mini"`, `method="npo"`, `seeds=[0, 1]`, `out="runs"`; None
            is the word `none`, so that `attacks=None` is no attack.

    Raises:
        SpecError: an unknown key, name or value, or several methods.
        JobError: a job failed; the store has those that did not.
        IlubenchError: data or a model are missing, or do not fit.
    """
    experiments = _experiments(words, settings)
    if len(experiments) > 1:
        problem = f"{len(experiments)} are named, and a run has one"
        raise SpecError(
            problem, field="method", remedy="call run_grid, which returns a run of each"
        )
    return _carry_out(experiments, quiet=quiet)[0]


def run_grid(*words: str, quiet: bool = False, **settings: object) -> tuple[Run, ...]:
    """Carry out a run a method, `method=["npo", "ilu"]`; see :func:`run`.

    Raises:
        SpecError: an unknown key, name or value.
        JobError: a job failed; the store has those that did not.
        IlubenchError: data or a model are missing, or do not fit.
    """
    return _carry_out(_experiments(words, settings), quiet=quiet)


# --- inside ---


def _experiments(words: Sequence[str], settings: Mapping[str, object]) -> "tuple[Experiment, ...]":
    from ilubench.experiments.experiment import resolve_grid
    from ilubench.specs.overrides import parse_words

    for word in words:
        if not isinstance(word, str):
            raise SpecError(f"{word!r} is no text", remedy="write key=value, or key as a name")
    return resolve_grid(
        parse_words([*words, *(f"{key}={_text(key, value)}" for key, value in settings.items())])
    )


def _carry_out(experiments: "Sequence[Experiment]", *, quiet: bool) -> tuple[Run, ...]:
    import io

    from rich.console import Console

    from ilubench.forecast.estimate import expected_seconds
    from ilubench.reports.page import PAGE
    from ilubench.reports.page.report import write_report
    from ilubench.runs.pipeline import run_grid as carry_out
    from ilubench.runs.progress import make_reporter

    shown = Console(file=io.StringIO()) if quiet else Console(markup=False, emoji=False)
    with make_reporter(shown, expected_seconds) as reporter:
        results = carry_out(experiments, reporter)
    for result in results:
        if result.record.failures:
            failed = result.record.failures
            told = "; ".join(f"{one.label}: {one.message}" for one in failed[:MOST_FAILURES])
            problem = f"{len(failed)} of {len(result.record.jobs)} jobs failed ({told})"
            remedy = (
                f"the same call tries them again, load({str(result.plan.folder)!r}) has the rest"
            )
            raise JobError(f"{problem}; {remedy}")
    runs = tuple(load(result.plan.folder) for result in results)
    for found in runs:
        write_report([found.finished], found.folder / PAGE)
    return runs


def _text(key: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | bytes):
        problem = f"a {type(value).__name__} cannot be written as a word"
        raise SpecError(problem, field=key, remedy=f'name its fields: "{key}.FIELD=VALUE"')
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(_text(key, one) for one in value)
    return str(value)


def _figures(of: object) -> dict[str, float | None]:
    """The figures among an object's fields."""
    found = {one.name: getattr(of, one.name) for one in fields(of)}  # type: ignore[arg-type]
    return _ends({name: value for name, value in found.items() if isinstance(value, Figure)})


def _ends(figures: Mapping[str, Figure | None]) -> dict[str, float | None]:
    return {
        key: value
        for name, figure in figures.items()
        if figure is not None
        for key, value in _columns(name, figure)
    }


def _columns(name: str, figure: Figure) -> Iterator[tuple[str, float | None]]:
    yield name, figure.value
    yield f"{name}_low", figure.low
    yield f"{name}_high", figure.high


def _frame(lines: "Mapping[Key, Mapping[str, object]]", *names: str) -> "pd.DataFrame":
    import pandas as pd

    keys = [key if isinstance(key, tuple) else (key,) for key in lines]
    index = pd.MultiIndex.from_tuples(keys, names=names)
    return pd.DataFrame(
        list(lines.values()), index=index if len(names) > 1 else index.get_level_values(0)
    )
