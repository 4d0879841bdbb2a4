"""The leaderboards as people read them: a table in each suite's README, and one page for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ilubench.errors import DataError
from ilubench.leaderboard.records.files import Board, list_suites, read_board
from ilubench.leaderboard.site.html import render_page
from ilubench.leaderboard.site.plain import plain_tables
from ilubench.leaderboard.site.ranked import EntryGroup, ranked_groups
from ilubench.leaderboard.site.readme import readme_text
from ilubench.leaderboard.site.view import page_data
from ilubench.records.store import write_atomic

__all__ = ["Built", "build_site", "find_stale"]

README = "README.md"
PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class Built:
    """What was written.

    Attributes:
        page: the page's file.
        size: its bytes.
        readmes: suites' READMEs that changed.
    """

    page: Path
    size: int
    readmes: tuple[Path, ...]


def build_site(root: Path, out: Path, repository: str = "") -> Built:
    """Write each suite's README table, and the page of all suites.

    Args:
        root: the folder of the suites' folders.
        out: the folder that gets the page.
        repository: the address that the page links to as the records' repository.

    Raises:
        UsageError: entries that stand in one table are not alike.
        DataError: a record cannot be read, its figures do not follow from its samples, or a README
            has no place for its tables.
        StoreError: a file cannot be written.
    """
    boards = _compared(root)
    content = render_page(page_data(boards), [*plain_tables(boards)], repository).encode()
    changed = [(file, new) for file, old, new in _readmes(boards) if new != old]
    for file, new in changed:
        write_atomic(file, new.encode())
    write_atomic(out / PAGE, content)
    return Built(out / PAGE, len(content), tuple(file for file, _ in changed))


def find_stale(root: Path) -> tuple[Path, ...]:
    """Return the suites' READMEs whose tables do not follow from the records; nothing is written.

    Whether the records follow from their samples is for :mod:`ilubench.leaderboard.check`.

    Raises:
        UsageError: entries that stand in one table are not alike.
        DataError: a record cannot be read, or a README has no place for its tables.
    """
    readmes = _readmes(_compared(root, checked=True))
    return tuple(file for file, old, new in readmes if new != old)


# --- inside ---

Compared = Sequence[tuple[Board, Sequence[EntryGroup]]]


def _compared(root: Path, *, checked: bool = False) -> Compared:
    """The suites that have rows, each with its entries compared."""
    boards = [read_board(folder) for folder in list_suites(root)]
    return [
        (board, ranked_groups(board, checked=checked))
        for board in boards
        if board.entries or board.reported
    ]


def _readmes(boards: Compared) -> list[tuple[Path, str | None, str]]:
    """(file, its text or None, its text anew) for each suite."""
    found = []
    for board, groups in boards:
        file = board.folder / README
        old = _read(file)
        found.append((file, old, readme_text(old, board, groups)))
    return found


def _read(file: Path) -> str | None:
    if file.is_symlink():
        raise DataError(f"{file} is a link; put the file itself there")
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
