"""An attack, and what it must show on the original model."""

from collections.abc import Mapping
from operator import not_
from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from ilubench.specs.base import Name, Settings, Spec
from ilubench.specs.data import DataSource, GeneratorSpec
from ilubench.specs.metrics import FineTuningAccuracySpec

__all__ = ["AttackSpec", "GateSpec", "ProtocolSpec"]


class ProtocolSpec(Spec):
    """Where the length and the learning rate of an attack's fine-tuning come from.

    An attack that is too short for its task shows nothing; how long it must be is measured once, on
    the original model: until its FA moves by less than 1 % over 3 epochs.

    Attributes:
        kind: `measured` so; `published` by others for the same model; `default`: neither.
        note: a sentence on it, for readers of lists and records.
    """

    kind: Literal["default", "measured", "published"]
    note: str = Field(min_length=1)


class AttackSpec(Spec):
    """One attack: a plugin, its settings, its own data and their generators, and its FA task.

    Attributes:
        version: raised when it changes a figure.
        title: one line on it.
        use: the plugin: finetune, prefix, fewshot, or FILE.py:Class.
        settings: the plugin's fields.
        data: its own roles of rows; null takes away one that was inherited.
        generators: makers of its tables.
        fa: the task that its user wants, scored along the attack.
        protocol: where its length and learning rate come from.
        further: not among those that a run makes unless they are named, and over which RA and ranks
            are taken: the benign ones.
        control: its text has no content, so that it shows what any change of the weights brings
            back; the others are reported beside it. A further one.
        only: scorer -> column -> value: of that scorer only the items whose row says so are scored
            along the attack, which trains on the others.
    """

    version: int = Field(default=1, ge=1)
    title: str = ""
    use: str = "finetune"
    settings: Settings = Field(default_factory=dict)
    data: dict[Name, DataSource] = Field(default_factory=dict)
    generators: dict[Name, GeneratorSpec] = Field(default_factory=dict)
    fa: FineTuningAccuracySpec | None = None
    # it changes no figure: left out where it is not given, older records stay equal
    protocol: ProtocolSpec | None = Field(default=None, exclude_if=not_)
    further: bool = Field(default=False, exclude_if=not_)
    control: bool = Field(default=False, exclude_if=not_)
    only: dict[Name, dict[str, JsonValue]] = Field(default_factory=dict, exclude_if=not_)

    @field_validator("data", mode="before")
    @classmethod
    def _drop_roles(cls, value: object) -> object:
        """A null takes a role away that was inherited; whatever still names it says so."""
        if not isinstance(value, Mapping):
            return value
        return {role: source for role, source in value.items() if source is not None}

    @model_validator(mode="after")
    def _beside(self) -> Self:
        if self.control and not self.further:
            problem = "a control is not among the attacks over which RA and ranks are taken"
            raise ValueError(f"control: {problem}; add further: true")
        return self


class GateSpec(Spec):
    """What an attack must show on the *original* model before anything is concluded from it.

    An attack that the original knows already, never learns, or is destroyed by says nothing about
    unlearning.

    Attributes:
        fa_start: FA before the attack, at most so far from its chance level.
        fa_end: FA after it, at least so far better than chance.
        utility_kept: chance-corrected utility along it relative to before, the worst metric.
        examples: distinct training examples.
        shared: items of any evaluation that its training text contains.
    """

    fa_start: float = Field(default=0.15, ge=0)
    fa_end: float = Field(default=0.3, gt=0)
    utility_kept: float = Field(default=0.8, gt=0, le=1)
    examples: int = Field(default=1000, ge=1)
    shared: int = Field(default=0, ge=0)
