"""Commands of the leaderboards: submit, check."""

from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.commands import Program
from ilubench.cli.guard import COMPLETE, FAILED_CHECKS
from ilubench.cli.words import Json, console

__all__ = ["leaderboard"]

leaderboard = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The public leaderboards: submit a result, check what lies there.",
)

DATA = 3
BOARDS = Path("leaderboards")

Title = Annotated[str, typer.Option("--title", help="what tables show")]
Code = Annotated[str, typer.Option("--code", help="https address of the code")]
Paper = Annotated[str, typer.Option("--paper", help="https address of the paper")]
CitationFile = Annotated[Path | None, typer.Option("--citation-file", help="BibTeX, or words")]
Remarks = Annotated[str, typer.Option("--remarks", help="what a reader must know")]


@leaderboard.command()
def submit(  # noqa: PLR0913, PLR0917 - each is an option of the command
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    by: Annotated[str, typer.Option("--by", help="who sends it in")],
    to: Annotated[Path, typer.Option("--to", help="the leaderboards' folder")] = BOARDS,
    label: Annotated[str, typer.Option("--label", help="the row's name; default: as asked")] = "",
    title: Title = "",
    code: Code = "",
    paper: Paper = "",
    citation_file: CitationFile = None,
    remarks: Remarks = "",
    trains_on: Annotated[
        list[str] | None,
        typer.Option("--trains-on", help="data role that its settings do not name; repeatable"),
    ] = None,
    package: Annotated[
        str,
        typer.Option(
            "--package", metavar="FILE[=URL]", help="wheel or sdist of a method of your own"
        ),
    ] = "",
    weights_to: Annotated[
        Path | None,
        typer.Option("--weights-to", help="write the unlearned models there, to be published"),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="URL|SEED=URL",
            help="where they can be had: the folder of all, or one seed's; repeatable",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="where an entry of that name is there already")
    ] = False,
) -> int:
    """Package a finished run as an entry: its record and its samples, ready for a pull request."""
    from ilubench.leaderboard.submit.entry import About, next_steps, read_citation, read_package
    from ilubench.leaderboard.submit.entry import submit_run as write
    from ilubench.leaderboard.submit.weights import place_weights

    about = About(
        by=by,
        label=label,
        title=title,
        code=code,
        paper=paper,
        citation=read_citation(citation_file),
        remarks=remarks,
        trains_on=tuple(trains_on or ()),
        package=read_package(package),
    )
    listed = place_weights(run, weights_to, tuple(weights or ()))
    found = write(run, to, about, weights=listed, replace=replace)
    typer.echo(str(found.path))
    if found.copied is not None:
        typer.echo(str(found.copied))
    for line in next_steps(found, weights_to):
        typer.echo(line, err=True)
    return COMPLETE


