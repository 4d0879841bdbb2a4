"""Versioned output models: what runs leave behind and leaderboards read."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ilubench.errors import StoreError
from ilubench.specs import Estimator

__all__ = [
    "FailureRecord",
    "JobRecord",
    "ModelScore",
    "RunRecord",
    "ScoreRecord",
    "ScoreSummary",
    "upgrade",
]

SCHEMA: Literal[1] = 1


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
    """One metric at one checkpoint: how many items, their estimate and its standard error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scorer: str
    metric: str
    estimator: Estimator
    value: float
    se: float | None
    n: int = Field(ge=1)


class ModelScore(ScoreSummary):
    """A metric of the unlearned model, or of the original, before any attack."""

    who: Literal["method", "reference"]
    seed: int


class ScoreRecord(Record):
    """All metrics of one model at one point; the samples lie beside it as Parquet."""

    checkpoint: str
    step: int | None = None
    level: str | None = None
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


class RunRecord(Record):
    """A finished run: the row, where it came from, what failed."""

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
