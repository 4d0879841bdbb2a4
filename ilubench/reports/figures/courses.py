"""The forget metric along each attack, one line a method, and below it what its user gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ilubench.errors import UsageError, did_you_mean
from ilubench.records.comparing import common_labels
from ilubench.records.finished import REFERENCES, FinishedRun
from ilubench.records.results import REFERENCE, RETRAIN
from ilubench.records.run_names import run_names
from ilubench.reports.figures.style import (
    BAND,
    CHANCE,
    COLOURS,
    DASHES,
    REFERENCE_COLOUR,
    drawing,
    new_figure,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ilubench.statistics import intervals
    from ilubench.statistics.row import RobustnessRow, StepFigures

__all__ = ["Line", "draw_attacks", "draw_courses", "lines_of"]

TITLES = {REFERENCE: ("none (original)", "-."), RETRAIN: ("retrain (never knew)", "--")}
INTERVALS = {"seeds-and-items": "seeds and items", "item-only": "items (one seed)"}
COLUMNS = 3
MOST_TICKS = 6


@dataclass(frozen=True)
class Line:
    """A model's row under the attacks, and how it is drawn.

    Attributes:
        title: in the legend.
        row: its figures.
        colour: of the line.
        dash: of the line.
        seen: attacks that its method trains on.
        reference: whether it is one, and has no band.
    """

    title: str
    row: RobustnessRow
    colour: str
    dash: str
    seen: tuple[str, ...] = ()
    reference: bool = False


def lines_of(runs: Sequence[FinishedRun], label: str) -> tuple[Line, ...]:
    """Return a line a run, and those of the references, from the first run where none is theirs.

    Raises:
        DataError: a run's samples do not have the metric.
    """
    styles = ((colour, dash) for dash in DASHES for colour in COLOURS)
    names = run_names(runs)
    found, references = [], {}
    for name, run in zip(names, runs, strict=True):
        method = run.record.method_name
        if label not in run.rows:
            continue
        if method in REFERENCES:
            references[method] = run.rows[label]
        else:
            colour, dash = next(styles, (COLOURS[0], "-"))
            found.append(Line(name, run.rows[label], colour, dash, run.record.seen))
    for method in REFERENCES:
        row = references.get(method) or runs[0].attacked(label, method)
        if row is not None:
            title, dash = TITLES[method]
            found.append(Line(title, row, REFERENCE_COLOUR, dash, reference=True))
    return tuple(found)


def draw_attacks(
    runs: Sequence[FinishedRun], *, metric: str = "", attacks: Sequence[str] = ()
) -> Figure:
    """Return a figure with a panel an attack: the forget metric against its steps, FA below.

    Args:
        runs: one line each; `none` and `retrain` are references, without a band.
        metric: label of a primary forget metric; the first if empty.
        attacks: those to show; all if empty.

    Raises:
        UsageError: runs that are not alike, or a metric or an attack that they do not have.
        DataError: no run was attacked.
    """
    labels = common_labels(runs)
    label = _known("metric", metric, labels) if metric else labels[0]
    names = runs[0].record.attacks
    shown = [_known("attack", name, names) for name in attacks] or names
    return draw_courses(lines_of(runs, label), label, shown, runs[0].record.suite)


def draw_courses(
    lines: Sequence[Line], label: str, attacks: Sequence[str], suite: str, *, fa: bool = True
) -> Figure:
    """Return a figure with a panel an attack.

    Args:
        lines: at least one.
        label: of the metric.
        attacks: the panels.
        suite: its name.
        fa: whether FA is shown below, where it was measured; it is the same for all metrics.
    """
    # a metric that an attack cannot be asked in has no course under it
    asked = [one for one in attacks if any(_drawn(line, one, "forget") for line in lines)]
    shown = asked or list(attacks)
    columns = min(COLUMNS, len(shown))
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    below = [fa and any(_drawn(line, one, "fa") for line in lines for one in row) for row in rows]
    heights = [height for has in below for height in ([2, 1] if has else [2])]
    with drawing():
        figure = new_figure(max(5, 2.5 * columns + 1), sum(heights) + 1.4)
        ratios = {"height_ratios": heights}
        grid = iter(figure.subplots(len(heights), columns, squeeze=False, gridspec_kw=ratios))
        for row, has in zip(rows, below, strict=True):
            panels = [next(grid) for _ in range(1 + has)]
            for column, mine in enumerate(zip(*panels, strict=True)):
                if column < len(row):
                    _draw_attack(mine, row[column], lines, first=column == 0)
                else:
                    for panel in mine:
                        panel.remove()
        entries = {
            title: line
            for panel in figure.axes
            for line, title in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper center",
            ncols=max(2, 2 * columns - 1),
            frameon=False,
        )
        figure.supylabel(f"{label} (higher = better forgotten)", fontsize=10)
        across = "levels" if all(_has_levels(lines, one) for one in shown) else "attack steps"
        figure.supxlabel(f"{across} on {suite}{_about_bands(lines)}", fontsize=10)
    return figure


# --- inside ---


def _known(what: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise UsageError(f"--{what} {name}: {did_you_mean(name, known)}")
    return name


def _about_bands(lines: Sequence[Line]) -> str:
    drawn = (line.row for line in lines if not line.reference)
    kinds = sorted({part.ra.kind for row in drawn for part in row.attacks} & INTERVALS.keys())
    over = " or ".join(INTERVALS[kind] for kind in kinds)
    return f"\nbands: 95 % intervals over {over}" if over else ""


def _draw_attack(
    panels: Sequence[Axes], attack: str, lines: Sequence[Line], *, first: bool
) -> None:
    upper, *lower = panels
    seen = [line.title for line in lines if attack in line.seen]
    upper.set_title(f"{attack} (seen by {', '.join(seen)})" if seen else attack, fontsize=10)
    upper.tick_params(labelleft=first)
    _draw_course(upper, attack, lines, "forget")
    for panel in lower:
        panel.set_ylabel("FA" if first else "", fontsize=9)
        _draw_course(panel, attack, lines, "fa")
        if not panel.lines:  # it has no such task
            panel.remove()
    if _has_levels(lines, attack):
        upper.set_xlabel("level", fontsize=9)


def _draw_course(
    panel: Axes, attack: str, lines: Sequence[Line], what: Literal["forget", "fa"]
) -> None:
    for line in lines:
        points = _drawn(line, attack, what)
        if not points:  # its jobs failed, or it has no such task
            continue
        steps = [point.step for point, _ in points]
        if _has_levels(lines, attack):
            names = [point.level or "none" for point, _ in points]
            panel.set_xticks(steps, names, rotation=30, ha="right", fontsize=8)
        elif len(points) <= MOST_TICKS:  # else as matplotlib likes
            panel.set_xticks(steps, [point.name for point, _ in points])
        value, low, high = (
            [getattr(figure, end) for _, figure in points] for end in ("value", "low", "high")
        )
        panel.plot(steps, value, color=line.colour, linestyle=line.dash, label=line.title)
        if not line.reference:
            panel.scatter(steps, value, s=9, color=line.colour)
            if None not in (*low, *high):
                panel.fill_between(steps, low, high, color=line.colour, alpha=BAND, linewidth=0)
    if what == "forget":
        chance = next(line.row.forget_chance for line in lines)
        panel.axhline(chance, color=CHANCE, linestyle=":", label="chance")
        if panel.dataLim.y0 >= 0 and panel.dataLim.y1 <= 1:  # a likelihood has no such ends
            panel.set_ylim(-0.03, 1.05)


def _has_levels(lines: Sequence[Line], attack: str) -> bool:
    """Whether an attack takes no steps."""
    courses = (part.steps for line in lines for part in line.row.attacks if part.attack == attack)
    return any(steps[-1].level for steps in courses)


def _drawn(line: Line, attack: str, what: str) -> list[tuple[StepFigures, intervals.Figure]]:
    return [
        (point, figure)
        for part in line.row.attacks
        if part.attack == attack
        for point in part.steps
        if (figure := getattr(point, what))
    ]
