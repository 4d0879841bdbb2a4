"""How methods get their settings: what is tried, and by which rule."""

from collections.abc import Mapping
from typing import Annotated, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from ilubench.specs.base import Name, Spec

__all__ = ["Candidates", "Plain", "RangeSpec", "SearchSpec", "TuningSpec"]


class RangeSpec(Spec):
    """Numbers between two ends, both included.

    Attributes:
        low: the lower end.
        high: the upper end.
        log: equal ratios, not equal differences, are equally likely.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high` (given: {self.low}, {self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a range with `log` must begin above 0 (given: {self.low})")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("a range with `whole` must have whole ends")
        return self


Plain: TypeAlias = str | int | float | bool | None
"""What one word on the command line can say."""

Candidates: TypeAlias = Annotated[
    Annotated[tuple[Plain | tuple[Plain, ...], ...], Tag("list")]
    | Annotated[RangeSpec, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, Mapping | RangeSpec) else "list"),
]
"""What may be tried of one setting: a list, or a range of numbers."""


class SearchSpec(Spec):
    """Which settings of one method are tried; a mapping without these fields is its `space`.

    Attributes:
        use: the method; else the label is its name.
        fixed: settings by path that are not searched: what makes it a variant, or fits the model.
        space: path of a setting (`beta`, `train.lr`) -> candidates, or a range of numbers.
    """

    use: str | None = None
    fixed: dict[str, Plain | tuple[Plain, ...]] = Field(default_factory=dict)
    space: dict[str, Candidates] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_space(cls, value: object) -> object:
        if isinstance(value, Mapping) and not set(value) & {"use", "fixed", "space"}:
            return {"space": value}
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for path, candidates in self.space.items():
            if path in self.fixed:
                raise ValueError(f"{path!r} is in `fixed` and in `space`; keep one of them")
            if isinstance(candidates, tuple) and not candidates:
                raise ValueError(f"{path!r} has no candidate")
            if isinstance(candidates, tuple) and len(set(map(repr, candidates))) < len(candidates):
                raise ValueError(f"{path!r} has a candidate twice")
        return self


class TuningSpec(Spec):
    """How a suite's methods get their settings: the same budget and rule for each.

    Attributes:
        budget: settings tried for each method, on each of the suite's `tuning_seeds`.
        utility_kept: share of the original model's utility that a setting must keep.
        patience: settings are tried so many at a time, and the search ends where those of a time
            brought no better choice, or the choice has forgotten all; none: all are tried.
        searches: label -> what is tried; the label is the method's name unless `use` is. Of other
            methods what they propose for the model is tried.
    """

    budget: int = Field(default=8, ge=1, le=10_000)
    utility_kept: float = Field(default=0.95, gt=0, le=1)
    patience: int | None = Field(default=None, ge=1)
    searches: dict[Name, SearchSpec] = Field(default_factory=dict)
