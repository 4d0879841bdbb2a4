"""The last screen of a run: what happened, on a terminal of 24 lines and 80 columns."""

import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from ilubench.errors import SpecError
from ilubench.records.figure_text import format_duration
from ilubench.records.labels import RA_CORE, RECOVERY
from ilubench.records.reader_notes import protocol_notes, row_notes, selection_note
from ilubench.records.reference_sets import shipped_notes
from ilubench.records.results import REFERENCE, RunRecord
from ilubench.reports.composites import composite_lines
from ilubench.reports.page import PAGE
from ilubench.reports.screen_tables import metrics_table, recovery_table, scores_table
from ilubench.reports.verdict_text import clipped, verdict_text
from ilubench.specs import SuiteSpec
from ilubench.specs.yaml_files import task_file
from ilubench.statistics.row import KEPT_UTILITY, AttackFigures, RobustnessRow, attacks_of

__all__ = ["LINES", "Ended", "last_screen"]

LINES = 23  # and the prompt
WIDTH = 80
LEAST_WIDTH = 60
MOST_NOTE_LINES = (5, 3)  # fewer where recovery by attack would have no room
FIVE_SEEDS = "seeds=0..4"
NO_BREAK = "\N{NO-BREAK SPACE}"
_WHOLE = re.compile(r"\[[^\[\]]*\]|1 - \S+")


@dataclass(frozen=True)
class Ended:
    """A run that ended.

    Attributes:
        record: the run's.
        rows: primary metric -> its row.
        suite: what was measured; None where nobody can tell.
        folder: the run's.
        command: words of the command that it ended; empty where it is read from its folder.
    """

    record: RunRecord
    rows: Mapping[str, RobustnessRow]
    suite: SuiteSpec | None
    folder: Path
    command: Sequence[str] = ()


def last_screen(run: Ended, width: int = WIDTH, *, bars: bool = True) -> Text:
    """Return a verdict, its figures, what is unusual, where the rest is, and what next.

    Only a path or a word of a command that is wider itself makes a line wider.

    Args:
        run: what ended.
        width: columns; no more than 80 and no fewer than 60 are used.
        bars: whether block characters can be shown.
    """
    width = max(LEAST_WIDTH, min(width, WIDTH))
    verdict = _wrapped(verdict_text(run.record, run.rows, run.suite), width)
    composites = composite_lines(run.record, width)
    whole = ["", *composites] if composites else []
    tables: list[str] = []
    for most in MOST_NOTE_LINES:
        below = [*_notes(run, width, most), *_pointers(run, width)]
        if not run.rows:
            tables = [*scores_table(run.record, run.suite), *whole]
            break
        room = LINES - len(verdict) - len(below) - len(whole) - 3
        tables = metrics_table(run.rows, run.suite, width, room)
        left = room - len(tables) - 1
        by_attack = recovery_table(run.rows, run.record.seen, width, left, bars=bars)
        tables += [*whole, *(["", *by_attack] if by_attack else [])]
        if by_attack:
            break
    screen = Text(f"{_head(run.record, width)}\n")
    screen.append("\n".join(verdict), style="bold")
    return screen.append("\n".join(["", *(["", *tables] if tables else []), "", *below]))


def _head(record: RunRecord, width: int) -> str:
    def count(number: int, what: str) -> str:
        return f"{number or 'no'} {what}{'' if number == 1 else 's'}"

    seconds = sum(job.seconds or 0.0 for job in record.jobs)
    took = f" ({format_duration(seconds)})" if seconds >= 1 else ""
    shipped = ["references shipped"] if record.references else []
    jobs = count(len(record.jobs), "job") + took
    parts = [jobs, *shipped, f"engine {record.engine}", record.dtype]
    if record.method:
        parts = [count(len(record.attacks), "attack"), count(len(record.seeds), "seed"), *parts]
    method = record.method_name.rpartition("/")[2]  # of a file, its name
    line = f"{method or 'a model'} on {record.suite}: {parts[0]}"
    for part in parts[1:]:
        if len(line) + len(part) + 2 <= width:
            line += f", {part}"
    return clipped(line, width)


def _wrapped(text: str, width: int) -> list[str]:
    """Return lines; no interval and no `1 - metric` goes over two."""
    kept = _WHOLE.sub(lambda found: found[0].replace(" ", NO_BREAK), text)
    lines = textwrap.wrap(kept, width, break_on_hyphens=False, break_long_words=False)
    return [line.replace(NO_BREAK, " ") for line in lines]


# --------------------------------------------------------------------------- what is unusual


def _notes(run: Ended, width: int, most: int) -> list[str]:
    """What is unusual, at most two lines each, the record's notes on one; as many as have room."""
    told = [
        *(_wrapped(text, width - 2) for text in _unusual(run)),
        *([clipped(text, width - 2)] for text in _other_notes(run)),
    ]
    lines: list[str] = []
    for place, (first, *others) in enumerate(told):
        added = [f"! {clipped(first, width - 2)}"]
        if others:
            added.append(f"  {clipped(' '.join(others), width - 2)}")
        if len(lines) + len(added) > most - (place + 1 < len(told)):
            return [*lines, f"! and {len(told) - place} more, with --details"]
        lines += added
    return lines


