"""Finished runs as a figure: the forget metric along each attack, one line a method."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ilubench.errors import UsageError, did_you_mean
from ilubench.records.comparing import common_labels
from ilubench.records.finished import REFERENCES, FinishedRun
from ilubench.records.results import REFERENCE, RETRAIN, RunRecord
from ilubench.records.run_names import run_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ilubench.statistics.row import RobustnessRow

    Rows = Mapping[str, tuple[RunRecord, RobustnessRow]]  # by the name in the legend

__all__ = ["draw_attacks", "save_figure"]

# what each format would write of the day, left out so that equal runs give equal files
UNDATED: Mapping[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
    ".png": {},
}
# Okabe & Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")
TITLES = {REFERENCE: ("none (original)", "-."), RETRAIN: ("retrain (never knew)", "--")}
INTERVALS = {"seeds-and-items": "seeds and items", "item-only": "items (one seed)"}
COLUMNS = 3
MOST_TICKS = 6


def draw_attacks(
    runs: Sequence[FinishedRun], *, metric: str = "", attacks: Sequence[str] = ()
) -> Figure:
    """Return a figure with one panel an attack: the forget metric against the attack's steps.

    Args:
        runs: one line each; `none` and `retrain` are drawn as references, without a band.
        metric: label of a primary forget metric; the first if empty.
        attacks: those to show; all if empty.

    Raises:
        UsageError: runs that are not alike, or a metric or an attack that they do not have.
        DataError: no run was attacked.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labels = common_labels(runs)
    label = _known("metric", metric, labels) if metric else labels[0]
    names = runs[0].record.attacks
    shown = [_known("attack", name, names) for name in attacks] or names
    named = zip(run_names([run.record for run in runs]), runs, strict=True)
    rows = {name: (run.record, run.rows[label]) for name, run in named if label in run.rows}
    columns = min(COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(5, 2.5 * columns + 1), 2 * lines + 1.4), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for panel, attack in zip(panels, shown, strict=False):
            _draw_panel(panel, attack, rows)
        for panel in panels[len(shown) :]:
            panel.remove()
        entries = {
            title: line
            for panel in panels[: len(shown)]
            for line, title in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper center",
            ncols=max(2, 2 * columns - 1),
            frameon=False,
        )
        figure.supylabel(f"{label} (1 = forgotten)", fontsize=10)
        figure.supxlabel(f"attack steps on {runs[0].record.suite}{_about_bands(rows)}", fontsize=10)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure; the same figure gives the same bytes.

    Raises:
        UsageError: a file that cannot be written, or whose name ends in no known format.
    """
    import matplotlib as mpl

    if out.suffix not in UNDATED:
        raise UsageError(f"--out {out}: must end in {', '.join(UNDATED)}")
    with mpl.rc_context({"svg.hashsalt": "ilubench"}):
        figure.savefig(out, metadata=UNDATED[out.suffix], dpi=150, facecolor="white")


def _known(what: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise UsageError(f"--{what} {name}: {did_you_mean(name, known)}")
    return name


def _about_bands(rows: Rows) -> str:
    drawn = (row for record, row in rows.values() if record.method_name not in REFERENCES)
    kinds = sorted({part.ra.kind for row in drawn for part in row.attacks} & INTERVALS.keys())
    over = " or ".join(INTERVALS[kind] for kind in kinds)
    return f"\nbands: 95 % intervals over {over}" if over else ""


def _draw_panel(panel: Axes, attack: str, rows: Rows) -> None:
    styles = iter((colour, dash) for dash in DASHES for colour in COLOURS)
    for name, (record, row) in rows.items():
        method = record.method_name
        if method in REFERENCES:
            colour, (title, dash) = "#444444", TITLES[method]
        else:
            (colour, dash), title = next(styles), name
        points = [point for part in row.attacks if part.attack == attack for point in part.steps]
        if not points:  # its jobs failed
            continue
        steps = [point.step for point in points]
        if len(points) <= MOST_TICKS:  # else as matplotlib likes
            panel.set_xticks(steps, [point.name for point in points])
        value, low, high = (
            [getattr(point.forget, end) for point in points] for end in ("value", "low", "high")
        )
        panel.plot(steps, value, color=colour, linestyle=dash, label=title)
        if method not in REFERENCES:
            panel.scatter(steps, value, s=9, color=colour)
            panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    chance = next(row.forget_chance for _, row in rows.values())
    panel.axhline(chance, color="#999999", linestyle=":", label="chance")
    seen = [name for name, (record, _) in rows.items() if attack in record.seen]
    panel.set_title(f"{attack} (seen by {', '.join(seen)})" if seen else attack, fontsize=10)
    panel.set_ylim(-0.03, 1.05)
