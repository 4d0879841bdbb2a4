"""Commands that say what is there: ls, doctor."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ilubench.cli.guard import COMPLETE, FAILED_CHECKS
from ilubench.cli.words import Json, console

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["doctor", "ls"]


def ls(
    what: Annotated[str, typer.Argument(metavar="suites|attacks|methods|scorers|generators")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[suite=NAME]",
            help="for methods: that suite's variants, too; "
            "for scorers: that suite's, and what they read",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """List what is installed."""
    import json

    from rich.table import Table

    if what == "scorers" and words:
        return _ls_suite_scorers(words, as_json=as_json)
    rows = _rows_of(what) + _rows_of_suite(what, words or ())
    if as_json:
        typer.echo(json.dumps([{"name": name, "title": title} for name, title in rows]))
        return COMPLETE
    table = Table(show_header=False, box=None)
    for name, title in rows:
        table.add_row(name, title)
    console(stderr=False).print(table)
    return COMPLETE


def doctor(as_json: Json = False) -> int:
    """Say what is installed and whether it works: plugins, libraries, devices, folders.

    Leaves with 0 when all is fine, with 4 when something is not.
    """
    from rich.table import Table

    from ilubench.cli.doctor import examine

    found = examine()
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        shown = Table(show_header=False, box=None)
        for finding in found.findings:
            shown.add_row(*finding.model_dump().values())
        out = console(stderr=False)
        out.print(shown)
        bad = sum(not finding.fine for finding in found.findings)
        out.print(f"{bad} of {len(found.findings)} not fine" if bad else "all is fine")
    return COMPLETE if found.fine else FAILED_CHECKS


def _ls_suite_scorers(words: Sequence[str], *, as_json: bool) -> int:
    import json

    from ilubench.reports.suite_scorers import scorers_table, suite_scorers
    from ilubench.specs.overrides import parse_words

    found = suite_scorers(parse_words(words))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        console(stderr=False).print(scorers_table(found))
    return COMPLETE


def _rows_of(what: str) -> list[tuple[str, str]]:
    from ilubench.errors import UsageError, did_you_mean
    from ilubench.interfaces.discovery import GROUPS, describe_dispute, describe_target, list_claims
    from ilubench.specs.yaml_files import load_yaml, task_file, task_names

    if what in ("suites", "attacks"):
        return [(name, _titled(load_yaml(task_file(what, name)))) for name in task_names(what)]
    if what in GROUPS:
        return [
            (name, describe_dispute(who) or describe_target(who[0].target))
            for name, who in list_claims(what).items()
        ]
    known = ("suites", "attacks", "methods", "scorers", "generators")
    raise UsageError(f"cannot list {what!r}; {did_you_mean(what, known)}")


def _titled(values: "Mapping[str, JsonValue]") -> str:
    """Return a task file's title, and where its length comes from if it says so."""
    title, protocol = str(values.get("title", "")), values.get("protocol")
    if not isinstance(protocol, Mapping):
        return title
    return f"{title}; protocol: {protocol.get('kind')} ({protocol.get('note')})"


def _rows_of_suite(what: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels that a suite gives to variants of methods, if one is named."""
    from ilubench.errors import UsageError
    from ilubench.experiments.suites import suite_variants
    from ilubench.specs.overrides import parse_words

    given = parse_words(words)
    if not given:
        return []
    if what != "methods" or [word.path for word in given] != [("suite",)]:
        remedy = "write ilubench ls methods suite=mini, or ilubench ls scorers suite=mini"
        raise UsageError(f"ls takes a suite, and only with methods or scorers; {remedy}")
    name = given[0].text
    return [
        (label, f"{ref.use} with {_shown(ref.settings)}; a variant of suite {name}")
        for label, ref in sorted(suite_variants(name).items())
    ]


def _shown(settings: "Mapping[str, JsonValue]", prefix: str = "") -> str:
    """Return settings as words of the command line; the suite's own where there is none."""
    if not settings:
        return "the suite's settings"
    return " ".join(
        _shown(value, f"{prefix}{key}.")
        if isinstance(value, Mapping) and value
        else f"{prefix}{key}={value}"
        for key, value in settings.items()
    )