@leaderboard.command()
def check(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="records or folders; default: leaderboards"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Validate records, and recompute every figure from the per-sample outputs.

    Prints one line a problem; leaves with 0 when there is none, with 3 when there is one.
    """
    import json

    from ilubench.leaderboard.check.check import check_boards as examine

    found = examine(paths or [BOARDS])
    if as_json:
        typer.echo(json.dumps([problem.plain() for problem in found]))
    else:
        for problem in found:
            typer.echo(problem.line)
        where = " ".join(map(str, paths or [BOARDS]))
        verdict = "every record holds, and every figure follows from its samples"
        if found:
            count, files = len(found), len({problem.file for problem in found})
            what = "1 problem" if count == 1 else f"{count} problems"
            places = "1 file" if files == 1 else f"{files} files"
            them = "it" if count == 1 else "them"
            verdict = f"{what} in {places}; next: mend {them}, or submit again"
        typer.echo(f"{where}: {verdict}", err=True)
    return DATA if found else COMPLETE


@leaderboard.command()
def changes(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="the leaderboards as they are")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="as they would be")],
    as_json: Json = False,
) -> int:
    """Tell what a change does to the records, and what of it only a maintainer may write.

    Lines that begin with `!` are for maintainers to look at: `check` sees no authors.
    """
    import dataclasses
    import json

    from ilubench.leaderboard.check.changes import list_changes as compare

    found = compare(before, after)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(change) for change in found]))
    else:
        for change in found:
            typer.echo(f"{'!' if change.reserved else ' '} {change.record} {change.what}")
    return COMPLETE


@leaderboard.command()
def verify(  # noqa: PLR0913, PLR0917 - each is an option of the command
    entry: Annotated[Path, typer.Argument(metavar="ENTRY", help="the entry's JSON file")],
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="folder with the published weights; else downloaded"),
    ] = None,
    method: Annotated[
        bool, typer.Option("--method", help="run the method itself again, without network")
    ] = False,
    seeds: Annotated[
        str, typer.Option("--seeds", help="fresh ones, like 100..104; default: drawn at random")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="who verifies")] = "a maintainer",
    suite: Annotated[
        str, typer.Option("--suite", help="name or file; default: the shipped one of that name")
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="folder of results and cache")] = Path(
        "runs/verification"
    ),
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda")] = "auto",
) -> int:
    """Measure an entry again with fresh seeds, compare, and write what was found into it.

    Attacks the published weights, found by their SHA-256; with --method, unlearns again first.
    Leaves with 0 whether the row stays or is disputed.
    """
    from ilubench.errors import UsageError
    from ilubench.leaderboard.verify.verify import Request, parse_seeds, verification_text
    from ilubench.leaderboard.verify.verify import verify_entry as carry_out
    from ilubench.runs.progress import make_reporter

    if method and weights is not None:
        raise UsageError("--method makes its own weights; leave out --weights")
    request = Request(
        path=entry,
        kind="method" if method else "weights",
        by=by,
        seeds=parse_seeds(seeds) if seeds else None,
        weights=weights,
        suite=suite,
        out=out,
        device=device,
    )
    with make_reporter(console()) as shown:
        found = carry_out(request, shown)
    typer.echo(verification_text(found))
    return COMPLETE


@leaderboard.command()
def attack(  # noqa: PLR0913, PLR0917 - each is an option of the command
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[ENTRY=]RUN...", help="runs with the attack; one an entry"),
    ],
    to: Annotated[Path, typer.Option("--to", help="the suite's records")] = BOARDS / "mini",
    by: Annotated[str, typer.Option("--by", help="who sends it in")] = "",
    name: Annotated[str, typer.Option("--attack", help="where the runs have several new")] = "",
    label: Annotated[str, typer.Option("--label", help="the record's name")] = "",
    title: Title = "",
    code: Code = "",
    paper: Paper = "",
    citation_file: CitationFile = None,
    remarks: Remarks = "",
    verified: Annotated[
        bool, typer.Option("--verified", help="a maintainer's own runs of it, with fresh seeds")
    ] = False,
) -> int:
    """Package runs in which a new attack was tried on entries; with --verified, let it count.

    Each run is of an entry's method with its settings, or of its published weights, in a suite file
    that extends the suite by the attack.
    """
    from ilubench.leaderboard.records.files import read_board
    from ilubench.leaderboard.submit.attack import attack_text, submit_attack
    from ilubench.leaderboard.submit.attack_runs import read_attack_runs
    from ilubench.leaderboard.submit.entry import About, read_citation

    about = About(
        by=by,
        label=label,
        title=title,
        code=code,
        paper=paper,
        citation=read_citation(citation_file),
        remarks=remarks,
    )
    board = read_board(to)
    packed = submit_attack(read_attack_runs(runs, board, name), board, about, verified=verified)
    typer.echo(attack_text(packed, board))
    return COMPLETE


@leaderboard.command()
def track(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of re-runs")],
    against: Annotated[Path, typer.Option("--against", help="the suite's records")] = BOARDS
    / "mini",
    complete: Annotated[
        bool,
        typer.Option("--complete", help="rows of measured/ that were not run again count, too"),
    ] = False,
    as_json: Json = False,
) -> int:
    """Compare re-runs with the committed records: has a figure left its prediction interval?

    Leaves with 4 when one has, or when a re-run cannot be compared.
    """
    import json

    from ilubench.leaderboard.records.files import read_board
    from ilubench.leaderboard.verify.tracking import (
        compare_with_records,
        missing,
        tracking_json,
        tracking_text,
    )
    from ilubench.records.finished import read_run

    board = read_board(against)
    found = [compare_with_records(board, read_run(path)) for path in runs]
    lacking = missing(board, found) if complete else ()
    as_text = (
        json.dumps(tracking_json(found, lacking)) if as_json else tracking_text(found, lacking)
    )
    typer.echo(as_text)
    return FAILED_CHECKS if lacking or not all(one.fine for one in found) else COMPLETE


@leaderboard.command()
def build(
    root: Annotated[
        Path, typer.Argument(metavar="[ROOT]", help="the leaderboards' folder")
    ] = BOARDS,
    out: Annotated[Path, typer.Option("--out", help="folder of the page")] = Path("site"),
    repository: Annotated[
        str, typer.Option("--repository", help="https address that the page links to")
    ] = "",
    only_check: Annotated[
        bool, typer.Option("--check", help="write nothing; leave with 3 where a README is stale")
    ] = False,
) -> int:
    """Write each suite's README table, and one static page for all suites."""
    from ilubench.errors import UsageError
    from ilubench.leaderboard.records.models import is_address
    from ilubench.leaderboard.site.build import build_site as write
    from ilubench.leaderboard.site.build import find_stale

    if only_check:
        old = find_stale(root)
        for file in old:
            typer.echo(f"{file}: not what the records say; run `ilubench leaderboard build {root}`")
        return DATA if old else COMPLETE
    if repository and not is_address(repository):
        raise UsageError(f"--repository {repository}: must be an https address")
    found = write(root, out, repository)
    for file in found.readmes:
        typer.echo(f"{file}: tables made anew")
    typer.echo(f"{found.page}: {found.size / 1000:.0f} kB")
    return COMPLETE
