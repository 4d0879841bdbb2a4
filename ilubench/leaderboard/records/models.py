"""What lies in `leaderboards/<suite>/`: entries, reported rows, attacks; versioned models.

All of it may come from strangers: it is data, read by `ilubench.leaderboard.records.files` alone,
which bounds sizes and refuses what JSON leaves open (duplicate keys, NaN).
"""

import re
from datetime import date
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from ilubench.records.results import Record, RunRecord

__all__ = [
    "MAX_SAMPLES",
    "AttackEntry",
    "AttackResult",
    "Comparison",
    "Entry",
    "Package",
    "Pointer",
    "Reported",
    "ReportedFigure",
    "Submission",
    "Verification",
    "Weights",
]

MAX_SAMPLES = 20_000_000
"""Bytes that a record's samples may have."""

Tier: TypeAlias = Literal["reported", "submitted", "verified-weights", "verified-method"]
"""How far a row can be trusted: from a paper; run by its author; a maintainer attacked the
published weights again; a maintainer ran the method itself again."""


def _plain_id(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", text):
        raise ValueError("use lower case letters, digits, - and _, at most 64")
    return text


def _is_device(name: str) -> bool:
    """Whether Windows takes a file of that name for a device, whatever its ending."""
    stem = name.partition(".")[0].upper()
    return re.fullmatch(r"CON|PRN|AUX|NUL|(COM|LPT)[0-9]", stem) is not None or name[-1] == "."


def _inside(text: str) -> str:
    """Refuse a path that could lead out of the suite's folder, on any system."""
    parts = PurePosixPath(text).parts
    plain = all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", part) for part in parts)
    plain = plain and "/".join(parts) == text and not any(map(_is_device, parts))
    if not parts or not plain or len(parts) > 3 or not text.endswith(".parquet"):
        raise ValueError("must be the plain relative path of a .parquet file beside the record")
    return text


def is_address(text: str) -> bool:
    """Whether it is an https address, and nothing that a browser would run."""
    return re.fullmatch(r"https://[A-Za-z0-9.-]+(:[0-9]+)?(/[!-~]*)?", text) is not None


def _link(text: str) -> str:
    if text and not is_address(text):
        raise ValueError("must be an https:// address, or empty")
    return text


EntryId: TypeAlias = Annotated[str, AfterValidator(_plain_id)]
Sha256: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Link: TypeAlias = Annotated[str, Field(max_length=500), AfterValidator(_link)]
Line: TypeAlias = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text: TypeAlias = Annotated[str, Field(max_length=5000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Pointer(_Part):
    """A file beside the record: its path in the suite's folder, its hash and size in bytes."""

    path: Annotated[str, AfterValidator(_inside)]
    sha256: Sha256
    bytes: int = Field(ge=1, le=MAX_SAMPLES)


class Weights(_Part):
    """The unlearned weights of one seed: `model.safetensors` and where it can be had.

    ``url`` is an https address, empty where the weights are not published; such a row cannot reach
    the tier `verified-weights`.
    """

    seed: int
    sha256: Sha256
    bytes: int = Field(ge=1)
    url: Link = ""


class Package(_Part):
    """The code of a method or attack, pinned: what a maintainer reviews and installs."""

    name: Line
    version: Line
    sha256: Sha256
    url: Link = ""


class Submission(_Part):
    """Who sent a record in, when, and what belongs to it."""

    by: Line
    day: date
    code: Link = ""
    paper: Link = ""
    citation: Text = ""
    remarks: Text = ""


class Comparison(_Part):
    """One figure as submitted and as verified.

    ``low`` and ``high`` are the prediction interval of verified - submitted; those of all figures
    of a verification hold together with 95 %. It excludes 0 where the row is disputed.
    """

    metric: Line
    figure: Line
    submitted: float
    verified: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> "Comparison":
        if self.low > self.high:
            raise ValueError("low must not lie above high")
        return self

    @property
    def disputed(self) -> bool:
        """Whether the difference is more than seeds and items explain."""
        return not self.low <= 0 <= self.high


class Verification(_Part):
    """One verification of a row: what a maintainer measured with fresh seeds."""

    kind: Literal["weights", "method"]
    by: Line
    day: date
    seeds: tuple[int, ...] = Field(min_length=1)
    run: RunRecord
    samples: Pointer
    comparisons: tuple[Comparison, ...] = Field(min_length=1)

    @property
    def disputed(self) -> bool:
        """Whether one of the figures is."""
        return any(one.disputed for one in self.comparisons)


class Entry(Record):
    """One method on one suite, measured: `leaderboards/<suite>/<entry>.json`.

    Attributes:
        kind: tells the kinds of records apart.
        entry: the row's name, `<label>-<method version>`; the file's name.
        title: what tables show.
        run: the run's record, with its figures.
        config: the run's `config.yaml`: everything resolved, the suite included.
        environment: the run's `env.json`.
        samples: every score of the run, from which the figures follow.
        weights: of each seed, where the method's weights were kept.
        trains_on: data roles of the suite that the method is declared to train on.
        package: of a method that does not come with ilubench.
        submission: who, when, what belongs to it.
        verifications: oldest first.
    """

    kind: Literal["entry"] = "entry"
    entry: EntryId
    title: Line
    run: RunRecord
    config: dict[str, JsonValue]
    environment: dict[str, JsonValue]
    samples: Pointer
    weights: tuple[Weights, ...] = ()
    trains_on: tuple[Line, ...] = ()
    package: Package | None = None
    submission: Submission
    verifications: tuple[Verification, ...] = ()

    @property
    def tier(self) -> Tier:
        """The highest tier that a verification gave it; a dispute does not lower it."""
        kinds = {one.kind for one in self.verifications}
        if "method" in kinds:
            return "verified-method"
        return "verified-weights" if "weights" in kinds else "submitted"

    @property
    def disputed(self) -> bool:
        """Whether a verification contradicts it, and none of the same kind did not later."""
        latest = {one.kind: one.disputed for one in self.verifications}
        return any(latest.values())


class ReportedFigure(_Part):
    """A published number, on the scale on which it was published.

    ``state`` is what had happened to the model: `original`, `unlearned`, or an attack's name;
    `mean` for an average over attacks.
    """

    metric: Line
    state: Line
    value: float
    higher_is: Literal["better forgotten", "more known", "more useful", "more costly"]


class Reported(Record):
    """A row of a paper: `leaderboards/<suite>/reported/<entry>.json`. It is never ranked.

    Attributes:
        kind: tells the kinds of records apart.
        entry: the row's name; the file's name.
        title: what tables show.
        suite: the suite that comes nearest.
        model: what was unlearned.
        source: copied from the `paper`, from its `poster`, or from others' `notes` of it.
        checked: whether somebody compared the transcription with the publication.
        citation: BibTeX, or words.
        paper: where it is.
        where: table or figure in it.
        figures: the numbers.
        remarks: what a reader must know.
    """

    kind: Literal["reported"] = "reported"
    entry: EntryId
    title: Line
    suite: EntryId
    model: Line
    source: Literal["paper", "poster", "notes"]
    checked: bool
    citation: Text
    paper: Link = ""
    where: Line
    figures: tuple[ReportedFigure, ...] = Field(min_length=1)
    remarks: Text = ""


class AttackResult(_Part):
    """What an attack did to one entry: the run of that attack alone, and its samples."""

    entry: EntryId
    run: RunRecord
    samples: Pointer
    verified: bool = False


class AttackEntry(Record):
    """An attack on existing entries: `leaderboards/<suite>/attacks/<entry>.json`.

    A verified result that brings back more than the suite's own attacks lowers the entry's worst
    case, with credit.
    """

    kind: Literal["attack"] = "attack"
    entry: EntryId
    title: Line
    suite: EntryId
    suite_version: int
    config: dict[str, JsonValue]
    package: Package | None = None
    results: tuple[AttackResult, ...] = Field(min_length=1)
    submission: Submission

    @model_validator(mode="after")
    def _once_each(self) -> "AttackEntry":
        names = [one.entry for one in self.results]
        if len(set(names)) != len(names):
            raise ValueError("an entry is attacked twice")
        return self
