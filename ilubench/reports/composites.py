"""Composites, numbers of whole models, as text and tables."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from ilubench.records.finished import FinishedRun
from ilubench.records.markdown import cell
from ilubench.records.markdown import table as markdown_table
from ilubench.records.results import CompositeScore, RunRecord
from ilubench.reports.verdict_text import clipped

__all__ = [
    "compared_composites",
    "composite_lines",
    "composite_table",
    "composite_text",
    "kind_text",
]


def composite_text(score: CompositeScore | None) -> str:
    """Return a composite with its interval, a p-value with two digits; `-` for none."""
    if score is None:
        return "-"
    if score.kind == "ks":
        return f"{score.value:.2g}"
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def kind_text(kind: str) -> str:
    """Return what a composite is, in a few words."""
    if kind == "ks":
        return "p-value against the retrained model, without an interval; higher = more like it"
    return "harmonic mean; higher = keeps more"


def composite_table(scores: Sequence[CompositeScore], reference: str) -> Table:
    """Return a line a model and checkpoint, a column a composite."""
    kinds = {score.label: score.kind for score in scores}
    told = "; ".join(f"{label}: {kind_text(kind)}" for label, kind in kinds.items())
    table = Table(title=told, title_justify="left")
    for name in ("model", "attack", "step", *kinds):
        table.add_column(name)
    found: dict[tuple[str, str, int, str], dict[str, CompositeScore]] = {}
    for score in scores:
        place = (score.who, score.attack, score.step, score.level)
        found.setdefault(place, {})[score.label] = score
    names = {"reference": reference, "retrain": "retrained", "method": "unlearned"}
    for (who, attack, step, level), own in found.items():
        cells = (composite_text(own.get(label)) for label in kinds)
        table.add_row(names[who], attack, (level or str(step)) if attack else "", *cells)
    return table


def composite_lines(record: RunRecord, width: int) -> list[str]:
    """Return a line a composite: of the models before any attack, without intervals."""
    whose = {
        "reference": "original" if record.attacks else "the model",
        "method": "unlearned",
        "retrain": "retrained",
    }
    found: dict[str, list[str]] = {}
    for one in record.composites:
        if not one.attack:
            plain = one.model_copy(update={"low": None, "high": None})
            found.setdefault(one.label, []).append(f"{whose[one.who]} {composite_text(plain)}")
    return [clipped(f"{label}: {', '.join(own)}", width) for label, own in found.items()]


def compared_composites(runs: Mapping[str, FinishedRun]) -> Iterator[str]:
    """Yield title and Markdown table of runs' composites before any attack; nothing without."""
    found: dict[str, dict[str, CompositeScore]] = {}
    for name, run in runs.items():
        whose = "method" if any(one.who == "method" for one in run.composites) else "reference"
        own = [one for one in run.composites if one.who == whose and not one.attack]
        found[name] = {one.label: one for one in own}
    kinds = {one.label: one.kind for own in found.values() for one in own.values()}
    if kinds:
        told = "; ".join(f"{cell(label)}: {kind_text(kind)}" for label, kind in kinds.items())
        yield f"**Whole models, before any attack.** {told}"
        body = [
            [cell(name), *(composite_text(own.get(label)) for label in kinds)]
            for name, own in found.items()
        ]
        yield markdown_table(["method", *map(cell, kinds)], body)
