"""The tables of a run's last screen, in as much detail as their place has room for."""

from collections.abc import Iterable, Mapping, Sequence

from ilubench.records.figure_text import figure_text
from ilubench.records.labels import RA, RA_CORE, RECOVERY, UTILITY_KEPT, WORST_CASE
from ilubench.records.results import RunRecord
from ilubench.reports.verdict_text import clipped, percent
from ilubench.specs import SuiteSpec
from ilubench.statistics.intervals import Figure
from ilubench.statistics.row import RobustnessRow, attacks_of
from ilubench.statistics.verdict import judge_rows

__all__ = ["BARS", "metrics_table", "recovery_table", "scores_table"]

BARS = "▁▂▃▄▅▆▇█"
"""Eighths, for outputs whose encoding has them."""

LABEL, LEAST_LABEL = 16, 12
SCORE = 36
ATTACK_SIZES = (99, 10, 6)
MOST_METRICS = 6
MOST_SCORES = 10

Rows = Mapping[str, RobustnessRow]


def metrics_table(rows: Rows, suite: SuiteSpec | None, width: int, height: int) -> list[str]:
    """Return a line a metric, below it how much of the utility is left."""
    most = max(1, min(MOST_METRICS, height - 3))
    chosen = set(list(judge_rows(rows))[:most])
    shown = {label: row for label, row in rows.items() if label in chosen}
    which = f", worst {len(shown)} of {len(rows)}" if len(shown) < len(rows) else ""
    lines = [f"higher = better forgotten [95% interval]{which}", *_figures(shown, width)]
    utility = next(iter(shown.values())).utility
    if utility.worst is None:
        return lines
    kept = f"{UTILITY_KEPT}: {figure_text(utility.kept[utility.worst])}"
    which = f"({suite.utility[utility.worst].label}, the lowest)" if suite is not None else ""
    return [*lines, clipped(f"{kept} {which}".rstrip(), width)]


def _figures(rows: Rows, width: int) -> list[str]:
    core = all(row.ra_core is not None and row.ra_core.value is not None for row in rows.values())
    ra = RA_CORE if core else RA
    # what goes first where there is no room: where the worst case is, recovery's interval, RA's
    for place, recovery, whole, name in (
        (99, True, True, LABEL),
        (6, True, True, LABEL),
        (99, False, True, LABEL),
        (6, False, True, LABEL),
        (0, False, True, LABEL),
        (99, False, False, LABEL),
        (0, False, False, LABEL),
        (0, False, False, LEAST_LABEL),
    ):
        cells = [["", "original", "unlearned", ra, WORST_CASE, RECOVERY]]
        for label, row in rows.items():
            at = clipped(row.worst_at[0], place) if row.worst_at is not None and place else ""
            under = row.ra_core if core else row.ra
            cells.append(
                [
                    clipped(label, name),
                    _value(row.forget_original),
                    _value(row.forget_unlearned),
                    figure_text(under) if whole and _value(under) != "-" else _value(under),
                    f"{_value(row.worst_case)} {at}".rstrip(),
                    percent(row.recovery, spread=recovery),
                ]
            )
        for gap in (2, 1):
            lines = _aligned(cells, gap, right=(1, 2))
            if max(map(len, lines)) <= width:
                return lines
    return lines


def recovery_table(
    rows: Rows, seen: Sequence[str], width: int, height: int, *, bars: bool
) -> list[str]:
    """Return recovery after each attack, and FA; what has no room is left out, the worst last.

    Args:
        rows: primary metric -> its row.
        seen: attacks that the method trains on; they are marked.
        width: columns.
        height: lines.
        bars: whether block characters can be shown.
    """
    corner = f"{RECOVERY}, %"
    attacks = attacks_of(rows)
    metrics = set(list(judge_rows(rows))[: height - 1])
    shown = {label: row for label, row in rows.items() if label in metrics}
    if not shown or height < 2:
        return []
    first = max(map(len, (corner, *(clipped(label, LABEL) for label in shown))))
    for size in ATTACK_SIZES:
        short = {name: clipped(name, size) for name in attacks}
        if len(set(short.values())) < len(short):  # names that cannot be told apart
            continue
        heads = {name: text + "*" * (name in seen) for name, text in short.items()}
        widths = [2 + max(6, len(head)) for head in heads.values()]
        if first + sum(widths) <= width:
            break
    recoveries = {
        label: {part.attack: part.recovery for part in row.attacks} for label, row in shown.items()
    }
    places, more = list(attacks), ""
    if first + sum(widths) > width:
        more = "  and {} more"
        room = (width - first - len(more)) // max(widths)
        worst = sorted(places, key=lambda name: -_most(recoveries.values(), name))
        places = [name for name in places if name in worst[: max(1, room)]]
        more = more.format(len(attacks) - len(places))
    cells = [[corner, *(heads[name] for name in places)]]
    for label, found in recoveries.items():
        bar = [_bar(found[name], bars=bars) if name in found else "-" for name in places]
        cells.append([clipped(label, LABEL), *bar])
    ends = [attacks[name].steps[-1].fa for name in places]
    if any(ends) and height > len(cells):
        cells.append(["FA at the end", *map(_value, ends)])
    head, *body = _aligned(cells, 2, right=range(1, len(places) + 1))
    return [head + more, *body]


def _most(recoveries: Iterable[Mapping[str, Figure]], attack: str) -> float:
    values = [found[attack].value for found in recoveries if attack in found]
    return max((value for value in values if value is not None), default=float("-inf"))


def _bar(recovery: Figure, *, bars: bool) -> str:
    text = percent(recovery, spread=False).removesuffix("%")
    eighths = round(8 * min(1.0, recovery.value or 0.0))
    bar = BARS[eighths - 1] if eighths > 0 else " "
    return f"{text} {bar}" if bars else text


def scores_table(record: RunRecord, suite: SuiteSpec | None) -> list[str]:
    """Return mean scores over the seeds on their own scales, the primary metrics first."""
    whose = {"reference": "original" if record.method else "the model", "method": "unlearned"}
    primary = {(spec.scorer, spec.metric) for spec in suite.primary_forget} if suite else set()
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for score in record.scores:
        if score.who in whose:
            by_model = found.setdefault((score.scorer, score.metric), {})
            by_model.setdefault(whose[score.who], []).append(score.value)
    heads = [head for head in whose.values() if any(head in by for by in found.values())]
    cells = [["score", *heads]]
    for name in sorted(found, key=lambda name: name not in primary)[:MOST_SCORES]:
        means = [sum(values) / len(values) for values in map(found[name].get, heads) if values]
        cells.append([clipped(".".join(name), SCORE), *(f"{mean:.3f}" for mean in means)])
    if not found:
        return []
    lines = _aligned(cells, 2, right=range(1, len(heads) + 1))
    more = len(found) - MOST_SCORES
    return [*lines, f"and {more} more scores"] if more > 0 else lines


def _value(figure: Figure | None) -> str:
    return "-" if figure is None or figure.value is None else f"{figure.value:.3f}"


def _aligned(cells: Sequence[Sequence[str]], gap: int, right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(size) if k in right else cell.ljust(size)
            for k, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * gap).join(parts).rstrip())
    return lines
