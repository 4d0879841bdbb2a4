"""The page of finished runs: what is on it, and its HTML.

Strangers' words are on it: the template escapes all of them, the page has no script, and a
Content-Security-Policy lets it load nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ilubench.records.columns import rank_range
from ilubench.records.comparing import common_labels
from ilubench.records.figure_text import figure_text, format_duration
from ilubench.records.finished import FinishedRun
from ilubench.records.labels import (
    FA_DIFFERENCE,
    HALF_LIFE,
    NEVER_KNEW,
    RA,
    RECOVERY,
    UTILITY_KEPT,
    WORST_CASE,
)
from ilubench.records.results import RunRecord
from ilubench.records.run_names import run_names
from ilubench.records.store import write_atomic
from ilubench.records.wording import note_text, table_note_texts
from ilubench.reports.composites import composite_text, kind_text
from ilubench.reports.figures.courses import Line, draw_courses, lines_of
from ilubench.reports.figures.overviews import (
    draw_by_attack,
    draw_costs,
    draw_heatmap,
    draw_tradeoff,
    under,
)
from ilubench.reports.figures.style import figure_svg, save_figure
from ilubench.reports.figures.trials import draw_trials, tuned_attacks
from ilubench.reports.item_changes import Changes, changes_of
from ilubench.reports.ranking import rank_runs
from ilubench.reports.trials import trial_lines
from ilubench.reports.verdict_text import verdict_text
from ilubench.specs import SuiteSpec
from ilubench.specs.untrusted import printable
from ilubench.statistics.row import KEPT_UTILITY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "read_report", "render_report", "save_figures", "write_report"]

SHOWN_ITEMS = 12
LONGEST_TEXT = 400
MANY = 8
"""Methods from which on lines cannot be told apart: only overviews are drawn."""


@dataclass(frozen=True)
class Table:
    """A table of words.

    Attributes:
        head: of the columns.
        rows: their cells; the first is the row's name.
        notes: below it.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A figure, what it shows, and the name of its file."""

    name: str
    caption: str
    figure: "Figure"

    @property
    def svg(self) -> str:
        """An `<svg>` element."""
        return figure_svg(self.figure, self.name)


@dataclass(frozen=True)
class Part:
    """What is shown of one primary metric."""

    label: str
    table: Table
    pictures: tuple[Picture, ...]
    by_attack: Table | None
    changes: tuple[Changes, ...]


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        title: what it is on.
        facts: in a line: seeds, attacks, engine.
        verdicts: run -> the sentence that says what happened.
        parts: one a primary metric.
        notes: what is unusual.
        composites: numbers of whole models.
        scores: of models before any attack, on their own scales.
        data: rows that were read, with their licences.
        told: name -> text of configurations and environments.
    """

    title: str
    facts: str
    verdicts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    composites: Table | None
    scores: Table
    data: Table | None
    told: tuple[tuple[str, str], ...]


def read_report(runs: Sequence[FinishedRun]) -> Report:
    """Return what the page of finished runs shows; the figures are drawn.

    Raises:
        UsageError: the runs are not alike; names two of them.
        DataError: a record says otherwise than its samples.
    """
    first = runs[0]
    for run in runs:
        run.check_scores()
    labels = common_labels(runs) if any(run.rows for run in runs) else ()
    names = run_names(runs)
    verdicts = [
        (name, verdict_text(run.record, run.rows, run.suite))
        for name, run in zip(names, runs, strict=True)
    ]
    record, suite = first.record, first.suite
    title = f"{', '.join(names) if len(runs) <= 3 else f'{len(runs)} runs'} on {record.suite}"
    facts = [
        f"suite {record.suite} v{record.suite_version}" + (f" ({suite.title})" if suite else ""),
        f"seeds {', '.join(map(str, record.seeds))}",
        f"attacks {', '.join(record.attacks) or 'none'}",
        f"engine {record.engine}, {record.dtype}",
    ]
    notes = [f"{name}: {run.unread}" for name, run in zip(names, runs, strict=True) if run.unread]
    notes += [note for run in runs for note in run.record.notes]
    notes += [f"{f.label}: failed: {f.message}" for run in runs for f in run.record.failures]
    return Report(
        title,
        "; ".join(facts),
        tuple(verdicts),
        tuple(_part(runs, label, place) for place, label in enumerate(labels)),
        tuple(dict.fromkeys(notes)),
        _composites(runs, names),
        _scores(runs, names),
        _data(suite) if suite is not None else None,
        tuple(_told(runs, names)),
    )


def render_report(report: Report) -> str:
    """Return the page."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_plain
    )
    template = environment.from_string(_text("report.html.j2"))
    return template.render(
        report=report,
        style=markupsafe.Markup(_text("report.css")),
        draw=lambda picture: markupsafe.Markup(picture.svg),
        kept=f"{KEPT_UTILITY:.0%}",
        most=SHOWN_ITEMS,
        longest=LONGEST_TEXT,
    )


def _plain(value: object) -> object:
    """A stranger's text, as a page may have it; what is HTML stays as it is."""
    return printable(value) if type(value) is str else value


