"""Versioned output models: what runs leave behind and leaderboards read.

How a record grows:

- Each kind of record has a version of its own, `schema_version`. Any new field and any new figure
  of a row raises it by one: the default and the upper bound of that field.
- A new field has a default. A new figure of a row (`ilubench.statistics.row`) is `None` by default
  and says `metadata={"since": VERSION}`. A record of an older version has none: it is not compared
  with it, but computed again from the samples.
- A field or figure that changes its meaning or type keeps its name; `rows_of` reads the old form.
- Nothing is renamed or dropped. Written records are never rewritten.
- A newer version than this ilubench knows is refused by name, before any field is looked at.

Versions of `RunRecord`: 1, notes of figures were words; 2, they are a kind with its data; 3, the
intervals of bounded quantities lie within their bounds, and it says ranges, conditions, libraries;
4, it names the reference result sets that it took samples from; 5, it has the suite's composites,
and may have the scores of the untouched model; 6, it may have further attacks, which RA leaves out,
attacks with trials, whose figures and settings it has; the others are reported beside a control;
7, it says what sums on the CPU were computed with.
Versions of `ScoreRecord`: 1; 2, a trial's settings.
Versions of `JobRecord`: 1; 2, it names its attack.
"""

import re
from typing import Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator

from ilubench.errors import StoreError
from ilubench.records.old_notes import with_kinds
from ilubench.specs import Estimator, Range
from ilubench.statistics.row import RobustnessRow

__all__ = [
    "BOUNDED",
    "COMPOSED",
    "REFERENCE",
    "RETRAIN",
    "CompositeScore",
    "FailureRecord",
    "JobRecord",
    "ModelScore",
    "OverlapRecord",
    "ReferenceRecord",
    "RunRecord",
    "ScoreRecord",
    "ScoreSummary",
    "TrialRecord",
    "Who",
    "newest_version",
    "rows_of",
]

Who: TypeAlias = Literal["method", "reference", "retrain", "untouched"]
"""Whose: the method's, the original model's (`none`), that of the model that never knew, that of
the model before it was taught (only scored, for chance levels)."""


class Record(BaseModel):
    """Base of everything that is written to be read again."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: int = Field(default=1, ge=1, le=1)

    @model_validator(mode="before")
    @classmethod
    def _check_version(cls, values: Any) -> Any:  # noqa: ANN401
        """Refuse what a newer ilubench wrote.

        Raises:
            StoreError: names the kind of record and both versions.
        """
        known = newest_version(cls)
        found = values.get("schema_version", known) if isinstance(values, dict) else known
        if type(found) is not int:
            problem = f"{cls.__name__}: schema_version: {found!r} is no whole number"
            raise StoreError(f"{problem}; the newest is {known}")
        if found > known:
            problem = f"{cls.__name__} has schema version {found!r}; this ilubench reads up to"
            raise StoreError(f"{problem} {known}: upgrade ilubench")
        return values


def newest_version(kind: type[BaseModel]) -> int:
    """Return the version that this ilubench writes of a kind of record."""
    return cast("int", kind.model_fields["schema_version"].default)


class ScoreSummary(BaseModel):
    """One metric at one checkpoint: how many items, their estimate and its standard error.

    ``most_chosen`` is the share of the items for which the most chosen option was chosen, where
    options were compared: 1 for a model that answers "A" to everything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scorer: str
    metric: str
    estimator: Estimator
    value: float
    se: float | None
    n: int = Field(ge=1)
    most_chosen: float | None = None


class ModelScore(ScoreSummary):
    """A metric of the unlearned model, or of one that it is compared with, before any attack."""

    who: Who
    seed: int


class CompositeScore(BaseModel):
    """A composite of one model at one checkpoint, over the seeds; a `ks` is their median.

    ``attack`` is empty, and ``step`` 0, before any attack. ``level`` names the checkpoint of an
    attack that takes no steps. A p-value has no interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    label: str
    kind: Literal["harmonic_mean", "ks"]
    who: Who
    attack: str = ""
    step: int = 0
    level: str = ""
    value: float
    low: float | None = None
    high: float | None = None
    n_seeds: int = Field(ge=1)


class ScoreRecord(Record):
    """All metrics of one model at one point; the samples lie beside it as Parquet.

    ``place`` counts the checkpoints of an attack that takes no steps, from 1. ``settings`` are what
    an attack that tunes chose.
    """

    schema_version: int = Field(default=2, ge=1, le=2)
    checkpoint: str
    step: int | None = None
    level: str | None = None
    place: int | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    summaries: tuple[ScoreSummary, ...]


class TrialRecord(BaseModel):
    """The settings of one trial of an attack that tunes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    who: Who
    attack: str
    seed: int
    trial: int = Field(ge=1)
    settings: dict[str, JsonValue]


class FailureRecord(Record):
    """A job that failed, and why."""

    label: str
    kind: str
    message: str