def _unusual(run: Ended) -> Iterator[str]:
    record, rows = run.record, run.rows
    for failure in record.failures:
        yield f"failed: {failure.label}: {failure.message}"
    attacks = attacks_of(rows).values()
    fallen = _fallen(attacks)
    if fallen:
        listed = ", ".join(f"{name} to {least:.0%}" for name, least in fallen.items())
        yield f"utility falls below {KEPT_UTILITY:.0%} of what unlearning left: {listed}"
    yield from filter(None, map(selection_note, attacks))
    seen = [name for name in record.attacks if name in record.seen]
    if seen and rows:
        core = {name for row in rows.values() for name in row.ra_core_attacks}
        counted = [name for name in seen if name in core]
        yield f"{', '.join(f'{name}*' for name in seen)}: seen, the method trains on it; " + (
            f"{RA_CORE} counts {', '.join(counted)}, and so there is no rank"
            if counted
            else f"not in {RA_CORE}, but in {RECOVERY}"
            if core
            else "all figures count it"
        )
    if len(record.seeds) == 1 and rows:
        yield "1 seed: intervals are over items only, and nothing can be ranked"


def _fallen(attacks: Iterable[AttackFigures]) -> dict[str, float]:
    """Attacks that destroy the utility -> the least that they leave."""
    found = {}
    for attack in attacks:
        left = [s.utility_kept.value for s in attack.steps if s.step > 0 and not s.eligible]
        known = [value for value in left if value is not None]
        if known:
            found[attack.attack] = min(known)
    return found


def _other_notes(run: Ended) -> Iterator[str]:
    """The record's notes, without what is said already and where the attacks' settings are from."""
    said = {*row_notes(run.rows), *shipped_notes(run.record.references)}
    if run.suite is not None:
        attacks = {name: run.suite.attacks[name] for name in run.record.attacks}
        for changed in ({}, dict.fromkeys(attacks, False), dict.fromkeys(attacks, True)):
            said |= {*protocol_notes(attacks, changed)}
    yield from (note for note in run.record.notes if note not in said)


# --------------------------------------------------------------------------- where, and what next


def _pointers(run: Ended, width: int) -> list[str]:
    """Where the results lie, and the next command with how long it will take."""
    shown = ["ilubench", "show", str(_near(run.folder)), "--details"]
    words, say = _next(run)
    page = run.folder / PAGE
    lines = [f"report   {_near(page)}"] if page.is_file() else [f"results  {_results(run.folder)}"]
    lines += _command("details", shown, width)
    if words:
        return [*lines, *_command("next", words, width, say)]
    first, *others = _wrapped(say, width - 9)
    return [*lines, f"next     {first}", *(" " * 9 + line for line in others)]


def _results(folder: Path) -> str:
    return str(_near(folder)) + ("" if folder.is_file() else "/")


def _near(folder: Path) -> Path:
    """The folder as it is shortest from here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _command(name: str, words: Sequence[str], width: int, say: str = "") -> list[str]:
    """A command on as many lines as it needs, each but the last with a backslash at its end."""
    first, *others = map(shlex.quote, words)
    lines = [f"{name:<9}{first}"]
    for word in others:
        if len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append(" " * 10)
        lines[-1] += f" {word}"
    if len(lines[-1]) + len(say) + 2 > width:
        lines.append(" " * 7)
    return [*lines[:-1], f"{lines[-1]}  {say}".rstrip()]


def _next(run: Ended) -> tuple[list[str], str]:
    """A command, empty where the words of the last one are not known, and what it is for."""
    record, command = run.record, list(run.command)
    suite = _suite_word(run)
    following = ["ilubench", "ls", "methods", suite], "for another to compare with"
    if record.failures:
        following = command, "tries again what failed" if command else "the same command again"
    elif not record.method:
        following = ["ilubench", "attack", "MODEL", suite], "does it come back?"
    elif not record.attacks:
        attacked = [word for word in command if not word.startswith("attacks=")]
        following = attacked, "attacks it"
        if attacked == command:
            following = ["ilubench", "ls", "attacks"], "then the same with attacks=NAME,NAME"
    elif record.method_name == REFERENCE:
        following = ["ilubench", "gates", str(_near(run.folder))], "are the attacks any good?"
    elif len(record.seeds) == 1:
        following = _more_seeds(record, command)
    elif record.method_name == "ilu" and command:
        following = _with(command, "method.penalty=cross_entropy"), "the control"
    return following


def _suite_word(run: Ended) -> str:
    given = [word for word in run.command if word.startswith("suite=")]
    try:
        task_file("suites", run.record.suite)
        own = f"suite={run.record.suite}"
    except SpecError:
        own = "suite=FILE"
    return given[-1] if given else own


def _more_seeds(record: RunRecord, command: Sequence[str]) -> tuple[list[str], str]:
    new = 5 - (record.seeds[0] in range(5))
    seconds = new * sum(job.seconds or 0.0 for job in record.jobs if job.stage != "target")
    about = f"(about {format_duration(seconds)}, job after job)" if seconds else ""
    if command:
        return _with(command, FIVE_SEEDS), about
    return [], f"the same command with {FIVE_SEEDS} {about}".rstrip()


def _with(command: Sequence[str], word: str) -> list[str]:
    """The command with this word in place of the one that has its key."""
    key = word.partition("=")[0]
    return [*(one for one in command if one.partition("=")[0] != key), word]
