"""Commands that read finished runs: table, plot, matched, variance, stability, subsets, gates."""

from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.guard import COMPLETE, FAILED_CHECKS
from ilubench.cli.words import Json

__all__ = ["gates", "matched", "plot", "stability", "subsets", "table", "variance"]

SAMPLES = "samples.parquet"

Run = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]


def table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    pairs: Annotated[bool, typer.Option("--pairs", help="also all pairs of ranked runs")] = False,
    attacks: Annotated[
        bool, typer.Option("--attacks", help="instead: RA by attack, and what carries over")
    ] = False,
    as_json: Json = False,
) -> int:
    """Print finished runs side by side, ranked, as Markdown; or methods against attacks."""
    import json

    from ilubench.errors import UsageError
    from ilubench.records.finished import read_run
    from ilubench.reports.by_attack import attack_tables, attack_tables_json, attack_tables_text
    from ilubench.reports.ranking import rank_runs, ranking_json, ranking_text

    if attacks and pairs:
        raise UsageError("--pairs lists pairs of ranked runs, and --attacks ranks none; give one")
    finished = [read_run(path) for path in runs]
    if attacks:
        by_attack = attack_tables(finished)
        shown = attack_tables_text(by_attack)
        typer.echo(json.dumps(attack_tables_json(by_attack)) if as_json else shown)
        return COMPLETE
    found = rank_runs(finished)
    as_text = json.dumps(ranking_json(found)) if as_json else ranking_text(found, pairs=pairs)
    typer.echo(as_text.rstrip("\n"))
    return COMPLETE


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
    from ilubench.reports.figure import draw_attacks, save_figure

    finished = [read_run(path) for path in runs]
    save_figure(draw_attacks(finished, metric=metric, attacks=attack or ()), out)
    typer.echo(f"wrote {out}")
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
    as_json: Json = False,
) -> int:
    """Compare strength sweeps of several methods where they forgot equally much, as Markdown."""
    import json

    from ilubench.reports.sweeps import compare_sweeps, read_sweeps, sweeps_json, sweeps_text

    found = compare_sweeps(read_sweeps(sweeps), at=at, welch=welch)
    as_text = json.dumps(sweeps_json(found)) if as_json else sweeps_text(found)
    typer.echo(as_text.rstrip("\n"))
    return COMPLETE


def variance(run: Run) -> int:
    """Show how much of a run's spread comes from seeds, orders and items, as Markdown."""
    from ilubench.records.run_files import read_run_samples
    from ilubench.reports.spread import variance_report, variance_text

    typer.echo(variance_text(variance_report(read_run_samples(run / SAMPLES))))
    return COMPLETE


def stability(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    as_json: Json = False,
) -> int:
    """Show how alike two halves of the seeds order the methods (Kendall's tau), as Markdown."""
    import json

    from ilubench.records.finished import read_run
    from ilubench.reports.stability import stability_json, stability_of, stability_text

    found = stability_of([read_run(path) for path in runs])
    typer.echo(json.dumps(stability_json(found)) if as_json else stability_text(found))
    return COMPLETE


def subsets(run: Run) -> int:
    """Show a run's scores by subset of the items (given and held-out facts), as Markdown."""
    from ilubench.errors import DataError
    from ilubench.records.finished import read_run
    from ilubench.reports.subsets import subsets_of, subsets_text

    found = read_run(run)
    if found.samples is None:
        raise DataError(f"{found.path}: {found.unread}")
    typer.echo(subsets_text(subsets_of(found.samples, found.metric_ranges)))
    return COMPLETE


def gates(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run of method=none")],
    as_json: Json = False,
) -> int:
    """Check a suite's attacks on the original model: is each learned, and harmless otherwise?

    Leaves with 4 where one of the bounds that the suite states is not kept.
    """
    import dataclasses
    import json

    from ilubench.records.finished import read_run
    from ilubench.reports.gates import gates_of, gates_text

    found = gates_of(read_run(run))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(gate) for gate in found], indent=1))
    else:
        typer.echo(gates_text(found))
    return COMPLETE if all(gate.passed for gate in found) else FAILED_CHECKS
