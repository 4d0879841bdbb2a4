"""A run's result as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ilubench.records.chance import chance_text, with_chances
from ilubench.records.figure_text import figure_text
from ilubench.records.labels import (
    AREA,
    BEYOND_CONTROL,
    FA_DIFFERENCE,
    HALF_LIFE,
    NEVER_KNEW,
    RA,
    RA_CORE,
    RECOVERY,
    WORST_CASE,
    name_ra,
)
from ilubench.records.results import ModelScore, RunRecord
from ilubench.reports.composites import composite_table
from ilubench.reports.trials import trial_table
from ilubench.specs import FineTuningAccuracySpec, MetricSpec, SuiteSpec
from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = ["run_report"]


def _heading(spec: MetricSpec | FineTuningAccuracySpec) -> str:
    """Return a metric's label; figures are so turned that higher is better."""
    return spec.label if spec.direction == "higher" else f"{spec.label} (negated)"


def _course_table(
    label: str,
    row: RobustnessRow,
    beside: RobustnessRow | None,
    suite: SuiteSpec,
    fa_label: str,
) -> Table:
    original = {
        (attack.attack, step.name): (figure_text(step.forget), figure_text(step.fa))
        for attack in (beside.attacks if beside is not None else ())
        for step in attack.steps
    }
    table = Table(title=f"{label}: higher = better forgotten", title_justify="left")
    table.add_column("model")
    table.add_column("step", justify="right")
    table.add_column(label)
    for metric in suite.utility:
        table.add_column(f"utility {_heading(metric)}")
    table.add_column(fa_label)
    for name in (label, fa_label) if original else ():
        table.add_column(f"original: {name}")
    utility = row.utility
    table.add_row(
        "original", "", figure_text(row.forget_original), *map(figure_text, utility.original), "-"
    )
    table.add_row(
        "unlearned",
        "",
        figure_text(row.forget_unlearned),
        *map(figure_text, utility.unlearned),
        "-",
    )
    for attack in row.attacks:
        table.add_section()
        for step in attack.steps:
            table.add_row(
                attack.attack,
                step.name,
                figure_text(step.forget),
                *map(figure_text, step.utility),
                figure_text(step.fa),
                *(original.get((attack.attack, step.name), ("-", "-")) if original else ()),
            )
    return table


def _figures(row: RobustnessRow) -> Iterator[tuple[str, str]]:
    yield name_ra(row.ra_attacks), figure_text(row.ra)
    if row.ra_core is not None:
        yield f"{RA_CORE} over {{{', '.join(row.ra_core_attacks)}}}", figure_text(row.ra_core)
    yield WORST_CASE, figure_text(row.worst_case) + _worst_at(row)
    yield f"{RECOVERY}, mean of attacks", figure_text(row.recovery)


def _worst_at(row: RobustnessRow) -> str:
    """Where the worst case is, in brackets."""
    if row.worst_at is None:
        return ""
    name, place = row.worst_at
    levels = {(a.attack, s.step): s.level for a in row.attacks for s in a.steps}
    return f" (at {name}, {levels.get(row.worst_at) or f'step {place}'})"


def _summary_table(label: str, row: RobustnessRow) -> Table:
    table = Table(title=f"{label}: robustness", title_justify="left", show_header=False)
    table.add_column("figure")
    table.add_column("value")
    for name, value in _figures(row):
        table.add_row(name, value)
    table.add_row("status", row.status)
    return table


def _attack_table(label: str, attacks: tuple[AttackFigures, ...], seen: tuple[str, ...]) -> Table:
    title = f"{label}: by attack (recovery 0 = stayed forgotten, 1 = known as before)"
    table = Table(title=title, title_justify="left")
    for name in ("attack", RA, RECOVERY, f"{HALF_LIFE} (steps)", AREA, FA_DIFFERENCE):
        table.add_column(name)
    beside = {NEVER_KNEW: "never_knew", BEYOND_CONTROL: "beyond_control"}
    beside = {k: name for k, name in beside.items() if any(getattr(a, name) for a in attacks)}
    for heading in beside:
        table.add_column(heading)
    for attack in attacks:
        table.add_row(
            attack.attack + (" (seen)" if attack.attack in seen else ""),
            figure_text(attack.ra),
            figure_text(attack.recovery),
            figure_text(attack.half_life, 0),
            figure_text(attack.area),
            figure_text(attack.fa_difference),
            *(figure_text(getattr(attack, name)) for name in beside.values()),
        )
    return table


def _score_table(scores: tuple[ModelScore, ...], reference: str, suite: SuiteSpec | None) -> Table:
    shown = f" in {suite.scored_in}" if suite else ""
    title = f"Scores{shown} (raw scale, +- standard error over items)"
    table = Table(title=title, title_justify="left")
    for name in ("scorer", "metric", "model", "seed", "value", "chance", "items"):
        table.add_column(name)
    names = {"reference": reference, "retrain": "retrained", "method": "unlearned"}
    names["untouched"] = "untouched"
    levels = {(s.scorer, s.metric): s.value for s in scores if s.who == "untouched"}
    suite = suite and with_chances(suite, levels)
    for score in scores:
        spread = f" +- {score.se:.4f}" if score.se is not None else ""
        value = f"{score.value:.4f}{spread}"
        spec = suite.metric_of(score.scorer, score.metric) if suite else None
        who, seed, items = names[score.who], str(score.seed), str(score.n)
        table.add_row(score.scorer, score.metric, who, seed, value, chance_text(score, spec), items)
    return table


def run_report(
    record: RunRecord,
    rows: Mapping[str, RobustnessRow],
    suite: SuiteSpec | None,
    beside: Mapping[str, RobustnessRow | None] | None = None,
) -> RenderableType:
    """Return the tables of a run, one group a primary metric, its failures and notes.

    Args:
        record: the run's.
        rows: primary metric -> its row.
        suite: what was measured; None where nobody can tell, then scores are shown alone.
        beside: primary metric -> the original's row under the same attacks.
    """
    parts: list[RenderableType] = []
    if rows:
        parts.append(Text(f"engine {record.engine}, weights in {record.dtype}"))
    # `ilubench score MODEL` measures a model that may be anything but the original
    reference = "original" if record.attacks else "the model"
    if record.composites:
        parts.append(composite_table(record.composites, reference))
    if record.scores and not (rows and suite):
        parts.append(_score_table(record.scores, reference, suite))
    for label, row in rows.items():
        if suite is None:
            break
        original = (beside or {}).get(label)
        fa_label = _fa_label(suite, record.attacks)
        parts.append(_course_table(label, row, original, suite, fa_label))
        if row.attacks:
            parts.append(_attack_table(label, row.attacks, record.seen))
            found = (trial_table(label, attack, record) for attack in row.attacks)
            parts += [table for table in found if table is not None]
            parts.append(_summary_table(label, row))
    failed = [f"failed: {failure.label}: {failure.message}" for failure in record.failures]
    notes = [f"Note: {note}" for note in record.notes]
    return Group(*parts, *map(Text, (*failed, *notes)), "")


def _fa_label(suite: SuiteSpec, attacks: Sequence[str]) -> str:
    specs = [suite.attacks[name].fa for name in attacks]
    labels = {_heading(spec) for spec in specs if spec is not None}
    return labels.pop() if len(labels) == 1 else "FA"
