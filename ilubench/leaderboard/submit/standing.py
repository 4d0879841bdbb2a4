"""Where a submitted run will stand: with a rank, without one and why, or refused by `check`."""

from collections.abc import Iterator
from pathlib import Path

from ilubench.errors import UsageError
from ilubench.leaderboard.check.suite import suite_problems
from ilubench.leaderboard.records.files import read_board, read_entry_run
from ilubench.records.comparing import check_alike
from ilubench.records.finished import REFERENCES, FinishedRun
from ilubench.records.wording import note_text, table_note_texts
from ilubench.specs.yaml_files import task_names
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.ranks import SHARED_SEEDS, few_seeds

__all__ = ["standing"]


def standing(run: FinishedRun, name: str, place: Path) -> Iterator[str]:
    """Yield why a run will have no rank, or what will stand beside its rank; nothing if neither.

    Args:
        run: with its samples.
        name: of its entry.
        place: the folder of its suite's records; need not be there.

    Raises:
        DataError: a record there cannot be read.
    """
    assert run.suite is not None  # there are samples
    problem = next(suite_problems(run.record, run.suite, run.settings), None)
    if problem is not None:
        yield f"`leaderboard check` will refuse it, its suite was changed: {problem}"
    if run.record.suite not in task_names("suites"):
        yield f"suite {run.record.suite} does not come with ilubench: it has a table of its own"
    if run.record.method_name in REFERENCES:
        return
    reasons: dict[Note, list[str]] = {}
    for label in run.rows:
        why = run.bar(label)
        if why is None and len(run.record.seeds) < SHARED_SEEDS:
            why = Note(NoteKind.ONE_SEED)
        if why is not None:
            reasons.setdefault(why, []).append(label)
    for why, labels in reasons.items():
        yield f"it will be listed without a rank in {', '.join(labels)}: {note_text(why)}"
    if not reasons:
        yield from table_note_texts(few_seeds(len(run.record.seeds)))
    yield from _beside(run, name, place)


# --- inside ---


def _beside(run: FinishedRun, name: str, place: Path) -> Iterator[str]:
    """How it goes with the entries that are there."""
    others = [
        entry
        for entry in (read_board(place).entries if place.is_dir() else ())
        if entry.entry != name and entry.run.suite_version == run.record.suite_version
    ]
    if not others:
        return
    try:
        check_alike([read_entry_run(others[0], place), run])
    except UsageError as error:
        yield f"it will have no rank beside the others: {error}"
        return
    ranked = [entry for entry in others if entry.run.method_name not in REFERENCES]
    mine = {*run.record.seeds}
    apart = tuple(one.entry for one in ranked if len(mine & {*one.run.seeds}) < SHARED_SEEDS)
    if len(mine) >= SHARED_SEEDS and apart and len(apart) == len(ranked):
        why = note_text(Note(NoteKind.FEW_SHARED_SEEDS, apart))
        yield f"it will be listed without a rank: {why}"
