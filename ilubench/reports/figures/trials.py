"""What an attacker who tunes had reached after each trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ilubench.reports.figures.style import BAND, drawing, new_figure
from ilubench.statistics.row import KEPT_UTILITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from ilubench.reports.figures.courses import Line

__all__ = ["draw_trials", "tuned_attacks"]


def tuned_attacks(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return the attacks that tune."""
    tuned = (part.attack for line in lines for part in line.row.attacks if part.trials)
    return tuple(dict.fromkeys(tuned))


def draw_trials(lines: Sequence[Line], label: str) -> Figure:
    """Return the best so far against the number of trials, a panel an attack that tunes.

    Args:
        lines: at least one of which an attack tunes.
        label: of the metric.
    """
    attacks = tuned_attacks(lines)
    with drawing():
        figure = new_figure(3 + 3 * len(attacks), 3.4)
        (panels,) = figure.subplots(1, len(attacks), squeeze=False, sharey=True)
        for panel, attack in zip(panels, attacks, strict=True):
            for line in lines:
                found = [p.trials for p in line.row.attacks if p.attack == attack and p.trials]
                best = list(enumerate(found[0].best_so_far, start=1)) if found else []
                shown = [(number, one) for number, one in best if one.value is not None]
                numbers = [number for number, _ in shown]
                value, low, high = (
                    [getattr(one, end) for _, one in shown] for end in ("value", "low", "high")
                )
                style = {"color": line.colour, "linestyle": line.dash, "label": line.title}
                panel.plot(numbers, value, drawstyle="steps-post", marker=".", **style)
                if not line.reference and None not in (*low, *high):
                    band = {"color": line.colour, "alpha": BAND, "linewidth": 0}
                    panel.fill_between(numbers, low, high, step="post", **band)
            panel.set_title(attack, fontsize=10)
            panel.set_xlabel("trials")
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[0].set_ylabel(f"lowest {label} so far\n(keeps {KEPT_UTILITY:.0%} of the utility)")
        entries = panels[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside upper center", ncols=3, frameon=False)
    return figure
