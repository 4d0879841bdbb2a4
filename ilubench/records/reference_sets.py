"""Reference result sets: finished runs of `none` and `retrain` that come with a suite.

In a clone they lie in `leaderboards/<suite>/measured/`, in an installed package beside its modules
(`pyproject.toml` says which are carried).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import DataError
from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.keys import file_sha256
from ilubench.records.results import REFERENCE, RETRAIN, ReferenceRecord, Who
from ilubench.records.scores import SCHEMA, plain_samples
from ilubench.specs.untrusted import read_json

__all__ = [
    "METHODS",
    "ReferenceSet",
    "find_set",
    "read_set",
    "reference_rows",
    "rows_taken",
    "seed_words",
    "shipped_notes",
    "taken_words",
]

METHODS: dict[Who, str] = {"reference": REFERENCE, "retrain": RETRAIN}
"""Whose samples a set has -> the method that it is a run of."""


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """A reference's finished run.

    Attributes:
        who: whose it is in the runs that take it.
        run: the finished run; its samples were read.
        sha256: of the file of its samples.
        machine: that it was measured on; empty where nothing tells.
    """

    who: Who
    run: FinishedRun
    sha256: str
    machine: str

    @property
    def samples(self) -> pa.Table:
        """Every sample of the run."""
        assert self.run.samples is not None  # `read_set` refuses a run without
        return self.run.samples


def taken_words(who: Who, taken: ReferenceRecord) -> str:
    """Return what a run took from a set: attacks, seeds, the set's run, libraries and machine."""
    names = ("torch", "transformers")
    told = [f"{name} {taken.libraries[name]}" for name in names if name in taken.libraries]
    origin = f"{taken.run} ({', '.join([*told, taken.machine or 'machine unknown'])})"
    return (
        f"{METHODS[who]} under {', '.join(taken.attacks)}, {seed_words(taken.seeds)}: of {origin}"
    )


def shipped_notes(references: Mapping[Who, ReferenceRecord]) -> Iterator[str]:
    """Yield what a reader of a run's figures must know of the sets that it took samples from."""
    for who, taken in references.items():
        yield f"shipped with the suite, not measured in this run: {taken_words(who, taken)}"


def seed_words(seeds: Sequence[int]) -> str:
    """Return seeds as people read them: `seeds 0..4`, `seed 7`."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and list(seeds) == list(range(first, last + 1)):
        return f"seeds {first}..{last}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def find_set(suite: str, who: Who) -> Path | None:
    """Return the folder of a suite's reference result set; None where none comes with it."""
    package = Path(__file__).parents[1]
    inside = package / "_references"
    place = (
        inside / suite if inside.is_dir() else package.parent / "leaderboards" / suite / "measured"
    )
    folder = place / METHODS[who]
    # runs of the first versions have no configuration: nobody can tell what they measured
    return folder if (folder / "config.yaml").is_file() else None


def read_set(folder: Path, who: Who) -> ReferenceSet:
    """Return a reference result set.

    Raises:
        DataError: a file is missing or wrong; names it.
    """
    run = read_run(folder)
    if run.samples is None:
        raise DataError(f"{folder}: {run.unread}")
    return ReferenceSet(who, run, file_sha256(folder / "samples.parquet"), _machine(folder))


def reference_rows(found: ReferenceSet, told: ReferenceRecord) -> pa.Table:
    """Return what a run takes of a set, as the run has it.

    A score before any attack has the run's last seed, as of any model without randomness.
    """
    own = "reference" if found.who == "reference" else "method"
    rows = rows_taken(found.samples, own, told)
    seeds = pc.if_else(pc.equal(rows["attack"], ""), told.seeds[-1], rows["seed"])
    who = pa.array([found.who] * len(rows), pa.string())
    return pa.table(
        {**dict(zip(SCHEMA.names, rows.columns, strict=True)), "who": who, "seed": seeds}
    )


def rows_taken(samples: pa.Table, who: str, told: ReferenceRecord) -> pa.Table:
    """Return the rows of ``who`` that a record says were taken."""
    mine = samples.filter(pc.equal(samples["who"], who))
    attacked = pc.is_in(mine["attack"], pa.array(told.attacks, pa.string()))
    cells = pc.and_(attacked, pc.is_in(mine["seed"], pa.array(told.seeds, pa.int64())))
    taken = pc.or_(cells, pc.equal(mine["attack"], "")) if told.scored else cells
    return plain_samples(mine.filter(taken))


def _machine(folder: Path) -> str:
    """Platform and device by the run's `env.json`."""
    file = folder / "env.json"
    told = read_json(file) if file.exists() else {}
    named = [told.get(name) for name in ("platform", "device")] if isinstance(told, dict) else []
    return ", ".join(one for one in named if isinstance(one, str))