def write_report(runs: Sequence[FinishedRun], page: Path) -> Report:
    """Write the page of finished runs, and return what is on it.

    Raises:
        UsageError: the runs are not alike.
        DataError: a record says otherwise than its samples.
        StoreError: the page cannot be written.
    """
    found = read_report(runs)
    write_atomic(page, render_report(found).encode())
    return found


def save_figures(report: Report, folder: Path, endings: Sequence[str]) -> Iterator[Path]:
    """Write every figure in every form, and yield the files.

    Raises:
        UsageError: an ending of no known format, or a file that cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in report.parts:
        for picture in part.pictures:
            for ending in endings:
                out = folder / f"{picture.name}{ending}"
                save_figure(picture.figure, out)
                yield out


# --- inside ---


def _text(name: str) -> str:
    found = files("ilubench.reports.page").joinpath("template", name)
    return found.read_text(encoding="utf-8").replace("\r\n", "\n")


def _part(runs: Sequence[FinishedRun], label: str, place: int) -> Part:
    lines = lines_of(runs, label)
    mine = [line for line in lines if not line.reference]
    one = runs[0] if len(runs) == 1 else None
    return Part(
        label,
        _one_table(one, label) if one else _ranked_table(runs, label),
        tuple(_pictures(runs, label, lines, place)),
        _attack_table(mine[0], runs[0].record) if len(mine) == 1 else None,
        changes_of(one, label) if one and one.samples is not None else (),
    )


def _pictures(
    runs: Sequence[FinishedRun], label: str, lines: Sequence[Line], place: int
) -> Iterator[Picture]:
    name, first, record = f"m{place + 1}", place == 0, runs[0].record
    mine = [line for line in lines if not line.reference]
    if len(mine) <= MANY:
        told = f"{label} along each attack. The higher a line stays, the more stayed forgotten."
        if first:
            told += " Below: fine-tuning accuracy (FA), what the user of the fine-tuning gets."
        yield Picture(
            f"{name}-course",
            told,
            draw_courses(lines, label, record.attacks, record.suite, fa=first),
        )
    if len(mine) <= MANY and tuned_attacks(lines):
        told = (
            f"Lowest {label} that an attacker who tunes has found after so many trials, of those "
            f"that keep {KEPT_UTILITY:.0%} of the utility: mean over seeds."
        )
        yield Picture(f"{name}-trials", told, draw_trials(lines, label))
    if len(mine) > 1:
        order = sorted(lines, key=lambda line: -(under(line.row)[1].value or -1))
        told = (
            f"Lowest {label} under each attack at a checkpoint that keeps {KEPT_UTILITY:.0%} of "
            "the utility; -: none does; *: the method trains on the attack's data."
        )
        yield Picture(f"{name}-attacks", told, draw_heatmap(order, label))
        told = (
            "Robustness against utility, with 95 % intervals. The dotted line joins the methods "
            "that no other one beats in both."
        )
        tradeoff = draw_tradeoff(lines, label)
        if tradeoff is not None:
            yield Picture(f"{name}-utility", told, tradeoff)
        seconds = {
            title: run.record.cost.get("train_seconds")
            for title, run in zip(run_names(runs), runs, strict=True)
        }
        cost = draw_costs(lines, lambda line: seconds.get(line.title), label)
        if cost is not None:
            yield Picture(f"{name}-cost", "Robustness against the time of unlearning.", cost)
    if mine and len(mine) <= MANY:
        told = "How much of what was forgotten each attack brings back."
        yield Picture(f"{name}-recovery", told, draw_by_attack(lines, "recovery"))
        measured = (a.fa_difference.value for line in mine for a in line.row.attacks)
        if first and any(value is not None for value in measured):
            told = "FA of the fine-tuned model, against fine-tuning the original model."
            yield Picture(f"{name}-fa", told, draw_by_attack(lines, "fa_difference"))


def _one_table(run: FinishedRun, label: str) -> Table:
    row = run.rows[label]
    name, figure = under(row)
    worst = figure_text(row.worst_case)
    if row.worst_at is not None:
        worst += f" ({row.worst_at[0]})"
    kept = row.utility.kept[row.utility.worst] if row.utility.worst is not None else None
    return Table(
        ("figure", "value"),
        (
            ("original", figure_text(row.forget_original)),
            ("unlearned", figure_text(row.forget_unlearned)),
            (f"{name}, mean under attack", figure_text(figure)),
            (f"{WORST_CASE}, lowest that keeps {KEPT_UTILITY:.0%} of the utility", worst),
            (
                f"{RECOVERY}, mean of attacks (0 stayed forgotten, 1 known as before)",
                figure_text(row.recovery),
            ),
            (f"{UTILITY_KEPT} by unlearning", figure_text(kept)),
            ("status", row.status),
        ),
    )


def _ranked_table(runs: Sequence[FinishedRun], label: str) -> Table:
    (found,) = (table for table in rank_runs(runs).tables if table.metric == label)
    names = {under(row.figures)[0] for row in found.rows}
    rows = []
    for row in found.rows:
        figures, utility = row.figures, row.figures.utility
        kept = utility.kept[utility.worst] if utility.worst is not None else None
        at = f" ({figures.worst_at[0]})" if figures.worst_at else ""
        rank = rank_range(row.rank, len(row.ties)) if row.rank is not None else ""
        rows.append(
            (
                row.name,
                rank or note_text(row.note) or "-",
                figure_text(figures.forget_unlearned),
                figure_text(under(figures)[1]),
                figure_text(figures.worst_case) + at,
                figure_text(figures.recovery),
                figure_text(kept),
            )
        )
    head = ("method", "rank", "unlearned", " or ".join(sorted(names)), WORST_CASE, RECOVERY)
    return Table((*head, UTILITY_KEPT), tuple(rows), tuple(table_note_texts(found.notes)))


def _attack_table(line: Line, record: RunRecord) -> Table:
    compared = any(attack.never_knew for attack in line.row.attacks)
    head = ["attack", "at the end", RA, RECOVERY, f"{HALF_LIFE} (steps)", "FA", FA_DIFFERENCE]
    rows = []
    for attack in line.row.attacks:
        end = attack.steps[-1]
        cells = [
            attack.attack + (" (seen)" if attack.attack in line.seen else ""),
            figure_text(end.forget),
            figure_text(attack.ra),
            figure_text(attack.recovery),
            figure_text(attack.half_life, 0),
            figure_text(end.fa),
            figure_text(attack.fa_difference),
        ]
        rows.append((*cells, *([figure_text(attack.never_knew)] if compared else [])))
    tuned = [
        f"{attack.attack}, {name}: {value}"
        for attack in line.row.attacks
        for name, value in trial_lines(attack, record)
    ]
    return Table((*head, *([NEVER_KNEW] if compared else [])), tuple(rows), tuple(tuned))


def _composites(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table | None:
    found = [(name, one) for name, run in zip(names, runs, strict=True) for one in run.composites]
    kinds = {one.label: one.kind for _, one in found}
    if not found:
        return None
    models: dict[tuple[str, ...], dict[str, str]] = {}
    for name, one in found:
        place = (name if one.who == "method" else one.who, one.attack or "before any")
        step = one.level or (str(one.step) if one.attack else "")
        models.setdefault((*place, step), {})[one.label] = composite_text(one)
    rows = ((*place, *(own.get(label, "-") for label in kinds)) for place, own in models.items())
    notes = (f"{label}: {kind_text(kind)}" for label, kind in kinds.items())
    return Table(("model", "attack", "step", *kinds), tuple(rows), tuple(notes))


def _scores(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table:
    called = {"reference": "original", "retrain": "never knew", "untouched": "before it was taught"}
    rows = {
        (
            f"{score.scorer}.{score.metric}",
            called.get(score.who, name),
            str(score.seed),
            f"{score.value:.4f}" + (f" ± {score.se:.4f}" if score.se is not None else ""),
            str(score.n),
        ): None
        for name, run in zip(names, runs, strict=True)
        for score in run.record.scores
    }
    return Table(("score", "model", "seed", "value ± standard error", "items"), tuple(sorted(rows)))


def _data(suite: SuiteSpec) -> Table:
    rows = []
    for role, source in suite.all_sources().items():
        place = source.hub or source.path or f"generated ({source.generated})"
        revision = (source.revision or "")[:12]
        rows.append(
            (role, f"{place} {source.subset or ''}".strip(), revision, source.license or "-")
        )
    return Table(("rows", "from", "revision", "licence"), tuple(rows))


def _told(runs: Sequence[FinishedRun], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    shared = runs[0].settings
    if shared:
        yield "attacks", yaml.safe_dump(dict(shared), sort_keys=False)
    for name, run in zip(names, runs, strict=True):
        settings = {"method": run.record.method}
        if run.settings != shared:
            settings["attacks"] = dict(run.settings)
        seconds = sum(job.seconds or 0.0 for job in run.record.jobs)
        facts = {
            **settings,
            "run": run.record.run,
            "time of all jobs": format_duration(seconds),
            "cost": dict(run.record.cost),
            "conditions": dict(run.conditions),
            "libraries": dict(run.libraries),
        }
        yield f"{name}: settings and environment", yaml.safe_dump(facts, sort_keys=False)
