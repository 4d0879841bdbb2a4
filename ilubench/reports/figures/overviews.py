"""Several methods, or several attacks, in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ilubench.records.labels import FA_DIFFERENCE, RA, RA_CORE, RECOVERY, UTILITY_KEPT
from ilubench.reports.figures.style import CHANCE, INK, drawing, new_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ilubench.reports.figures.courses import Line
    from ilubench.statistics import intervals
    from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = ["draw_by_attack", "draw_costs", "draw_heatmap", "draw_tradeoff", "least_kept", "under"]

APART = (60.0, 9.0)
"""Points of width and height that a name takes."""

DARK = 0.6
"""Share of the scale from which on a cell's number is white."""


def least_kept(attack: AttackFigures) -> float | None:
    """Return the lowest forget metric at a checkpoint that keeps the utility; None: there is none.

    The bound is the worst case's: 90 % of the unlearned model's utility.
    """
    kept = [step.forget.value for step in attack.steps[1:] if step.eligible]
    return min((value for value in kept if value is not None), default=None)


def under(row: RobustnessRow) -> tuple[str, intervals.Figure]:
    """Return what a row is ranked by, and its name: RA over the core attacks, else over all."""
    if row.ra_core is not None and row.ra_core.value is not None:
        return RA_CORE, row.ra_core
    return RA, row.ra


def draw_heatmap(lines: Sequence[Line], label: str) -> Figure:
    """Return methods against attacks: the lowest forget metric that keeps the utility.

    Args:
        lines: in the order of the rows.
        label: of the metric.
    """
    attacks = list(dict.fromkeys(part.attack for line in lines for part in line.row.attacks))
    cells = np.full((len(lines), len(attacks)), np.nan)
    for place, line in enumerate(lines):
        for part in line.row.attacks:
            value = least_kept(part)
            cells[place, attacks.index(part.attack)] = np.nan if value is None else value
    with drawing():
        figure = new_figure(2.4 + 0.85 * len(attacks), 1.3 + 0.3 * len(lines))
        panel = figure.subplots()
        shown = panel.imshow(cells, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(cells):
            seen = attacks[column] in lines[row].seen
            text = "-" if np.isnan(value) else f"{value:.2f}{'*' if seen else ''}"
            ink = INK if np.isnan(value) else "white" if value < DARK else "black"
            panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
        panel.set_xticks(range(len(attacks)), attacks, rotation=30, ha="right")
        panel.set_yticks(range(len(lines)), [line.title for line in lines])
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        figure.colorbar(shown, ax=panel, label=f"lowest {label}", shrink=0.8)
    return figure


def draw_tradeoff(lines: Sequence[Line], label: str) -> Figure:
    """Return robustness against utility, with the methods that no other one beats in both."""
    names = dict.fromkeys(under(line.row)[0] for line in lines if not line.reference)
    with drawing():
        figure = new_figure(6, 4.2)
        panel = figure.subplots()
        points = []
        for line in lines:
            utility, robust = line.row.utility, under(line.row)[1]
            if utility.worst is None or robust.value is None:
                continue
            kept = utility.kept[utility.worst]
            if kept.value is None:
                continue
            _cross(panel, kept, robust, line)
            if not line.reference:
                points.append((kept.value, robust.value))
        front = _front(points)
        if front:
            panel.plot(*zip(*front, strict=True), color=CHANCE, linestyle=":", zorder=0)
        _part_names(panel)
        panel.set_xlabel(f"{UTILITY_KEPT} after unlearning (of the metric that kept least)")
        panel.set_ylabel(f"{' or '.join(names) or RA}, {label}")
    return figure


def draw_by_attack(lines: Sequence[Line], what: str) -> Figure:
    """Return each attack's recovery, or its FA difference, with intervals: a colour a method.

    Args:
        lines: the references are left out.
        what: `recovery` or `fa_difference`.
    """
    mine = [line for line in lines if not line.reference]
    attacks = list(dict.fromkeys(part.attack for line in mine for part in line.row.attacks))
    gap = 0.8 / max(1, len(mine))
    with drawing():
        figure = new_figure(6, 1.2 + len(attacks) * max(0.3, 0.16 * len(mine)))
        panel = figure.subplots()
        for place, line in enumerate(mine):
            offset = (place - (len(mine) - 1) / 2) * gap
            found = {attacks.index(part.attack): getattr(part, what) for part in line.row.attacks}
            _bars(panel, found, offset, line)
        panel.axvline(0, color=CHANCE, linewidth=1)
        if what == "recovery":
            panel.axvline(1, color=CHANCE, linestyle=":", linewidth=1)
        panel.set_yticks(range(len(attacks)), attacks)
        panel.invert_yaxis()
        told = {
            "recovery": f"{RECOVERY} at the end (0 stayed forgotten, 1 known as before)",
            "fa_difference": f"{FA_DIFFERENCE} at the end (below 0: its user gets less)",
        }
        panel.set_xlabel(told[what])
        if len(mine) > 1:
            figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def draw_costs(
    lines: Sequence[Line], seconds: Callable[[Line], float | None], label: str
) -> Figure | None:
    """Return robustness against the seconds that unlearning took; None where nobody tells them."""
    timed = [(line, seconds(line)) for line in lines if not line.reference]
    points = [(line, took) for line, took in timed if took]
    if not points:
        return None
    with drawing():
        figure = new_figure(6, 4)
        panel = figure.subplots()
        for line, took in points:
            robust = under(line.row)[1]
            if robust.value is not None:
                _point(panel, took, robust.value, line, None, robust)
        panel.set_xscale("log")
        _part_names(panel)
        panel.set_xlabel("seconds of unlearning, a seed (on the machine of the run)")
        panel.set_ylabel(f"{under(points[0][0].row)[0]}, {label}")
    return figure


# --- inside ---


def _cross(panel: Axes, x: intervals.Figure, y: intervals.Figure, line: Line) -> None:
    assert x.value is not None
    assert y.value is not None
    _point(panel, x.value, y.value, line, x, y)


def _point(
    panel: Axes,
    x: float,
    y: float,
    line: Line,
    x_figure: intervals.Figure | None = None,
    y_figure: intervals.Figure | None = None,
) -> None:
    panel.errorbar(
        [x],
        [y],
        xerr=_ends(x_figure),
        yerr=_ends(y_figure),
        fmt="D" if line.reference else "o",
        color=line.colour,
        markersize=5,
        elinewidth=1,
        alpha=0.9,
    )
    panel.annotate(line.title, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)


def _part_names(panel: Axes) -> None:
    """Move the names of points that lie on each other up, until each can be read."""
    placed: list[tuple[float, float]] = []
    for name in sorted(panel.texts, key=lambda text: text.xy[1]):  # type: ignore[attr-defined]
        x, y = panel.transData.transform(name.xy)  # type: ignore[attr-defined]
        up = 4.0
        while any(abs(x - a) < APART[0] and abs(y + up - b) < APART[1] for a, b in placed):
            up += APART[1]
        name.set_position((5, up))
        placed.append((x, y + up))


def _ends(figure: intervals.Figure | None) -> list[list[float]] | None:
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return None
    return [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]


def _bars(panel: Axes, shown: Mapping[int, intervals.Figure], offset: float, line: Line) -> None:
    label = line.title
    for place, figure in shown.items():
        if figure.value is None:
            continue
        panel.errorbar(
            [figure.value],
            [place + offset],
            xerr=_ends(figure),
            fmt="o",
            color=line.colour,
            markersize=4,
            elinewidth=1.2,
            label=label,
        )
        label = "_"  # one entry in the legend


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one is above in both, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front[::-1]
