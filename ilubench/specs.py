"""Frozen input models: what a suite, an attack, a data source and a run are.

Every YAML file under ``tasks/`` validates against one of these. Plugins (methods, attacks,
scorers, generators) are named by reference (:class:`PluginRef`) and resolved above this layer.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

__all__ = [
    "AttackSpec",
    "DataSource",
    "Estimator",
    "FineTuningAccuracySpec",
    "GeneratorSpec",
    "MetricSpec",
    "ModelSource",
    "PackSpec",
    "PluginRef",
    "RecipeSpec",
    "RunSpec",
    "Settings",
    "Spec",
    "SuiteSpec",
    "TargetSpec",
    "TokenizerSpec",
    "TrainSpec",
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
    """What the downstream user wanted from the fine-tuning (FA)."""

    label: str = "FA"
    scorer: PluginRef
    metric: str
    direction: Literal["higher", "lower"] = "higher"


class AttackSpec(Spec):
    """One attack: a plugin, its settings, its own data and their generators, and its FA task."""

    version: int = Field(default=1, ge=1)
    title: str = ""
    use: str = "finetune"
    settings: Settings = Field(default_factory=dict)
    data: dict[Name, DataSource] = Field(default_factory=dict)
    generators: dict[Name, GeneratorSpec] = Field(default_factory=dict)
    fa: FineTuningAccuracySpec | None = None


class SuiteSpec(Spec):
    """What is forgotten, on which model, scored how, attacked by what."""

    name: Name
    version: int = Field(ge=1)
    title: str
    description: str = ""
    citation: str = ""
    target: TargetSpec
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
    methods: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    max_length: int = Field(default=512, ge=8, description="tokens a training sequence")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the weights")
    score_batch: int = Field(default=32, ge=1, description="sequences scored at once")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    tuning_seeds: tuple[int, ...] = (1000, 1001)

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
        if self.target.recipe:
            recipe = self.target.recipe
            known("data role", recipe.text + recipe.tokenizer.text, self.data)
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
    out: str = Field(default="runs", description="folder of results and cache")
