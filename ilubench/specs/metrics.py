"""What is measured, and how samples become a number."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from ilubench.errors import SpecError
from ilubench.specs.base import PluginRef, Spec

__all__ = [
    "KNOWN_RANGES",
    "CompositeSpec",
    "Direction",
    "Estimator",
    "FineTuningAccuracySpec",
    "MeasuredChance",
    "MetricSpec",
    "Range",
    "StatedScore",
    "turned",
]

Range: TypeAlias = tuple[float | None, float | None]
"""The lowest and the highest score that an item can get; None where there is no bound."""

_SHARE: Range = (0.0, 1.0)
KNOWN_RANGES: Mapping[str, Mapping[str, Range]] = {
    "lm_eval": {
        "acc": _SHARE,
        "acc_norm": _SHARE,
        "acc_mutual_info": _SHARE,
        "exact_match": _SHARE,
        "brier_score": (0.0, 2.0),
    },
    "verbmem": {"verbmem": _SHARE},
    "knowmem": {"knowmem": _SHARE},
    "answer_nll": {"nll": (0.0, None)},
    "answer_probability": {"probability": _SHARE},
    "answer_rouge": {"rouge_l_recall": _SHARE},
    "choice_probability": {"probability": _SHARE},
    "memorization": {"extraction_strength": _SHARE, "exact_memorization": _SHARE},
    "truth_ratio": {"truth_ratio": (0.0, None), "closer_to_1": _SHARE, "true_better": _SHARE},
    "privleak": {"auc": (None, 0.0), "privleak": (None, 0.0)},  # log-probabilities
}
"""Scorer that comes with ilubench -> metric -> its range."""

Direction: TypeAlias = Literal["higher", "lower"]


class Estimator(Spec):
    """How a metric's samples become one number; a record names it, so that anybody can recompute.

    Attributes:
        kind: `mean` over items; `group_mean`, the mean of the groups' means; `auc`, the area under
            the curve that tells items labelled `1` from those labelled `0` by their value.
        relative_to: shown is the change from this value, in percent of it.
    """

    kind: Literal["mean", "group_mean", "auc"] = "mean"
    relative_to: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value


class StatedScore(Spec):
    """What was published of the original model, on the metric's own scale.

    Attributes:
        value: the score.
    """

    value: float
    within: float = Field(gt=0, description="how far a score may be from it")


class MeasuredChance(Spec):
    """A chance level that each run measures: the same metric of the model before it was taught.

    Attributes:
        of: the suite's `untouched` model.
        scorer: another scorer that has the metric; by default the metric's own.
    """

    of: Literal["untouched"]
    scorer: str | None = None


def _kind_of_chance(value: object) -> str:
    return "measured" if isinstance(value, Mapping | MeasuredChance) else "number"


class MetricSpec(Spec):
    """One published number: a scorer's metric, what it is called, its chance level.

    Attributes:
        label: what tables call it.
        scorer: of the suite.
        metric: of the scorer.
        direction: which raw values mean that the model does the task better.
    """

    label: str
    scorer: str
    metric: str
    direction: Direction = "higher"
    chance: Annotated[
        Annotated[float, Tag("number")] | Annotated[MeasuredChance, Tag("measured")],
        Discriminator(_kind_of_chance),
    ] = Field(
        default=0.0,
        description="raw score of a model that knows nothing; or of which model it is measured",
    )
    stated: StatedScore | None = Field(
        default=None,
        exclude_if=lambda stated: stated is None,  # a suite that states none is what it was
        description="what was published of the suite's target; a score outside stops a run",
    )

    @property
    def chance_level(self) -> float:
        """The raw score of a model that knows nothing.

        Raises:
            SpecError: it is measured in each run, and this is of none.
        """
        if isinstance(self.chance, MeasuredChance):
            problem = f"{self.label}: its chance level is measured, and the untouched model"
            raise SpecError(f"{problem} was not scored", remedy="see the failed jobs; run again")
        return self.chance

    @property
    def chance_measured_by(self) -> str | None:
        """The scorer whose score of the untouched model is the chance level; None: a number is."""
        found = self.chance
        return (found.scorer or self.scorer) if isinstance(found, MeasuredChance) else None

    @property
    def scorers(self) -> tuple[str, ...]:
        """Its own, and the one that measures its chance level."""
        return tuple(filter(None, (self.scorer, self.chance_measured_by)))


class CompositeSpec(Spec):
    """One number of a whole model, made of its scores; no part of a row.

    Attributes:
        label: what tables call it.
        kind: `harmonic_mean` of the metrics' means; or `ks`, the p-value of the two-sample test of
            Kolmogorov and Smirnov between the items' scores and those of the suite's retrained
            model, before any attack.
        of: the metrics, each as `scorer.metric`; one where the kind is `ks`.
    """

    label: str
    kind: Literal["harmonic_mean", "ks"]
    of: tuple[str, ...] = Field(min_length=1)

    @property
    def metrics(self) -> tuple[tuple[str, str], ...]:
        """(scorer, metric) of each."""
        parted = (name.partition(".") for name in self.of)
        return tuple((scorer, metric) for scorer, _, metric in parted)

    @model_validator(mode="after")
    def _named(self) -> Self:
        for name, (scorer, metric) in zip(self.of, self.metrics, strict=True):
            if not scorer or not metric:
                raise ValueError(f"{self.label}: of: write {name!r} as scorer.metric")
        if len(set(self.of)) < len(self.of):
            raise ValueError(f"{self.label}: of: {max(self.of, key=self.of.count)} is named twice")
        if self.kind == "ks" and len(self.of) > 1:
            raise ValueError(f"{self.label}: of: ks compares two models in one metric; name one")
        return self


class FineTuningAccuracySpec(Spec):
    """What the downstream user wanted from the fine-tuning (FA).

    Attributes:
        label: what tables call it.
        scorer: a plugin, with its settings.
        metric: of the scorer.
        direction: which raw values mean that the model does the task better.
        form: how the attack's training text stands to what the scorer asks, and is checked:
            `same` prompt and answer; the same but `zero_shot`, without the scorer's few-shot
            examples; or `other`, declared to be different on purpose, which nothing checks.
    """

    label: str = "FA"
    scorer: PluginRef
    metric: str
    direction: Direction = "higher"
    chance: float = Field(default=0.0, description="raw score of a model that cannot do the task")
    form: Literal["same", "zero_shot", "other"] = "same"


def turned(value: float, spec: MetricSpec | FineTuningAccuracySpec) -> float:
    """Return a raw score so that higher means better."""
    return value if spec.direction == "higher" else -value
