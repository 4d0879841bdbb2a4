"""Several methods, or several attacks, in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ilubench.records.labels import FA_DIFFERENCE, RA, RA_CORE, RECOVERY, UTILITY_KEPT
from ilubench.reports.figures.style import CHANCE, INK, drawing, new_figure
from ilubench.statistics import intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ilubench.reports.figures.courses import Line
    from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = [
    "draw_by_attack",
    "draw_costs",
    "draw_heatmap",
    "draw_tradeoff",
    "heatmap_scale",
    "least_kept",
    "under",
]

LETTER, HIGH = 5.5, 11.0
"""Pixels that a name takes: each letter's width, and its height."""

MANY = 8
"""Points from which on names would cover each other."""

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
        names = 0.08 * max(len(line.title) for line in lines)
        figure = new_figure(1.4 + names + 0.7 * len(attacks), 1.3 + 0.3 * len(lines))
        panel = figure.subplots()
        low, high = heatmap_scale(cells)
        shown = panel.imshow(cells, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(cells):
            seen = attacks[column] in lines[row].seen
            text = "-" if np.isnan(value) else f"{value:.2f}{'*' if seen else ''}"
            dark = value < low + DARK * (high - low)
            ink = INK if np.isnan(value) else "white" if dark else "black"
            panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=9)
        panel.set_xticks(range(len(attacks)), attacks, rotation=30, ha="right")
        panel.set_yticks(range(len(lines)), [line.title for line in lines])
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        told = {
            "* the method trains on it": any(set(attacks) & set(line.seen) for line in lines),
            "- no checkpoint keeps the utility": bool(np.isnan(cells).any()),
        }
        panel.set_xlabel("    ".join(text for text, needed in told.items() if needed), fontsize=8)
        figure.colorbar(shown, ax=panel, label=f"lowest {label}", shrink=0.8)
    return figure


def heatmap_scale(cells: NDArray[np.float64]) -> tuple[float, float]:
    """Return 0 and 1, or the ends of values that lie beyond, such as likelihoods."""
    known = cells[np.isfinite(cells)]
    beyond = known.size and (known.min() < 0 or known.max() > 1)
    return (float(known.min()), float(known.max())) if beyond else (0.0, 1.0)


def draw_tradeoff(lines: Sequence[Line], label: str) -> Figure | None:
    """Return robustness against utility, with the methods that no other one beats in both.

    None where no line has both figures.
    """
    points = []
    for line in lines:
        worst, robust = line.row.utility.worst, under(line.row)[1]
        kept = None if worst is None else line.row.utility.kept[worst]
        if kept is not None and kept.value is not None and robust.value is not None:
            points.append((line, kept, robust))
    told = f"{UTILITY_KEPT} after unlearning (of the metric that kept least)"
    return _scatter(points, told, label) if points else None


def draw_by_attack(lines: Sequence[Line], what: str) -> Figure:
    """Return each attack's recovery, or its FA difference, with intervals: a colour a method.

    Args:
        lines: the references are left out.
        what: `recovery` or `fa_difference`.
    """
    mine = [line for line in lines if not line.reference]
    known: list[dict[str, intervals.Figure]] = []
    for line in mine:
        found = {part.attack: getattr(part, what) for part in line.row.attacks}
        known.append({name: figure for name, figure in found.items() if figure.value is not None})
    attacks = list(dict.fromkeys(name for one in known for name in one))
    gap = 0.8 / max(1, len(mine))
    with drawing():
        figure = new_figure(6, 1.2 + len(attacks) * max(0.3, 0.16 * len(mine)))
        panel = figure.subplots()
        for place, (line, one) in enumerate(zip(mine, known, strict=True)):
            offset = (place - (len(mine) - 1) / 2) * gap
            _bars(panel, {attacks.index(name): one[name] for name in one}, offset, line)
        panel.axvline(0, color=CHANCE, linewidth=1)
        if what == "recovery":
            panel.axvline(1, color=CHANCE, linestyle=":", linewidth=1)
            # an interval that is wider than all else is cut, with an arrow: the table has its ends
            ends = [figure.value for one in known for figure in one.values()]
            shown = [0.0, 1.0, *(end for end in ends if end is not None)]
            panel.set_xlim(min(shown) - 0.5, max(shown) + 0.5)
            _mark_cut(panel)
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
    points = []
    for line in lines:
        took, robust = seconds(line), under(line.row)[1]
        if took and not line.reference and robust.value is not None:
            time = intervals.Figure(took, None, None, 1, 1, "none")
            points.append((line, time, robust))
    told = "seconds of unlearning, a seed (on the machine of the run)"
    return _scatter(points, told, label, log=True) if points else None


