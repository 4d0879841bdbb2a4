"""What the jobs of one run share: data, tokenizer, engine, scorers bound once, weights."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import JsonValue

from ilubench.data import batches as training_data
from ilubench.errors import ModelError, StoreError
from ilubench.experiments.experiment import Attack, Experiment
from ilubench.interfaces import (
    Context,
    Engine,
    Example,
    Method,
    Progress,
    Room,
    ScoreContext,
    Scorer,
    WeightAttack,
)
from ilubench.interfaces.discovery import create_plugin
from ilubench.models.checkpoints import (
    apply_changes,
    find_folder,
    find_tokenizer,
    load_model,
)
from ilubench.models.configuration import load_config, recipe_config
from ilubench.models.precision import weights_in
from ilubench.models.sharding import leads, shard_model, whole_model
from ilubench.models.tokenizers import check_vocabulary, load_tokenizer
from ilubench.records.store import FolderState, Store
from ilubench.runs.jobs import Job
from ilubench.runs.stages.cost import Passes, StepLog
from ilubench.runs.stages.devices import check_sharding, pick_device, refuse_launchers
from ilubench.runs.stages.measure import Measure
from ilubench.runs.stages.target_key import key_of_files, key_of_recipe, recipe_identity
from ilubench.scoring.engines.check import CheckEngine
from ilubench.scoring.engines.choice import Choice, choose, make_engine
from ilubench.specs import PluginRef, RecipeSpec
from ilubench.statistics.row import FA

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from ilubench.runs.executors.ranks import Ranks

__all__ = ["Workbench", "make_bench"]


class Workbench:
    """Shared, read-only state of a run's jobs.

    Args:
        experiments: resolved runs that differ in their method alone.
        store: of artifacts.
        device: `cpu` or `cuda`.
    """

    def __init__(self, experiments: Sequence[Experiment], store: Store, device: str) -> None:
        """Nothing is loaded before it is asked for."""
        experiment = experiments[0]
        self.experiment, self.store, self.device = experiment, store, device
        self.suite, self.tables = experiment.suite, experiment.tables
        self._attacks = {attack.name: attack for attack in experiment.attacks}
        # a method that was made here need not be one that its reference finds (given weights)
        self._methods = {one.method_ref.model_dump_json(): one.method for one in experiments}
        self.room: int | None = None  # sequences that fit at once, once that is known
        self.devices = 1  # that a job has for itself
        self.shards = False  # whether the job's model is divided among ranks
        self.beside: Ranks | None = None  # the ranks, in the process that has the jobs
        self._engine: Engine | None = None
        self._bound: dict[str, Measure] = {}
        self._examples: dict[tuple[str, ...], list[Example]] = {}
        self._identities: dict[bool, dict[str, JsonValue]] = {}

    @cached_property
    def engine_choice(self) -> Choice:
        """The engine that scores, part of every score's key: rows of two engines never mix.

        Raises:
            UsageError: the engine that was asked for cannot be used.
        """
        return choose(self.experiment.run.engine, self.target_config, self.device)

    @cached_property
    def target_config(self) -> "PretrainedConfig":
        """The target model's configuration: its files', or its recipe's before it is made.

        Raises:
            ModelError: it cannot be read, or transformers does not accept it.
        """
        if self.began_with is not None:
            return load_config(self.began_with)
        recipe = self.suite.target.recipe
        assert recipe is not None
        assert recipe.config is not None
        return recipe_config(recipe.config)

    @cached_property
    def given_target(self) -> Path | None:
        """The target model's folder when weights are given, else None (a recipe makes it)."""
        source = self.suite.target.model
        return find_folder(source) if source is not None else None

    @cached_property
    def began_with(self) -> Path | None:
        """The folder that has the target model's configuration and tokenizer before any job.

        It is the given model's, or that of the weights which its recipe begins with. None: the
        recipe makes both.
        """
        if self.given_target is not None:
            return self.given_target
        recipe = self.suite.target.recipe
        assert recipe is not None
        return self.init_of(recipe, retrain=False)

    def init_of(self, recipe: RecipeSpec, *, retrain: bool) -> Path | None:
        """Return the folder of the weights that a recipe begins with, None where it has none.

        Raises:
            AccessError: they are a hub's, and cannot be had.
            ModelError: they cannot be loaded.
        """
        if recipe.init is None:
            return None
        return find_folder(recipe.init, self.suite.init_field("retrain" if retrain else "target"))

    @cached_property
    def given_tokenizer(self) -> Path | None:
        """The tokenizer's folder when it is not the target model's own, else None."""
        source = self.suite.target.tokenizer
        return find_tokenizer(source) if source is not None else None

    @cached_property
    def target(self) -> str:
        """The target model's key."""
        if self.given_target is not None:
            return key_of_files(self.given_target, self.given_tokenizer)
        assert self.suite.target.recipe is not None
        return self.recipe_key(self.suite.target.recipe, retrain=False)

    def recipe_key(self, recipe: RecipeSpec, *, retrain: bool) -> str:
        """Return the key of the model that a recipe makes."""
        return key_of_recipe(self.recipe_identity(recipe, retrain=retrain), self.device)

    def recipe_identity(self, recipe: RecipeSpec, *, retrain: bool) -> dict[str, JsonValue]:
        """Return what tells the model that a recipe makes from others, wherever it is made."""
        if retrain not in self._identities:  # its weights are hashed once
            init = self.init_of(recipe, retrain=retrain)
            tokenizer, length = self.given_tokenizer, self.suite.max_length
            told = recipe_identity(recipe, init, tokenizer, self.tables, length)
            self._identities[retrain] = told
        return self._identities[retrain]

    @property
    def target_folder(self) -> Path:
        """The target model's folder, its files as the job left them, or as they were hashed.

        Raises:
            StoreError: the job that makes it is not done, or a file was damaged since.
            ModelError: the files that were given have changed since the run began.
        """
        if self.given_target is not None:
            if key_of_files(self.given_target, self.given_tokenizer) != self.target:
                problem = "its files are others than when the run began"
                raise ModelError(f"{self.given_target}: {problem}; run again with those that count")
            return self.given_target
        artifact = self.store.get("target", self.target)
        if artifact is None:
            raise StoreError(f"the target model {self.target} is not made yet")
        artifact.verify()
        return artifact.folder

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The target model's tokenizer.

        Raises:
            ModelError: there is none, or it has tokens that the model does not know.
        """
        folder = self.given_tokenizer or self.began_with or self.target_folder
        tokenizer = load_tokenizer(folder)
        if self.began_with is not None:  # an untrained model is made for its tokenizer
            check_vocabulary(tokenizer, self.target_config, folder)
        return tokenizer

    @property
    def engine(self) -> Engine:
        """The run's engine, started when it is first asked for."""
        if self._engine is None:
            self._engine = make_engine(
                self.engine_choice.name,
                self.tokenizer,
                batch_size=self.suite.score_batch,
                dtype=self.suite.scored_in,
                device=self.device,
                devices=self.devices,
            )
        return self._engine

    def close(self) -> None:
        """Stop the engine and the ranks."""
        if self.beside is not None:
            self.beside.close()
            self.beside = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def is_done(self, job: Job) -> bool:
        """Whether a job's artifact is there; a given target model needs no job."""
        if job.stage == "target" and self.given_target is not None:
            return True
        return self.store.get(job.stage, job.key) is not None

    def attack(self, name: str) -> Attack:
        """Return an attack of the run."""
        return self._attacks[name]

    def method(self, ref: PluginRef) -> Method:
        """Return the method that a job names.

        Raises:
            PluginError: unknown or broken.
            SpecError: a setting is wrong.
        """
        name = ref.model_dump_json()
        if name not in self._methods:
            self._methods[name] = create_plugin("methods", ref)
        return self._methods[name]

    def check_items(self, measures: Mapping[str, Measure]) -> dict[tuple[str, str], list[str]]:
        """Return (scorer, metric) -> the items that it scores, all of which fit the target model.

        Raises:
            ItemError: one does not; it is named.
        """
        engine = self.check_engine()
        found: dict[tuple[str, str], list[str]] = {}
        for name, measure in measures.items():
            for one in measure.bound.score(engine):
                found.setdefault((name, one.metric), []).append(one.item)
        return found

    def check_engine(self) -> CheckEngine:
        """Return an engine that refuses what the target model could not take, and answers nothing.

        Raises:
            StoreError: the target model is not made yet.
        """
        return CheckEngine(self.tokenizer, load_config(self.began_with or self.target_folder))

    def target_model(self) -> "PreTrainedModel":
        """Load the target model for training."""
        dtype = getattr(torch, self.suite.dtype)
        return load_model(self.target_folder, "cpu" if self.shards else self.device, dtype)

    def check_tokens(self, folder: Path, remedy: str) -> None:
        """Refuse a model for comparison whose own tokenizer, if it brings one, is another.

        Raises:
            ModelError: ends with the remedy.
        """
        brings = (folder / "tokenizer.json").is_file()
        if brings and load_tokenizer(folder).get_vocab() != self.tokenizer.get_vocab():
            raise ModelError(f"{folder} has other tokens than the target model; {remedy}")

    def trains(self, job: Job) -> bool:
        """Whether a job trains the model."""
        if job.method is not None:
            return self.method(job.method).trains
        return job.stage == "target" or (
            job.stage == "attack" and isinstance(self.attack(job.attack).plugin, WeightAttack)
        )

    def shard(self, model: "PreTrainedModel") -> None:
        """Divide a model among the job's ranks, if it has several."""
        if self.shards:
            shard_model(model, self.device)

    @contextlib.contextmanager
    def scored(self, model: "PreTrainedModel") -> "Iterator[PreTrainedModel | None]":
        """Lend a live model for scoring, in the type that the suite scores in.

        A sharded one is put together on the first rank; the others are given None, and wait.
        """
        with whole_model(model) as whole:
            if whole is None:
                yield None
                return
            # vLLM reads the weights from files, and has the devices for itself
            moved = whole is not model and self.engine_choice.name == "hf"
            if moved:
                whole.to(self.device)  # type: ignore[arg-type]
            try:
                with weights_in(whole, self.suite.scored_in):
                    yield whole
            finally:
                if moved:
                    whole.to("cpu")  # type: ignore[arg-type]

    def unlearned_model(self, key: str) -> "PreTrainedModel":
        """Load the target model with a method's changes.

        Raises:
            StoreError: the unlearning job is not done, or a file was damaged since.
            ModelError: it was made from another target model.
        """
        artifact = self.store.get("unlearn", key)
        if artifact is None:
            raise StoreError(f"the unlearned model {key} is not made yet")
        artifact.verify()
        if artifact.meta()["target"] != self.target:
            problem = "the target model's files are others than when it was made"
            raise ModelError(
                f"the unlearned model {key}: {problem}; run again with those that count"
            )
        model = self.target_model()
        apply_changes(model, artifact.folder)
        return model

    def examples(self, roles: Sequence[str]) -> list[Example]:
        """Return the roles' rows as training examples."""
        name = tuple(roles)
        if name not in self._examples:
            config: Any = load_config(self.began_with or self.target_folder).get_text_config()
            self._examples[name] = training_data.tokenize_roles(
                self.tables, name, self.tokenizer, self.suite.max_length, int(config.vocab_size)
            )
        return self._examples[name]

    def step_log(self, folder: Path, passes: Passes | None = None) -> StepLog:
        """Return a job's log of steps, in its folder; what only counts along is not written."""
        return StepLog(folder / "log.jsonl" if leads() else Path(os.devnull), passes)

    def context(self, folder: Path, log: StepLog, progress: Progress, seed: int) -> Context:
        """Return a job's context: state in its folder, steps into its log."""
        memory, room = self.experiment.run.memory, Room(self.room)
        state = FolderState(folder)
        return Context(
            seed, self.device, self.tokenizer, state, progress, log, memory=memory, room=room
        )

    # ----------------------------------------------------------------- scorers

    def bound(self, name: str, scorer: Scorer, attack: Attack | None = None) -> Measure:
        """Return a scorer with its items rendered; built once a run."""
        if name not in self._bound:

            def role(asked: str) -> str:
                return attack.role(asked, self.suite) if attack else asked

            context = ScoreContext(
                rows=lambda asked: self.tables.rows(role(asked)),
                publish_text=lambda asked: self.keeps_text(role(asked)),
                chat=lambda asked: self.tables.chat(role(asked)),
            )
            bound = scorer.build(self.tokenizer, context)
            said = {m.metric: m.direction for m in self.suite.metrics if m.scorer == name}
            ways = {**scorer.directions(), **said}
            self._bound[name] = Measure(bound, scorer.metrics(), scorer.ranges, ways, name)
        return self._bound[name]

    def keeps_text(self, role: str) -> bool:
        """Whether what models write about a role's rows is kept; never where these are gated."""
        asked = self.experiment.run.texts and not self.tables.gated(role)
        return asked or self.tables.source(role).publish_text

    def attack_scorers(self, attack: Attack) -> dict[str, Measure]:
        """Return the attack's own scorer, the fine-tuning accuracy, bound; none if it has none."""
        if attack.fa is None:
            return {}
        return {FA: self.bound(f"{attack.name}/{FA}", attack.fa, attack)}

    def suite_scorers(self) -> Mapping[str, Measure]:
        """Return the suite's scorers, bound."""
        return {name: self.bound(name, scorer) for name, scorer in self.experiment.scorers.items()}


def make_bench(*experiments: Experiment) -> Workbench:
    """Return what the jobs of a run share, or of runs that differ in their method alone.

    Nothing is loaded.

    Raises:
        UsageError: the device cannot be used, or this is one of several processes of a launch.
    """
    refuse_launchers(os.environ)
    run = experiments[0].run
    bench = Workbench(experiments, Store(Path(run.out) / "store"), pick_device(run))
    if run.devices_per_job > 1:
        for experiment in experiments:
            check_sharding(experiment, bench.device, bench.target_config)
    return bench
