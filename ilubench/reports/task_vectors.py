"""The cosines of a run's task vectors as text, and as a figure."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Protocol

from ilubench.records.markdown import cell, table
from ilubench.reports.figures.style import CHANCE, COLOURS, drawing, new_figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

__all__ = ["PUBLISHED", "draw_cosines", "vectors_text"]

PUBLISHED = {
    "NPO": (-0.92, -0.41, 0.16),
    "ILU": (-0.64, 0.09, 0.36),
}
"""WMDP on Zephyr-7B-beta, whole model (ILU paper, from reading notes: not checked with the PDF)."""

WHOLE = "model"


class _Cosines(Protocol):  # `ilubench.runs.task_vectors.Cosines`, which needs torch
    @property
    def attack(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def values(self) -> tuple[float | None, ...]: ...


def vectors_text(found: Sequence[_Cosines], pairs: Sequence[str]) -> str:
    """Return the cosines as Markdown: means over seeds, and their range where there are several.

    Args:
        found: of a run.
        pairs: what each cosine is of.
    """
    blocks = []
    for title, parts in (
        ("Whole model", [WHOLE]),
        ("By layer", _layers(found)),
        ("By kind of module", _kinds(found)),
    ):
        rows = [
            [cell(attack), cell(part), *_cells(found, attack, part)]
            for part in parts
            for attack in dict.fromkeys(one.attack for one in found)
        ]
        if title == "Whole model":
            rows += [
                [f"published: {name}", WHOLE, *(f"{value:.2f}" for value in values)]
                for name, values in PUBLISHED.items()
            ]
        blocks.append(f"{title}\n\n{table(['attack', 'part', *map(cell, pairs)], rows)}")
    blocks.append(
        "tau_u: unlearned - original; tau_ft: the original after the attack - original; tau_u->ft: "
        "the unlearned model after the attack - unlearned. Means over seeds, lowest and highest in "
        "brackets. The published ones are of WMDP on Zephyr-7B-beta, from reading notes of the ILU "
        "paper: an unverified transcription."
    )
    return "\n\n".join(blocks)


def draw_cosines(found: Sequence[_Cosines], pairs: Sequence[str]) -> Figure:
    """Return a figure: each cosine by layer, a line an attack, means over seeds."""
    layers = _layers(found)
    attacks = list(dict.fromkeys(one.attack for one in found))
    with drawing():
        figure = new_figure(3 * len(pairs), 3)
        for place, panel in enumerate(figure.subplots(1, len(pairs), sharey=True)):
            for k, attack in enumerate(attacks):
                values = [_mean(_values(found, attack, part, place)) for part in layers]
                xs = [x for x, value in enumerate(values) if value is not None]
                ys = [value for value in values if value is not None]
                panel.plot(xs, ys, color=COLOURS[k % len(COLOURS)], label=attack, marker=".")
            panel.axhline(0, color=CHANCE, linewidth=1)
            panel.set_title(f"cos({pairs[place]})", fontsize=10)
            panel.set_xlabel("layer")
            panel.set_ylim(-1.05, 1.05)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)
    return figure


# --- inside ---


def _layers(found: Sequence[_Cosines]) -> list[str]:
    numbers = {int(m[1]) for one in found if (m := re.fullmatch(r"layer (\d+)", one.part))}
    return [f"layer {number}" for number in sorted(numbers)]


def _kinds(found: Sequence[_Cosines]) -> list[str]:
    layers = {WHOLE, *_layers(found)}
    return list(dict.fromkeys(one.part for one in found if one.part not in layers))


def _values(found: Sequence[_Cosines], attack: str, part: str, place: int) -> list[float]:
    mine = (one.values[place] for one in found if (one.attack, one.part) == (attack, part))
    return [value for value in mine if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _cells(found: Sequence[_Cosines], attack: str, part: str) -> Iterator[str]:
    for place in range(3):
        values = _values(found, attack, part, place)
        if not values:
            yield "-"
        elif len(values) == 1:
            yield f"{values[0]:.3f}"
        else:
            yield f"{statistics.fmean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"
