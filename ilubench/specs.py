"""Frozen input models: what a suite, an attack, a data source and a run are.

Every YAML file under ``tasks/`` validates against one of these. Plugins (methods, attacks,
scorers, generators) are named by reference (:class:`PluginRef`) and resolved above this layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    model_validator,
)

__all__ = [
    "AttackSpec",
    "DataSource",
    "Estimator",
    "FineTuningAccuracySpec",
    "FromSuite",
    "GateSpec",
    "GeneratorSpec",
    "MetricSpec",
    "ModelSource",
    "PackSpec",
    "PluginRef",
    "RangeSpec",
    "RecipeSpec",
    "RunSpec",
    "SearchSpec",
    "Settings",
    "Spec",
    "SuiteSpec",
    "TargetSpec",
    "TokenizerSpec",
    "TrainSpec",
    "TuningSpec",
]

Settings: TypeAlias = Mapping[str, JsonValue]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A name that may become part of a path: lower case, digits, ``-`` and ``_``."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Spec(BaseModel):
    """Base of everything that is configured: frozen, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PluginRef(Spec):
    """A plugin by name (``npo``) or by file (``./my.py:MyMethod``), with its settings."""

    use: str
    settings: Settings = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"use": value} if isinstance(value, str) else value


class DataSource(Spec):
    """Rows from exactly one of: a hub data set, a local file, a generator's table.

    ``prompt`` and ``completion`` are ``str.format`` templates over the row's columns; the loss is
    on the completion's tokens and the end-of-sequence token. An empty prompt means: loss on all.
    """

    hub: str | None = None
    revision: str | None = None
    subset: str | None = None
    split: str = "train"
    path: str | None = None
    generated: str | None = Field(default=None, description="`<generator>.<table>`")

    where: dict[str, str | int] = Field(default_factory=dict)
    offset: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    shuffle: int | None = Field(default=None, description="seed of a shuffle before the cut")

    prompt: str = ""
    completion: str = "{text}"
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    max_length: int | None = Field(default=None, ge=2)
    overlong: Literal["error", "windows", "truncate"] = "error"

    license: str = ""
    gated: bool = False
    publish_text: bool = Field(default=False, description="generated text may be recorded")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("hub", "path", "generated") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hub, path, generated (given: {given or 'none'})")
        if self.generated and self.generated.count(".") != 1:
            raise ValueError("`generated` is `<generator>.<table>`")
        return self


class GeneratorSpec(Spec):
    """A plugin that makes tables, from nothing or from other roles' rows."""

    use: str
    settings: Settings = Field(default_factory=dict)
    inputs: dict[str, DataSource] = Field(default_factory=dict)


class TrainSpec(Spec):
    """How weights are trained: target, method and attack alike.

    One step sees ``batch_size`` sequences, however few fit in memory at once (``micro_batch``).
    """

    instead_of: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "steps": ("epochs",),
        "epochs": ("steps",),
    }
    """Field -> fields that an override of it clears."""

    lr: float = Field(gt=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=4, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    clip: float | None = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every_s: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps, epochs")
        return self

    def total_steps(self, examples: int) -> int:
        """Return the number of optimizer steps over ``examples`` training items."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * examples / self.batch_size))


class ModelSource(Spec):
    """Weights from a hub, a local folder, or the package itself (safetensors only)."""

    hub: str | None = None
    revision: str | None = None
    path: str | None = None
    packaged: str | None = Field(default=None, description="a folder inside the package")
    sha256: Sha256 | None = Field(default=None, description="of model.safetensors")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("hub", "path", "packaged") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hub, path, packaged (given: {given or 'none'})")
        return self


class TokenizerSpec(Spec):
    """A tokenizer trained on the recipe's text, and on that of further roles."""

    kind: Literal["word", "bpe"]
    text: tuple[str, ...] = Field(default=(), description="further roles whose words it must know")
    vocab_size: int = Field(default=4096, ge=300)


class PackSpec(Spec):
    """A phase of a recipe: blocks of ``length`` tokens for a ``share`` of the steps.

    A model that only ever saw short blocks recites nothing behind a long prompt; short blocks make
    more steps of the same text, and learn faster. Hence phases.
    """

    length: int = Field(ge=16)
    share: float = Field(default=1.0, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1, description="blocks a step")


class RecipeSpec(Spec):
    """How a target model is made: a configuration, trained on the suite's own text.

    Documents are shuffled each epoch, joined and cut into blocks.
    """

    config: dict[str, JsonValue] = Field(description="a transformers configuration")
    tokenizer: TokenizerSpec
    text: tuple[str, ...] = Field(min_length=1, description="roles of the training text")
    pack: tuple[PackSpec, ...] = Field(min_length=1)
    train: TrainSpec = Field(description="in steps; the batch is each phase's own")
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="as stored")

    @model_validator(mode="after")
    def _phases(self) -> Self:
        if self.train.steps is None:
            raise ValueError("a recipe's training is given in steps")
        if abs(sum(phase.share for phase in self.pack) - 1.0) > 1e-6:
            raise ValueError("the shares of `pack` must add up to 1")
        return self


@dataclass(frozen=True)
class FromSuite:
    """Marks a method's field that is the suite's own model of that name unless it is set.

    ``model: Annotated[ModelSource, FromSuite("retrain")]``.
    """

    model: Literal["retrain"]


class TargetSpec(Spec):
    """The model that knows: given weights, or a recipe that makes them, or both."""

    model: ModelSource | None = None
    recipe: RecipeSpec | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.model is None and self.recipe is None:
            raise ValueError("give a model, a recipe, or both")
        return self


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


