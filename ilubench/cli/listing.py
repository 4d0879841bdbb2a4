"""Commands that say what is there: ls, describe, doctor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilubench.cli.completion import KINDS, complete_ls, complete_names
from ilubench.cli.formats import FormatOption, show
from ilubench.cli.guard import COMPLETE, FAILED_CHECKS
from ilubench.cli.words import Json, as_words, console

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ilubench.experiments.describe import Description

__all__ = ["describe", "doctor", "ls"]


def ls(
    what: Annotated[str, typer.Argument(metavar="|".join(KINDS), autocompletion=complete_ls)],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[suite=NAME|FOLDER]",
            help="for methods: that suite's variants, too; "
            "for scorers: that suite's, and what they read; for runs: where, default runs",
        ),
    ] = None,
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """List what is installed, or the runs below a folder."""
    from ilubench.records.markdown import cell, table

    if what == "scorers" and words:
        return _ls_suite_scorers(words, form, as_json=as_json)
    if what == "runs":
        return _list_runs(words or (), form, as_json=as_json)
    rows = _rows_of(what) + _rows_of_suite(what, words or ())
    text = table(["name", "what"], [[cell(name), cell(title)] for name, title in rows])
    plain = [{"name": name, "title": title} for name, title in rows]
    show(text, plain, form, as_json=as_json)
    return COMPLETE


def _list_runs(words: Sequence[str], form: FormatOption, *, as_json: bool) -> int:
    from ilubench.cli.run_folders import find_runs, read_status
    from ilubench.errors import DataError, UsageError
    from ilubench.records.markdown import cell, table

    if len(words) > 1 or any("=" in word for word in words):
        raise UsageError("ls runs takes one folder; write ilubench ls runs FOLDER")
    folder = Path(words[0] if words else "runs")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; write ilubench ls runs FOLDER")
    found = [read_status(path) for path in find_runs(folder)]
    if not found:
        raise DataError(f"{folder}: no run in it; `ilubench run method=ilu` makes one")
    head = list(type(found[0])._fields)
    text = table(head, [[cell(str(value)) for value in run] for run in found])
    show(text, [run._asdict() for run in found], form, as_json=as_json)
    return COMPLETE


def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="a method, attack, scorer, generator or suite, or a class such as TrainSpec",
            autocompletion=complete_names,
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[suite=NAME]", help="whose values are shown; default: mini"),
    ] = None,
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Explain a name: what it is, its fields, their meaning, type, range and default."""
    from ilubench.errors import UsageError
    from ilubench.experiments.describe import describe as look_up
    from ilubench.specs.overrides import parse_words

    given = parse_words(words or ())
    if [word.key for word in given] not in ([], ["suite"]):
        raise UsageError(f"describe takes a suite; write ilubench describe {name} suite=mini")
    found = look_up(name, *(word.text for word in given))
    plain = [
        {**one._asdict(), "fields": [field._asdict() for field in one.fields]} for one in found
    ]
    show("\n\n".join(map(_described, found)), plain, form, as_json=as_json)
    return COMPLETE


def _described(one: "Description") -> str:
    from ilubench.records.markdown import cell, table

    kind = one.kind.rstrip("s") if one.kind != "settings" else "settings"
    paragraphs = [cell(part) for part in one.summary.split("\n\n")]
    parts = [f"**{kind} {cell(one.name)}**", *paragraphs]
    here = [cell(f"in {one.suite}")] if one.here else []
    rows = []
    for field in one.fields:
        kinds = field.type + (f" ({field.range})" if field.range else "")
        own = [cell(one.here.get(field.name, ""))] if here else []
        name = cell(one.prefix + field.name)
        rows.append([name, cell(kinds), cell(field.default), *own, cell(field.meaning)])
    if rows:
        parts.append(table(["field", "type", "default", *here, "meaning"], rows))
    return "\n\n".join(parts)


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
        out.print(found.verdict, soft_wrap=True)
    return COMPLETE if found.fine else FAILED_CHECKS


def _ls_suite_scorers(words: Sequence[str], form: FormatOption, *, as_json: bool) -> int:
    from ilubench.reports.suite_scorers import scorers_text, suite_scorers
    from ilubench.specs.overrides import parse_words

    found = suite_scorers(parse_words(words))
    show(scorers_text(found), found.as_json(), form, as_json=as_json)
    return COMPLETE


def _rows_of(what: str) -> list[tuple[str, str]]:
    from ilubench.errors import UsageError, did_you_mean
    from ilubench.interfaces.discovery import GROUPS, describe_dispute, list_claims
    from ilubench.interfaces.sources import describe_target
    from ilubench.specs.yaml_files import load_yaml, task_file, task_names

    if what in ("suites", "attacks"):
        return [(name, _titled(load_yaml(task_file(what, name)))) for name in task_names(what)]
    if what in GROUPS:
        return [
            (name, describe_dispute(who) or describe_target(who[0].target))
            for name, who in list_claims(what).items()
        ]
    raise UsageError(f"cannot list {what!r}; {did_you_mean(what, KINDS)}")


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
    own = "the suite's settings"
    return [
        (label, f"{ref.use} with {as_words(ref.settings) or own}; a variant of suite {name}")
        for label, ref in sorted(suite_variants(name).items())
    ]
