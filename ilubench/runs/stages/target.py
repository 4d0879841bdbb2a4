"""Make a model from its recipe: tokenizer, initialisation, training on the suite's text.

The target, which knows, and the retrained model, which never saw the forget set, are made alike:
from the same initial weights, with the same tokenizer, on other text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from ilubench.data import batches as data
from ilubench.data.rows import render_template
from ilubench.data.seeds import seed_for
from ilubench.errors import SpecError
from ilubench.interfaces import Context, Example, Progress, Room
from ilubench.models.checkpoints import load_model, save_model
from ilubench.models.configuration import load_config, other_settings, recipe_config
from ilubench.models.forward import initialise_model
from ilubench.models.sharding import whole_model
from ilubench.models.tokenizers import check_vocabulary, load_tokenizer, train_tokenizer
from ilubench.records.store import Artifact, FolderState
from ilubench.runs.jobs import Job
from ilubench.runs.stages.cost import StepLog
from ilubench.runs.stages.devices import arithmetic
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import RecipeSpec, SuiteSpec
from ilubench.training import fine_tune, pretrain, trainable_only

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["build_target", "make_target", "read_recipe", "recipe_of", "train_by_recipe"]


def recipe_of(suite: SuiteSpec, *, retrain: bool = False) -> RecipeSpec:
    """Return the recipe of the suite's target, or of its retrained model.

    Raises:
        SpecError: the suite has none.
    """
    name, model = ("retrain", suite.retrain) if retrain else ("target", suite.target)
    where = f"suite {suite.name}"
    if model is None:
        problem, remedy = "the suite has no `retrain` model", "add retrain.recipe to the suite"
        raise SpecError(problem, where=where, field=name, remedy=remedy)
    if model.recipe is None:
        problem = f"the suite has weights for its `{name}` model, and no recipe"
        raise SpecError(problem, where=where, field=f"{name}.recipe")
    return model.recipe


def build_target(
    bench: Workbench, folder: "Path", progress: Progress, *, retrain: bool = False
) -> dict[str, JsonValue]:
    """Train the suite's target model by its recipe and write the checkpoint into ``folder``.

    Args:
        bench: shared state.
        folder: of the checkpoint, and of the state of a training that was killed.
        progress: display.
        retrain: make the suite's retrained model instead.

    Returns:
        its cost.

    Raises:
        SpecError: the suite has no recipe, or the retrained model would have another tokenizer
            than the target.
    """
    recipe = recipe_of(bench.suite, retrain=retrain)
    log = bench.step_log(folder)
    model, tokenizer = train_by_recipe(bench, recipe, folder, log, progress, retrain=retrain)
    with whole_model(model) as whole:
        if whole is not None:
            save_model(whole, tokenizer, folder, recipe.dtype)
    return log.cost()


def read_recipe(
    bench: Workbench, recipe: RecipeSpec, *, retrain: bool
) -> "tuple[PreTrainedTokenizerBase, list[Example]]":
    """Return the tokenizer and the text of a recipe; nothing is trained, no weights are loaded.

    Raises:
        SpecError: the retrained model would have another tokenizer than the target, or be built
            otherwise.
        ModelError: configuration or tokenizer cannot be loaded.
        DataError: the text is missing, or does not fit.
    """
    init = bench.init_of(recipe, retrain=retrain)
    rows = None
    if init is None:
        assert recipe.config is not None
        tokenizer, config = _tokenizer(bench, recipe), recipe_config(recipe.config)
    else:
        tokenizer, config = load_tokenizer(bench.given_tokenizer or init), load_config(init)
        check_vocabulary(tokenizer, config, init)
        rows = int(cast("Any", config.get_text_config()).vocab_size)
    if retrain:
        _check_alike(bench, config)
        tokenizer = _check_same_words(bench, tokenizer)
    limit = 10**9 if recipe.pack else bench.suite.max_length
    documents = data.tokenize_roles(bench.tables, recipe.text, tokenizer, limit, rows)
    for phase in recipe.pack:
        data.Blocks(documents, phase.length, recipe.seed)
    return tokenizer, documents


def train_by_recipe(
    bench: Workbench,
    recipe: RecipeSpec,
    folder: "Path",
    log: StepLog,
    progress: Progress,
    *,
    retrain: bool,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Return the model that a recipe makes, on the job's devices, and its tokenizer.

    Args:
        bench: shared state.
        recipe: how it is made.
        folder: of the state of a training that was killed.
        log: of the steps.
        progress: display.
        retrain: whether it is the suite's retrained model.

    Raises:
        SpecError: as of `read_recipe`.
        ModelError: the weights to begin with cannot be loaded.
        DataError: as of `read_recipe`.
    """
    seed = seed_for(recipe.seed, "target")
    tokenizer, documents = read_recipe(bench, recipe, retrain=retrain)
    init = bench.init_of(recipe, retrain=retrain)
    if init is not None:
        model = load_model(init, "cpu" if bench.shards else bench.device)
    else:
        model = _untrained(bench, recipe, tokenizer, seed)
    bench.shard(model)
    room = Room(bench.room)
    context = Context(seed, bench.device, tokenizer, FolderState(folder), progress, log, room=room)
    if recipe.pack:
        pretrain(model, documents, recipe, context)
    else:
        with trainable_only(model, ()):
            for _ in fine_tune(model, documents, recipe.train, context):
                pass
    return model, tokenizer