class MetricSpec(Spec):
    """One published number: a scorer's metric, what it is called, its chance level.

    ``direction`` says which raw values mean that the model does the task better.
    """

    label: str
    scorer: str
    metric: str
    direction: Literal["higher", "lower"] = "higher"
    chance: float = Field(default=0.0, description="raw score of a model that knows nothing")


class FineTuningAccuracySpec(Spec):
    """What the downstream user wanted from the fine-tuning (FA).

    ``form`` says how the attack's training text stands to what the scorer asks, and is checked:
    `same` prompt and answer; the same but `zero_shot`, without the scorer's few-shot examples;
    or `other`, declared to be different on purpose, which nothing checks.
    """

    label: str = "FA"
    scorer: PluginRef
    metric: str
    direction: Literal["higher", "lower"] = "higher"
    chance: float = Field(default=0.0, description="raw score of a model that cannot do the task")
    form: Literal["same", "zero_shot", "other"] = "same"


class AttackSpec(Spec):
    """One attack: a plugin, its settings, its own data and their generators, and its FA task."""

    version: int = Field(default=1, ge=1)
    title: str = ""
    use: str = "finetune"
    settings: Settings = Field(default_factory=dict)
    data: dict[Name, DataSource] = Field(default_factory=dict)
    generators: dict[Name, GeneratorSpec] = Field(default_factory=dict)
    fa: FineTuningAccuracySpec | None = None


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


class SearchSpec(Spec):
    """Which settings of one method are tried; a mapping without these fields is its `space`.

    Attributes:
        use: the method; else the label is its name.
        fixed: settings of a variant, by path: what makes it another method, so not searched.
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
        searches: label -> what is tried; the label is the method's name unless `use` is.
    """

    budget: int = Field(ge=1)
    utility_kept: float = Field(default=0.95, gt=0, le=1)
    searches: dict[Name, SearchSpec] = Field(min_length=1)


class SuiteSpec(Spec):
    """What is forgotten, on which model, scored how, attacked by what."""

    name: Name
    version: int = Field(ge=1)
    title: str
    description: str = ""
    citation: str = ""
    target: TargetSpec
    retrain: TargetSpec | None = Field(
        default=None, description="weights that never saw the forget set, else like the target's"
    )
    generators: dict[Name, GeneratorSpec] = Field(default_factory=dict)
    data: dict[Name, DataSource]
    forget: tuple[str, ...] = Field(min_length=1)
    retain: tuple[str, ...] = Field(min_length=1)
    environments: dict[Name, str] = Field(default_factory=dict, description="name -> role")
    scorers: dict[Name, PluginRef] = Field(min_length=1)
    primary_forget: tuple[MetricSpec, ...] = Field(min_length=1)
    utility: tuple[MetricSpec, ...] = Field(min_length=1)
    attacks: dict[Name, AttackSpec]
    core_unseen: tuple[str, ...] = ()
    methods: dict[str, dict[str, JsonValue]] = Field(
        default_factory=dict,
        description="method -> its settings here; with `use`, a label -> a variant of a method",
    )
    max_length: int = Field(default=512, ge=8, description="tokens a training sequence")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the weights")
    score_batch: int = Field(default=32, ge=1, description="sequences scored at once")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    tuning_seeds: tuple[int, ...] = Field(default=(1000, 1001), min_length=1)
    tuning: TuningSpec | None = None
    gates: GateSpec | None = Field(default=None, description="what `ilubench gates` checks")

    def all_generators(self) -> dict[str, GeneratorSpec]:
        """Return the suite's generators and those of its attacks."""
        found: dict[str, GeneratorSpec] = {}
        for spec in self.attacks.values():
            found.update(spec.generators)
        return found | self.generators

    @model_validator(mode="after")
    def _references(self) -> Self:
        def known(kind: str, names: tuple[str, ...], have: Mapping[str, object]) -> None:
            for name in names:
                if name not in have:
                    raise ValueError(f"{kind} {name!r} is not declared; declared: {sorted(have)}")

        known("data role", self.forget + self.retain, self.data)
        for model in (self.target, self.retrain):
            if model is not None and model.recipe is not None:
                known("data role", model.recipe.text + model.recipe.tokenizer.text, self.data)
        known("attack", self.core_unseen, self.attacks)
        metrics = self.primary_forget + self.utility
        known("scorer", tuple(m.scorer for m in metrics), self.scorers)
        labels = [metric.label for metric in metrics]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two metrics have the same label: {sorted(labels)}")
        sources = dict(self.data)
        for name, attack in self.attacks.items():
            sources.update({f"{name}.{role}": source for role, source in attack.data.items()})
        known("data role", tuple(self.environments.values()), sources)
        both = sorted(set(self.seeds) & set(self.tuning_seeds))
        if both:
            raise ValueError(f"{both}: in `seeds` and in `tuning_seeds`, which are never reported")
        generators = self.all_generators()
        for owner, attack in self.attacks.items():
            for name, spec in attack.generators.items():
                if generators[name] != spec:
                    raise ValueError(f"attack {owner!r} declares another generator {name!r}")
        for source in sources.values():
            if source.generated:
                known("generator", (source.generated.split(".")[0],), generators)
        return self


class RunSpec(Spec):
    """What `ilubench run` was asked for, before names are resolved."""

    suite: str = "mini"
    method: PluginRef = PluginRef(use="ilu")
    attacks: tuple[str, ...] | None = Field(default=None, description="all of the suite's")
    seeds: tuple[int, ...] | None = Field(default=None, description="the suite's")
    engine: Literal["auto", "hf", "vllm"] = "auto"
    device: str = "auto"
    keep: tuple[Literal["attacked"], ...] = ()
    never_knew: bool = Field(
        default=True, description="attack the suite's `retrain` weights too, where it has any"
    )
    out: str = Field(default="runs", description="folder of results and cache")
