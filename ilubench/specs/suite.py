"""A suite."""

from collections.abc import Mapping
from operator import not_
from typing import Any, Literal, Self, cast

from pydantic import Field, JsonValue, model_validator

from ilubench.specs.attack import AttackSpec, GateSpec
from ilubench.specs.base import Name, PluginRef, Seed, Spec
from ilubench.specs.data import DataSource, GeneratorSpec
from ilubench.specs.metrics import CompositeSpec, MetricSpec
from ilubench.specs.target import ModelSource, TargetSpec
from ilubench.specs.tuning import TuningSpec

__all__ = ["SuiteSpec"]


class SuiteSpec(Spec):
    """What is forgotten, on which model, scored how, attacked by what.

    A checkpoint can be scored with target, data and scorers alone; `lacking` says what unlearning
    needs besides.

    Attributes:
        name: as `suite=NAME` and in records.
        version: raised when data, metrics or attacks change.
        title: one line on it.
        description: more on it.
        citation: of the paper that it follows.
        target: the model that knows what is to be forgotten.
        generators: makers of tables, by name.
        data: roles of rows, by name: where they come from.
        forget: roles of the text to forget.
        retain: roles of the text to keep.
        scorers: what is asked of a model, by name.
        primary_forget: metrics of forgetting; each makes a table.
        utility: metrics of what must be kept.
        attacks: by name.
        core_unseen: attacks over which ranks are taken; no method may train on their data.
        seeds: of a run that names none.
        tuning_seeds: of `ilubench tune`; never reported.
        tuning: how settings are chosen.
    """

    name: Name
    version: int = Field(ge=1)
    title: str
    description: str = ""
    citation: str = ""
    target: TargetSpec
    retrain: TargetSpec | None = Field(
        default=None, description="weights that never saw the forget set, else like the target's"
    )
    untouched: ModelSource | None = Field(
        default=None,
        exclude_if=lambda source: source is None,  # a suite that names none is what it was
        description="the model before it is taught: recipes begin with it by `init: untouched`, "
        "chance levels are measured of it; by default what the target's recipe begins with",
    )
    generators: dict[Name, GeneratorSpec] = Field(default_factory=dict)
    data: dict[Name, DataSource]
    forget: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    environments: dict[Name, str] = Field(default_factory=dict, description="name -> role")
    scorers: dict[Name, PluginRef] = Field(min_length=1)
    primary_forget: tuple[MetricSpec, ...] = ()
    utility: tuple[MetricSpec, ...] = ()
    composites: tuple[CompositeSpec, ...] = Field(
        default=(),
        exclude_if=not_,  # a suite without them is what it was
        description="numbers of whole models, made of several scores",
    )
    attacks: dict[Name, AttackSpec] = Field(default_factory=dict)
    core_unseen: tuple[str, ...] = ()
    methods: dict[str, dict[str, JsonValue]] = Field(
        default_factory=dict,
        description="method -> its settings here; with `use`, a label -> a variant of a method",
    )
    max_length: int = Field(default=512, ge=8, description="tokens a training sequence")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the weights")
    score_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        exclude_if=lambda dtype: dtype is None,  # a suite that says nothing is what it was
        description="of the weights while they are scored; by default `dtype`",
    )
    score_batch: int = Field(default=32, ge=1, description="sequences scored at once")
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    tuning_seeds: tuple[Seed, ...] = Field(default=(1000, 1001), min_length=1)
    tuning: TuningSpec | None = None
    gates: GateSpec | None = Field(
        default=None, description="what `ilubench gates` checks; else its defaults"
    )

    @property
    def lacking(self) -> tuple[str, ...]:
        """The fields that are empty, and without which nothing can be unlearned on the suite."""
        needed = ("forget", "retain", "primary_forget", "utility")
        return tuple(name for name in needed if not getattr(self, name))

    @property
    def compares(self) -> bool:
        """Whether a composite compares models with the retrained one."""
        return any(composite.kind == "ks" for composite in self.composites)

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Those of forgetting, then those of what must be kept."""
        return self.primary_forget + self.utility

    def metric_of(self, scorer: str, metric: str) -> MetricSpec | None:
        """Return what is stated of a scorer's metric; None where it is only measured."""
        named = (one for one in self.metrics if (one.scorer, one.metric) == (scorer, metric))
        return next(named, None)

    @property
    def untouched_model(self) -> ModelSource | None:
        """The model before it was taught: the one that is named, else what the recipe begins with.

        None where nothing says which that is.
        """
        recipe = self.target.recipe
        return self.untouched or (recipe.init if recipe is not None else None)

    def init_field(self, name: Literal["target", "retrain"]) -> str:
        """Return the field that says what the recipe of a model begins with."""
        model = getattr(self, name)
        same = self.untouched is not None and model.recipe.init == self.untouched
        return "suite.untouched" if same else f"suite.{name}.recipe.init"

    @property
    def unused_recipes(self) -> dict[str, str]:
        """Which models have weights besides a recipe, which count then -> where they are from."""
        models = {"target": self.target, "retrain": self.retrain}
        both = {n: m.model for n, m in models.items() if m and m.recipe and m.model}
        return {n: str(m.path or m.hub or f"packaged {m.packaged}") for n, m in both.items()}

    @property
    def measures_chance(self) -> bool:
        """Whether a chance level is the untouched model's score."""
        return any(metric.chance_measured_by is not None for metric in self.metrics)

    @property
    def scored_in(self) -> Literal["float32", "bfloat16"]:
        """The dtype of the weights while they are scored."""
        return self.score_dtype or self.dtype

    @property
    def dtypes(self) -> str:
        """The dtype of the weights, and of scoring where it is another: what a record says."""
        return (
            self.dtype
            if self.scored_in == self.dtype
            else f"{self.dtype}, scored in {self.scored_in}"
        )

    @property
    def benign_attacks(self) -> tuple[str, ...]:
        """The attacks that a run makes unless it names others; RA and ranks are over them."""
        return tuple(name for name, attack in self.attacks.items() if not attack.further)

    def all_generators(self) -> dict[str, GeneratorSpec]:
        """Return the suite's generators and those of its attacks."""
        found: dict[str, GeneratorSpec] = {}
        for spec in self.attacks.values():
            found.update(spec.generators)
        return found | self.generators

    def all_sources(self) -> dict[str, DataSource]:
        """Return role -> source, those of the attacks as `gsm8k.train`."""
        found = dict(self.data)
        for name, attack in self.attacks.items():
            found.update({f"{name}.{role}": source for role, source in attack.data.items()})
        return found

    @model_validator(mode="before")
    @classmethod
    def _begin_untouched(cls, suite: object) -> object:
        """Put the suite's untouched model in the place of its name."""
        if not isinstance(suite, Mapping):
            return suite
        found = dict(suite)
        for name in ("target", "retrain"):
            model = found.get(name)
            recipe = model.get("recipe") if isinstance(model, Mapping) else None
            if isinstance(recipe, Mapping) and recipe.get("init") == "untouched":
                if not found.get("untouched"):
                    problem = "the suite names no untouched model"
                    raise ValueError(f"{name}.recipe.init: {problem}; add untouched: {{hub: NAME}}")
                begun = {**recipe, "init": found["untouched"]}
                found[name] = {**cast("Mapping[str, Any]", model), "recipe": begun}
        return found

    @model_validator(mode="after")
    def _templates(self) -> Self:
        recipe = self.target.recipe
        chats = [role for role, source in self.all_sources().items() if source.chat]
        if chats and self.target.model is None and recipe is not None and recipe.init is None:
            problem = "the tokenizer that target.recipe trains has no chat template"
            remedy = "begin with weights that have one (target.recipe.init), or leave chat out"
            raise ValueError(f"{chats[0]}: chat: {problem}; {remedy}")
        return self

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        if (self.dtype, self.score_dtype) == ("float32", "bfloat16"):
            raise ValueError("score_dtype: bfloat16 does not hold float32 weights; set dtype, too")
        return self

    @model_validator(mode="after")
    def _references(self) -> Self:
        def known(kind: str, names: tuple[str, ...], have: Mapping[str, object]) -> None:
            for name in names:
                if name not in have:
                    raise ValueError(f"{kind} {name!r} is not declared; declared: {sorted(have)}")

        known("data role", self.forget + self.retain, self.data)
        for model in (self.target, self.retrain):
            if model is not None and model.recipe is not None:
                known("data role", model.recipe.roles, self.data)
        if self.retrain is not None and self.retrain.tokenizer is not None:
            raise ValueError("retrain.tokenizer: the target's reads its text too; leave it out")
        known("benign attack", self.core_unseen, dict.fromkeys(self.benign_attacks))
        known("scorer", tuple(name for m in self.metrics for name in m.scorers), self.scorers)
        known("scorer", tuple(s for c in self.composites for s, _ in c.metrics), self.scorers)
        labels = [m.label for m in self.metrics] + [c.label for c in self.composites]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two metrics have the same label: {sorted(labels)}")
        sources = self.all_sources()
        known("data role", tuple(self.environments.values()), sources)
        both = sorted(set(self.seeds) & set(self.tuning_seeds))
        if both:
            raise ValueError(f"{both}: in `seeds` and in `tuning_seeds`, which are never reported")
        generators = self.all_generators()
        for owner, attack in self.attacks.items():
            for name, spec in attack.generators.items():
                if generators[name] != spec:
                    raise ValueError(f"attack {owner!r} declares another generator {name!r}")
        for role, source in sources.items():
            if source.generated:
                maker = source.generated.split(".")[0]
                known("generator", (maker,), generators)
                if source.publish_text and any(s.gated for s in generators[maker].inputs.values()):
                    raise ValueError(
                        f"{role}: publish_text: generator {maker!r} reads a gated source, whose "
                        "text is never recorded; leave it out"
                    )
        return self
