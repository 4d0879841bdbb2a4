"""Commands that read finished runs: table, plot, report, matched, variance and others."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilubench.cli.formats import FormatOption, show
from ilubench.cli.guard import COMPLETE, FAILED_CHECKS
from ilubench.cli.run_folders import within
from ilubench.cli.words import Json

if TYPE_CHECKING:
    from ilubench.reports.layouts import Published

__all__ = [
    "compare",
    "gates",
    "matched",
    "plot",
    "report",
    "stability",
    "subsets",
    "table",
    "variance",
]

SAMPLES = "samples.parquet"

Run = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]


def table(  # noqa: PLR0913, PLR0917 - each is an option of the command
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    pairs: Annotated[bool, typer.Option("--pairs", help="also all pairs of ranked runs")] = False,
    attacks: Annotated[
        bool, typer.Option("--attacks", help="instead: RA by attack, and what carries over")
    ] = False,
    layout: Annotated[
        str | None, typer.Option("--layout", help="instead: a table of the paper: muse or wmdp")
    ] = None,
    columns: Annotated[
        str, typer.Option("--columns", help="names of the columns, separated by commas")
    ] = "",
    reported: Annotated[
        list[Path] | None,
        typer.Option("--reported", help="folder of a suite's records: its rows of papers, too"),
    ] = None,
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Print finished runs side by side, ranked; or methods against attacks; or as the paper."""
    from ilubench.errors import UsageError, did_you_mean
    from ilubench.records.columns import columns_at, columns_named
    from ilubench.records.finished import read_run
    from ilubench.reports.by_attack import attack_tables, attack_tables_json, attack_tables_text
    from ilubench.reports.layouts import LAYOUTS, lay_out, layout_json, layout_text
    from ilubench.reports.ranking import rank_runs, ranking_json, ranking_text

    if attacks and (pairs or layout or columns):
        raise UsageError("--attacks is another table: it takes no --pairs, --layout or --columns")
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}: {did_you_mean(layout, LAYOUTS)}")
    if pairs and layout:
        raise UsageError("--pairs lists pairs of ranked runs, and --layout ranks none; give one")
    if reported and not layout:
        raise UsageError("--reported adds rows to a table of the paper; add --layout muse or wmdp")
    named = [*dict.fromkeys(name.strip() for name in columns.split(",") if name.strip())]
    chosen = columns_named(named) if named and not layout else columns_at("table")
    finished = [read_run(path) for path in within(runs)]
    if attacks:
        by_attack = attack_tables(finished)
        text, plain = attack_tables_text(by_attack), attack_tables_json(by_attack)
        show(text, plain, form, as_json=as_json)
    elif layout is not None:
        laid = lay_out(LAYOUTS[layout], finished, _published(reported or ()), named)
        show(layout_text(laid), layout_json(laid), form, as_json=as_json)
    else:
        found = rank_runs(finished)
        text = ranking_text(found, pairs=pairs, columns=chosen)
        show(text, ranking_json(found), form, as_json=as_json)
    return COMPLETE


def _published(folders: Sequence[Path]) -> list["Published"]:
    from ilubench.errors import DataError
    from ilubench.leaderboard.records.files import read_board
    from ilubench.leaderboard.site.reported import provenance
    from ilubench.reports.layouts import Published

    rows = []
    for folder in folders:
        found = read_board(folder).reported if folder.is_dir() else ()
        if not found:
            raise DataError(f"--reported {folder}: no rows of papers; give leaderboards/SUITE")
        for one in found:
            values = {(each.metric, each.state): each.value for each in one.figures}
            rows.append(Published(one.title, f"{one.model}, {provenance(one)}", values))
    return rows


