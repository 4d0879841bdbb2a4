"""Versioned output models: what runs leave behind and leaderboards read."""

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ilubench.errors import StoreError
from ilubench.specs import Estimator

__all__ = [
    "REFERENCE",
    "RETRAIN",
    "FailureRecord",
    "JobRecord",
    "ModelScore",
    "OverlapRecord",
    "RunRecord",
    "ScoreRecord",
    "ScoreSummary",
    "Who",
]

SCHEMA: Literal[1] = 1

Who: TypeAlias = Literal["method", "reference", "retrain"]
"""Whose: the method's, the original model's (`none`), that of the model that never knew."""


def upgrade(values: dict[str, JsonValue], kind: str) -> dict[str, JsonValue]:
    """Return a stored record as the current schema has it.

    Raises:
        StoreError: the record was written by a newer ilubench.
    """
    found = values.get("schema_version", SCHEMA)
    if not isinstance(found, int) or found > SCHEMA:
        problem = f"{kind} has schema version {found!r}; this ilubench reads up to {SCHEMA}"
        raise StoreError(f"{problem}: upgrade ilubench")
    return values


class Record(BaseModel):
    """Base of everything that is written to be read again."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = SCHEMA

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, values: Any) -> Any:  # noqa: ANN401
        return upgrade(values, cls.__name__) if isinstance(values, dict) else values


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


class ScoreRecord(Record):
    """All metrics of one model at one point; the samples lie beside it as Parquet.

    ``place`` counts the checkpoints of an attack that takes no steps, from 1.
    """

    checkpoint: str
    step: int | None = None
    level: str | None = None
    place: int | None = None
    summaries: tuple[ScoreSummary, ...]


class FailureRecord(Record):
    """A job that failed, and why."""

    label: str
    kind: str
    message: str


class JobRecord(Record):
    """One job of a run's plan."""

    stage: str
    key: str
    label: str
    state: Literal["cached", "done", "failed", "skipped", "planned"]
    seconds: float | None = None


class OverlapRecord(BaseModel):
    """How many of a scorer's items are in a training text (`ilubench.data.overlap` has the rule).

    Attributes:
        role: of the training text: an attack's (`gsm8k.train`), or the suite's.
        scorer: the suite's (`forget_mc`), or an attack's own (`gsm8k/fa`).
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


class RunRecord(Record):
    """A finished run: the row, where it came from, what failed.

    ``protocol`` has, for each attack, all that two runs must have alike to stand in one table:
    plugin, settings, the rows that it trains on, the FA task. ``data`` has, for each role that was
    read, the hash of its rows; ``target`` is that of the model that knows. They are empty in
    records that were written before they were there.
    """

    run: str
    suite: str
    suite_version: int
    method: dict[str, JsonValue]
    method_version: int
    seeds: tuple[int, ...]
    attacks: tuple[str, ...]
    engine: str
    dtype: str
    seen: tuple[str, ...] = ()
    scores: tuple[ModelScore, ...] = ()
    rows: dict[str, JsonValue]
    cost: dict[str, float]
    jobs: tuple[JobRecord, ...]
    failures: tuple[FailureRecord, ...] = ()
    protocol: dict[str, JsonValue] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    target: str = ""
    overlap: tuple[OverlapRecord, ...] = ()
    notes: tuple[str, ...] = ()


REFERENCE = "none"
"""The method that every row is compared with."""


RETRAIN = "retrain"
"""The method that returns the model that never knew."""