class JobRecord(Record):
    """One job of a run's plan; ``attack`` is its name in the suite, empty where none is made."""

    schema_version: int = Field(default=2, ge=1, le=2)

    stage: str
    key: str
    label: str
    attack: str = ""
    state: Literal["cached", "done", "failed", "skipped", "planned"]
    seconds: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_attack(cls, values: Any) -> Any:  # noqa: ANN401
        """Take the attack of a version 1 from its label, the only place that had it."""
        if not isinstance(values, dict) or values.get("schema_version") != 1:
            return values
        named = re.search(r" with (\S+), seed \d+$", str(values.get("label", "")))
        return {**values, "attack": named[1] if named else ""}


class OverlapRecord(BaseModel):
    """How many of a scorer's items are in a training text (`ilubench.data.overlap` has the rule).

    Attributes:
        role: of the training text: an attack's (`gsm8k.train`), or the suite's.
        scorer: the suite's (`forget_mc`), an attack's own (`gsm8k/fa`), or `forget set` and
            `retain set`, whose rows are looked for then.
        items: number of items.
        contained: of those, how many are contained.
        share: contained / items.
        ids: of the first ten contained items.
        duplicates: how many stand there word for word.
        duplicate_ids: of the first ten of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    role: str
    scorer: str
    items: int = Field(ge=1)
    contained: int
    share: float
    ids: tuple[str, ...] = ()
    duplicates: int = 0
    duplicate_ids: tuple[str, ...] = ()


class ReferenceRecord(BaseModel):
    """A reference's samples that a run did not measure, but took from a finished one.

    Attributes:
        run: the finished one.
        samples: SHA-256 of its samples.
        attacks: those of which the samples are.
        seeds: of the attacks.
        scored: whether the score before any attack is taken, too.
        machine: that it was measured on; empty where nothing tells.
        libraries: versions that it was measured with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    samples: str
    attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    scored: bool
    machine: str = ""
    libraries: dict[str, str] = Field(default_factory=dict)


class RunRecord(Record):
    """A finished run: the row, where it came from, what failed.

    ``method`` is empty where a model was only scored.

    ``further`` has those of the attacks that RA and ranks leave out.

    ``protocol`` has, for each attack, all that two runs must have alike to stand in one table:
    plugin, settings, the rows that it trains on, the FA task. ``data`` has, for each role that was
    read, the hash of its rows; ``target`` is that of the model that knows. ``ranges`` has, for each
    metric (`scorer.metric`, `attack/fa.metric`) with bounds, what an item can score. ``conditions``
    is what scores depend on besides, ``libraries`` the versions that were installed. ``arithmetic``
    is what its jobs' sums on a CPU were computed with, which changes them by 1e-6 to 5e-5: the
    number of threads, the kernels of torch; each that there was. ``references`` has the models
    whose samples were not measured in this run. They are empty in records that were written before
    they were there. ``rows`` are as they stand in the file: `rows_of` reads them.
    """

    schema_version: int = Field(default=7, ge=1, le=7)
    run: str
    suite: str
    suite_version: int
    method: dict[str, JsonValue]
    method_version: int
    seeds: tuple[int, ...]
    attacks: tuple[str, ...]
    further: tuple[str, ...] = ()
    engine: str
    dtype: str
    seen: tuple[str, ...] = ()
    scores: tuple[ModelScore, ...] = ()
    composites: tuple[CompositeScore, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    rows: dict[str, JsonValue]
    cost: dict[str, float]
    jobs: tuple[JobRecord, ...]
    failures: tuple[FailureRecord, ...] = ()
    protocol: dict[str, JsonValue] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    target: str = ""
    ranges: dict[str, Range] = Field(default_factory=dict)
    conditions: dict[str, str | int] = Field(default_factory=dict)
    libraries: dict[str, str] = Field(default_factory=dict)
    arithmetic: dict[str, str] = Field(default_factory=dict)
    references: dict[Who, ReferenceRecord] = Field(default_factory=dict)
    overlap: tuple[OverlapRecord, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def benign(self) -> tuple[str, ...]:
        """The attacks that RA is over."""
        return tuple(attack for attack in self.attacks if attack not in self.further)

    @property
    def method_name(self) -> str:
        """The method's name; empty where a model was only scored."""
        return str(self.method.get("use", ""))


def rows_of(record: RunRecord) -> dict[str, RobustnessRow]:
    """Return primary metric -> row, of a record of any version.

    Raises:
        ValidationError: they are no rows; names the field.
    """
    rows = with_kinds(record.rows) if record.schema_version == 1 else record.rows
    return TypeAdapter(dict[str, RobustnessRow]).validate_python(rows)


BOUNDED = 3
"""Version of `RunRecord` from which on the intervals of its rows are within bounds."""


COMPOSED = 5
"""Version of `RunRecord` from which on it has the suite's composites."""


REFERENCE = "none"
"""The method that every row is compared with."""


RETRAIN = "retrain"
"""The method that returns the model that never knew."""
