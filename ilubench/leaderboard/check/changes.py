"""What a change does to the records, and what of it only a maintainer may have written.

A record can be in order and still claim what its author cannot give: that it was verified. `check`
sees no authors; whoever merges a change must.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ilubench.leaderboard.records.files import Board, list_suites, read_board
from ilubench.leaderboard.records.models import AttackEntry, Entry, Reported

__all__ = ["Change", "list_changes"]


@dataclass(frozen=True, slots=True)
class Change:
    """One line on one record.

    Attributes:
        record: suite and kind of record, and its name.
        what: is new, changed or gone.
        reserved: whether only a maintainer may have written it.
    """

    record: str
    what: str
    reserved: bool = False


def list_changes(before: Path, after: Path) -> list[Change]:
    """Return what differs between two `leaderboards` folders, by suite.

    Reserved to maintainers: verifications, results of attacks that count as verified,
    transcriptions that count as compared with the publication, and any change of what was there.

    Args:
        before: as it is.
        after: as it would be; may be a stranger's, every record is read as data.

    Raises:
        DataError: a record that cannot be read; `check` names all of them.
    """
    old, new = ({path.name: path for path in list_suites(root)} for root in (before, after))
    return [
        change
        for suite in sorted(old.keys() | new.keys())
        for change in _suite(suite, _board(old.get(suite)), _board(new.get(suite)))
    ]


# --- inside ---


def _board(folder: Path | None) -> Board | None:
    return None if folder is None else read_board(folder)


def _suite(suite: str, old: Board | None, new: Board | None) -> Iterator[Change]:
    for kind in ("entries", "reported", "attacks"):
        had, has = (
            {record.entry: record for record in getattr(board, kind)} if board else {}
            for board in (old, new)
        )
        for name in sorted(had.keys() | has.keys()):
            for what, reserved in _record(had.get(name), has.get(name)):
                yield Change(f"{suite}/{_folder(kind)}{name}", what, reserved)


def _folder(kind: str) -> str:
    return "" if kind == "entries" else f"{kind}/"


def _record(
    old: Entry | Reported | AttackEntry | None, new: Entry | Reported | AttackEntry | None
) -> Iterator[tuple[str, bool]]:
    if new is None:
        yield "is gone", True
        return
    if old is None:
        yield "is new", False
    elif old != new:
        yield "is changed", True
    claimed = set(_claims(new)) - (set(_claims(old)) if old is not None else set())
    for claim in sorted(claimed):
        yield claim, True


def _claims(record: Entry | Reported | AttackEntry) -> Iterator[str]:
    """What a record says of having been looked at by somebody else."""
    if isinstance(record, Entry):
        for one in record.verifications:
            seeds = ", ".join(map(str, one.seeds))
            by = f"by {one.by} on {one.day} (seeds {seeds})"
            yield f"claims a verification of its {one.kind} {by}"
    elif isinstance(record, AttackEntry):
        for result in record.results:
            if result.verified:
                yield f"claims a verified result against {result.entry}"
    elif record.checked:
        yield "claims to have been compared with the publication"