def _untrained(
    bench: Workbench, recipe: RecipeSpec, tokenizer: "PreTrainedTokenizerBase", seed: int
) -> "PreTrainedModel":
    assert recipe.config is not None
    model = initialise_model(recipe.config, len(tokenizer), seed)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
        setattr(model.generation_config, name, getattr(tokenizer, name))
    if not bench.shards:
        model.to(bench.device)  # type: ignore[arg-type]
    return model


def _tokenizer(bench: Workbench, recipe: RecipeSpec) -> "PreTrainedTokenizerBase":
    assert recipe.tokenizer is not None
    return train_tokenizer(recipe.tokenizer, _texts(bench, recipe.roles))


def _check_alike(bench: Workbench, config: "PretrainedConfig") -> None:
    """Raise unless the retrained model is built as the target is, whose place its weights take."""
    for name, mine, theirs in other_settings(config, bench.target_config):
        made = "init" if recipe_of(bench.suite, retrain=True).init else "config"
        problem = f"{name} would be {mine}, and is {theirs} in the target"
        where, field = f"suite {bench.suite.name}", f"retrain.recipe.{made}"
        raise SpecError(problem, where=where, field=field, remedy="give a model of its shape")


def _check_same_words(
    bench: Workbench, tokenizer: "PreTrainedTokenizerBase"
) -> "PreTrainedTokenizerBase":
    """Return the target's tokenizer; raise unless the retrained model's has the same tokens."""
    if bench.began_with is not None:
        other = bench.tokenizer
    else:  # it may not be made yet
        other = _tokenizer(bench, recipe_of(bench.suite))
    mine, theirs = tokenizer.get_vocab(), other.get_vocab()
    if mine != theirs:
        problem = (
            f"the tokenizer would be another than the target's: {len(mine)} tokens, "
            f"{len(mine.keys() - theirs.keys())} of them unknown to the target's {len(theirs)}"
        )
        field, remedy = "retrain.recipe.init", "begin with the target's weights"
        if recipe_of(bench.suite, retrain=True).tokenizer is not None:
            field = "retrain.recipe.tokenizer.text"
            remedy = "name the roles of the target's text there too"
        where = f"suite {bench.suite.name}"
        raise SpecError(problem, where=where, field=field, remedy=remedy)
    return other


def _texts(bench: Workbench, roles: Sequence[str]) -> list[str]:
    texts = []
    for role in roles:
        source = bench.tables.source(role)
        for row in bench.tables.rows(role):
            prompt, completion = (
                render_template(template, row, source, role)
                for template in (source.prompt, source.completion)
            )
            texts.append(prompt + completion)
    return texts


def make_target(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Return the artifact of the target model, made if need be."""
    with bench.store.work("target", job.key) as folder:
        done = bench.store.get("target", job.key)
        if done is not None:
            return done
        cost = build_target(bench, folder, progress)
        return bench.store.finish(
            "target", job.key, {"stage": "target", "cost": cost, **arithmetic(bench.device)}
        )
