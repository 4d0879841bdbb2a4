"""A tuning as a table for a terminal, and what to do with it."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ilubench.records.labels import UTILITY_KEPT
from ilubench.runs.tuning.choice import share_forgotten
from ilubench.runs.tuning.records import TrialRecord, TuningRecord
from ilubench.specs.yaml_text import write_yaml

__all__ = ["tuning_report"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _verdict(trial: TrialRecord) -> str:
    if trial.state == "cut":
        return f"cut after seed {', '.join(trial.jobs)}"
    if trial.state != "done":
        return trial.state
    if trial.chosen:
        return "chosen"
    return "eligible" if trial.eligible else "loses utility"


def _trials(record: TuningRecord) -> Table:
    seeds = ", ".join(map(str, record.seeds))
    title = f"{record.label}: {len(record.trials)} settings, tuning seeds {seeds}, no attack"
    table = Table(title=title, title_justify="left")
    table.add_column("setting", justify="right")
    paths = list(record.trials[0].settings)
    for path in paths:
        table.add_column(path)
    for label in record.original.forget:
        table.add_column(label)
    for name in ("forgotten", UTILITY_KEPT, ""):
        table.add_column(name)
    original = record.original
    nothing, all_of_it = [""] * len(paths), _number(1.0)
    before = map(_number, original.forget.values())
    knows = share_forgotten(original.forget, original.forget_chance)
    table.add_row("original", *nothing, *before, _number(knows), all_of_it, "")
    blind = map(_number, original.forget_chance.values())
    table.add_row("chance", *nothing, *blind, all_of_it, _number(0.0), "")
    table.add_section()
    for trial in record.trials:
        table.add_row(
            str(trial.number),
            *(_shown(trial.settings[path]) for path in paths),
            *(_number(trial.forget.get(label)) for label in original.forget),
            _number(trial.forgotten),
            _number(trial.utility_kept),
            _verdict(trial),
            style="bold" if trial.chosen else None,
        )
    return table


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _closing(record: TuningRecord, path: Path) -> Iterator[str]:
    cost = record.cost
    yield (
        f"Rule: of the settings that keep {record.utility_kept_needed:.0%} of the original's "
        "utility, the one that forgets most (forgotten = mean of min(forget, chance) / chance)"
    )
    if record.budget != record.suite_budget or record.changes:
        marks = [f"budget {record.budget}, the suite's is {record.suite_budget}"]
        marks = [*marks[: int(record.budget != record.suite_budget)], *record.changes]
        yield f"NOT the suite's protocol: {'; '.join(marks)}"
    if record.cut:
        kept = "could not be chosen even if their other seeds forgot all and lost nothing"
        yield f"Cut short: {record.cut} settings, which {kept}"
    if record.ended:
        tried = f"{len(record.trials)} of {record.budget} settings"
        why = {"no gain": f"the last {record.patience} brought no better choice"}
        yield f"Ended after {tried}: {why.get(record.ended, 'the choice has forgotten all')}"
    yield f"Cost: {cost['steps']:.0f} optimizer steps, {cost['seconds']:.0f} s with scoring"
    yield f"Record: {path}"
    for trial in record.trials:
        for failure in trial.failures:
            yield f"setting {trial.number} {trial.state}: {failure.message}"
    if record.chosen is None:
        yield from _none_chosen(record)
        return
    yield "For the suite file:"
    yield write_yaml({"methods": record.methods}).rstrip()
    yield f"Next: ilubench run {' '.join(record.words)}"


def _none_chosen(record: TuningRecord) -> Iterator[str]:
    yield "No setting is chosen: none keeps the utility"
    if record.closest is not None:
        trial = record.trials[record.closest - 1]
        settings = ", ".join(f"{path}={_shown(value)}" for path, value in trial.settings.items())
        yield f"Closest: setting {trial.number} ({settings}) keeps {_number(trial.utility_kept)}"
    yield "Next: widen tuning.searches towards less forgetting, or more retaining"


def tuning_report(record: TuningRecord, path: Path) -> RenderableType:
    """Return the table of the settings tried, and what follows from it.

    Args:
        record: of a tuning.
        path: of its file.
    """
    return Group(_trials(record), Text("\n".join(_closing(record, path))))