def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    out: Annotated[Path, typer.Option("--out", help="file to write: .svg, .pdf or .png")],
    metric: Annotated[
        str, typer.Option("--metric", help="a primary forget metric; without: the suite's first")
    ] = "",
    attack: Annotated[
        list[str] | None, typer.Option("--attack", help="this one; may be repeated; without: all")
    ] = None,
) -> int:
    """Draw the forget metric along each attack, one line a run, with intervals."""
    from ilubench.records.finished import read_run
    from ilubench.reports.figures.courses import draw_attacks
    from ilubench.reports.figures.style import save_figure

    finished = [read_run(path) for path in within(runs)]
    save_figure(draw_attacks(finished, metric=metric, attacks=attack or ()), out)
    typer.echo(f"wrote {out}")
    return COMPLETE


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    out: Annotated[
        Path | None, typer.Option("--out", help="file to write; without: report.html in the run")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="folder that gets each figure for papers, too")
    ] = None,
    forms: Annotated[
        list[str] | None,
        typer.Option("--form", help="of these files: pdf, svg or png; may be repeated"),
    ] = None,
) -> int:
    """Write one page of HTML on finished runs: the verdict, the figures, what it rests on."""
    from ilubench.errors import UsageError
    from ilubench.records.finished import read_run
    from ilubench.reports.figures.style import UNDATED
    from ilubench.reports.page import PAGE
    from ilubench.reports.page.report import save_figures, write_report

    endings = [f".{form}" for form in dict.fromkeys(forms or ("pdf",))]
    for ending in endings:
        if ending not in UNDATED:
            known = ", ".join(one[1:] for one in UNDATED)
            raise UsageError(f"--form {ending[1:]}: no form of a figure; choose from: {known}")
    if forms and figures is None:
        raise UsageError("--form is of figures for papers; add --figures DIR")
    folders = within(runs)
    if out is None and len(folders) > 1:
        raise UsageError(f"one page on {len(folders)} runs lies in none of them; add --out FILE")
    page = out or (folders[0] if folders[0].is_dir() else folders[0].parent) / PAGE
    found = write_report([read_run(path) for path in folders], page)
    typer.echo(f"wrote {page}")
    if figures is not None:
        for file in save_figures(found, figures, endings):
            typer.echo(f"wrote {file}")
    return COMPLETE


def compare(
    first: Run,
    second: Run,
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Show how two runs differ: settings, and every figure, paired by seed and item."""
    from ilubench.records.finished import read_run
    from ilubench.reports.comparison import compare_runs, comparison_json, comparison_text

    found = compare_runs(read_run(first), read_run(second))
    show(comparison_text(found), comparison_json(found), form, as_json=as_json)
    return COMPLETE


def matched(
    sweeps: Annotated[
        list[str],
        typer.Argument(metavar="NAME=RUN,RUN,...", help="one method at several strengths"),
    ],
    at: Annotated[
        float | None, typer.Option("--at", help="also each sweep's figures at this f_u")
    ] = None,
    welch: Annotated[
        bool, typer.Option("--welch", help="also per-seed means, for runs that share no seed")
    ] = False,
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Compare strength sweeps of several methods where they forgot equally much."""
    from ilubench.reports.sweeps import compare_sweeps, read_sweeps, sweeps_json, sweeps_text

    found = compare_sweeps(read_sweeps(sweeps), at=at, welch=welch)
    show(sweeps_text(found), sweeps_json(found), form, as_json=as_json)
    return COMPLETE


def variance(run: Run, form: FormatOption = None, as_json: Json = False) -> int:
    """Show how much of a run's spread comes from seeds, orders and items."""
    import dataclasses

    from ilubench.records.finished import read_run
    from ilubench.records.run_files import read_run_samples
    from ilubench.reports.spread import variance_report, variance_text

    found = variance_report(read_run_samples(run / SAMPLES), read_run(run).record.further)
    plain = [dataclasses.asdict(one) for one in found]
    show(variance_text(found), plain, form, as_json=as_json)
    return COMPLETE


def stability(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Show how alike two halves of the seeds order the methods (Kendall's tau)."""
    from ilubench.records.finished import read_run
    from ilubench.reports.stability import stability_json, stability_of, stability_text

    found = stability_of([read_run(path) for path in within(runs)])
    show(stability_text(found), stability_json(found), form, as_json=as_json)
    return COMPLETE


def subsets(run: Run, form: FormatOption = None, as_json: Json = False) -> int:
    """Show a run's scores by subset of the items (given and held-out facts)."""
    import dataclasses

    from ilubench.errors import DataError
    from ilubench.records.finished import read_run
    from ilubench.reports.subsets import subsets_of, subsets_text

    read = read_run(run)
    if read.samples is None:
        raise DataError(f"{read.path}: {read.unread}")
    found = subsets_of(read.samples, read.metric_ranges, read.record.further)
    show(subsets_text(found), [dataclasses.asdict(one) for one in found], form, as_json=as_json)
    return COMPLETE


def gates(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run of method=none")],
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Check a suite's attacks on the original model: is each learned, and harmless otherwise?

    Leaves with 4 where one of the bounds that the suite states is not kept; one that states none
    has the defaults.
    """
    import dataclasses

    from ilubench.records.finished import read_run
    from ilubench.reports.gates import gates_of, gates_text, gates_verdict

    read = read_run(run)
    found = gates_of(read)
    plain = [dataclasses.asdict(gate) for gate in found]
    stated = read.suite is not None and read.suite.gates is not None
    said = "" if stated else " The suite states no `gates`: these are the defaults."
    show(f"{gates_text(found)}\n\n{gates_verdict(found)}{said}", plain, form, as_json=as_json)
    return COMPLETE if all(gate.passed for gate in found) else FAILED_CHECKS