# --- inside ---


def _scatter(
    points: Sequence[tuple[Line, intervals.Figure, intervals.Figure]],
    across: str,
    label: str,
    *,
    log: bool = False,
) -> Figure:
    """Robustness against something, each point with its name; of many, with its number."""
    many = len(points) > MANY
    names = dict.fromkeys(under(line.row)[0] for line, _, _ in points if not line.reference)
    from matplotlib.ticker import LogFormatter

    with drawing():
        figure = new_figure(9 if many else 6, 4.6)
        panel = figure.subplots()
        for place, (line, x, y) in enumerate(points, start=1):
            name = str(place) if many else line.title
            _draw_point(panel, x, y, line, f"{place} {line.title}" if many else name)
            panel.annotate(
                name, (x.value, y.value), xytext=(5, 4), textcoords="offset points", fontsize=8
            )
        if log:
            panel.set_xscale("log", subs=(2, 3, 5))
            # the usual one writes powers as mathematics, which the style takes as they stand
            panel.xaxis.set_major_formatter(LogFormatter())
            panel.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(4, 2)))
        else:
            # an interval that is wider than all else is cut: the table has its ends
            values = [x.value for _, x, _ in points if x.value is not None]
            panel.set_xlim(min(values) - 0.05, max(values) + 0.05)
            front = _front([(x.value, y.value) for line, x, y in points if not line.reference])
            panel.plot([x for x, _ in front], [y for _, y in front], color=CHANCE, linestyle=":")
        _part_names(panel)
        panel.set_xlabel(across)
        panel.set_ylabel(f"{' or '.join(names) or RA}, {label}")
        if many:
            figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def _draw_point(
    panel: Axes, x: intervals.Figure, y: intervals.Figure, line: Line, title: str
) -> None:
    assert x.value is not None
    assert y.value is not None
    panel.errorbar(
        [x.value],
        [y.value],
        xerr=_ends(x),
        yerr=_ends(y),
        fmt="D" if line.reference else "o",
        color=line.colour,
        markersize=5,
        elinewidth=1,
        alpha=0.9,
        label=title,
    )


def _part_names(panel: Axes) -> None:
    """Move the names of points that lie on each other up, until each can be read."""
    from matplotlib.text import Annotation

    placed: list[tuple[float, float, float]] = []
    names = [one for one in panel.texts if isinstance(one, Annotation)]
    for name in sorted(names, key=lambda one: one.xy[1]):
        x, y = panel.transData.transform(name.xy)
        up, wide = 4.0, LETTER * (1 + len(name.get_text()))
        while any(-wide < x - a < w and abs(y + up - b) < HIGH for a, b, w in placed):
            up += HIGH
        name.set_position((5, up))
        placed.append((x, y + up, wide))


def _ends(figure: intervals.Figure | None) -> list[list[float]] | None:
    if figure is None or figure.value is None or figure.low is None or figure.high is None:
        return None
    return [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]


def _bars(panel: Axes, shown: Mapping[int, intervals.Figure], offset: float, line: Line) -> None:
    label = line.title
    for place, figure in shown.items():
        assert figure.value is not None
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


def _mark_cut(panel: Axes) -> None:
    """Put an arrow at the edge where an interval goes beyond it."""
    left, right = panel.get_xlim()
    for bar in panel.containers:
        for line in bar[2]:
            for (low, place), (high, _) in line.get_segments():
                for edge, arrow, beyond in ((left, "<", low < left), (right, ">", high > right)):
                    if beyond:
                        panel.plot(edge, place, arrow, color=line.get_color(), clip_on=False)


def _front(
    points: Sequence[tuple[float | None, float | None]],
) -> list[tuple[float, float]]:
    """The points that no other one is above in both, from left to right."""
    front: list[tuple[float, float]] = []
    known = {(x, y) for x, y in points if x is not None and y is not None}
    for x, y in sorted(known, reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front[::-1]
