"""What tuning leaves behind: every setting tried, its figures, which one was chosen."""

from typing import Literal

from pydantic import Field, JsonValue

from ilubench.records.results import FailureRecord, Record

__all__ = ["OriginalFigures", "TrialRecord", "TuningRecord"]


class OriginalFigures(Record):
    """The original model's figures and the chance levels; label -> value, higher = better.

    Attributes:
        forget: forget metrics, 1 - accuracy and the like.
        forget_chance: of a model that knows nothing.
        utility: utility metrics.
        utility_chance: of a model that can do nothing.
    """

    forget: dict[str, float]
    forget_chance: dict[str, float]
    utility: dict[str, float]
    utility_chance: dict[str, float]


class TrialRecord(Record):
    """One setting: means over the seeds that it was tried on and items; empty where it failed.

    Attributes:
        number: from 1, in the order in which they were tried.
        settings: path -> value of what is searched.
        method: `use` and all its `settings`, resolved: those of the suite and the defaults, too.
            Empty in records that were written before it was there.
        state: `diverged` if a loss was not finite; `failed` for any other reason; `cut` if it was
            not carried on to its other seeds, because it could not be chosen any more.
        forget: label -> forget metric.
        utility: label -> utility metric.
        forgotten: mean over the forget metrics of min(forget, chance) / chance.
        utility_kept: share of the original's utility above chance, of the worst metric.
        jobs: keys of the unlearned weights, by seed.
        cost: optimizer steps, tokens, seconds, summed over the seeds.
    """

    number: int
    settings: dict[str, JsonValue]
    method: dict[str, JsonValue] = Field(default_factory=dict)
    state: Literal["done", "cut", "diverged", "failed"]
    forget: dict[str, float] = Field(default_factory=dict)
    utility: dict[str, float] = Field(default_factory=dict)
    forgotten: float | None = None
    utility_kept: float | None = None
    eligible: bool = False
    chosen: bool = False
    jobs: dict[str, str]
    cost: dict[str, float]
    failures: tuple[FailureRecord, ...] = ()


class TuningRecord(Record):
    """One method's tuning.

    Attributes:
        label: of the search in the suite's `tuning.searches`.
        use: the method.
        fixed: path -> value of what makes the method this variant.
        space: path -> what was searched: a list of candidates, or a range. Empty in records that
            were written before it was there.
        suite_digest: of the suite's fields that the figures depend on besides the method's
            settings (`suite_digest`); empty likewise.
        seeds: the suite's tuning seeds.
        budget: settings that could be tried; fewer were where the search `ended` before.
        suite_budget: settings that the suite file gives every method; other than `budget` where
            another was asked for: then this is no tuning by the suite's protocol.
        changes: words that changed the suite or its data.
        proposed: whether the suite said no search, so that the method's own for the model was made.
        patience: settings that were tried at a time; None: all.
        cut: settings that were not carried on to all seeds, because they could not be chosen.
        ended: why not all settings were tried: `no gain` of the last ones, or `all forgotten`.
        utility_kept_needed: share of the original's utility that a setting must keep.
        chosen: number of the chosen trial; None if no setting keeps the utility.
        closest: number of the trial that keeps most of it.
        methods: the chosen setting as the suite file's `methods` takes it.
        words: the chosen setting as `ilubench run` takes it.
        cost: optimizer steps, tokens, seconds of all trials.
    """

    tuning: str
    suite: str
    suite_version: int
    label: str
    use: str
    method_version: int
    fixed: dict[str, JsonValue]
    space: dict[str, JsonValue] = Field(default_factory=dict)
    suite_digest: str = ""
    seeds: tuple[int, ...]
    budget: int
    suite_budget: int
    changes: tuple[str, ...] = ()
    proposed: bool = False
    patience: int | None = None
    cut: int = 0
    ended: Literal["", "no gain", "all forgotten"] = ""
    utility_kept_needed: float
    original: OriginalFigures
    trials: tuple[TrialRecord, ...]
    chosen: int | None
    closest: int | None
    methods: dict[str, JsonValue] = Field(default_factory=dict)
    words: tuple[str, ...] = ()
    cost: dict[str, float]
    engine: str
    device: str
    dtype: str
    libraries: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether a setting was chosen, and none failed for another reason than diverging."""
        return self.chosen is not None and all(trial.state != "failed" for trial in self.trials)
