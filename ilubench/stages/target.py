"""Make a target model from its recipe: tokenizer, initialisation, training on the suite's text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ilubench import data
from ilubench.errors import SpecError
from ilubench.identity import seed_for
from ilubench.interfaces import Context, Progress
from ilubench.models import initialise, save_model
from ilubench.stages.workbench import StepLog, Workbench
from ilubench.store import Artifact, FolderState
from ilubench.tables import render
from ilubench.tokenizers import train_tokenizer
from ilubench.training import pretrain

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["build_target", "make_target"]


def build_target(bench: Workbench, folder: "Path", progress: Progress) -> dict[str, JsonValue]:
    """Train the suite's target model by its recipe and write the checkpoint into ``folder``.

    Returns:
        its cost.

    Raises:
        SpecError: the suite has no recipe.
    """
    recipe = bench.suite.target.recipe
    if recipe is None:
        raise SpecError("the suite has no recipe for its target", field="target.recipe")
    texts = _texts(bench, recipe.text + recipe.tokenizer.text)
    tokenizer = train_tokenizer(recipe.tokenizer, texts)
    documents = data.examples(bench.tables, recipe.text, tokenizer, 10**9)
    seed = seed_for(recipe.seed, "target")
    model = initialise(recipe.config, len(tokenizer), seed)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
        setattr(model.generation_config, name, getattr(tokenizer, name))
    model.to(bench.device)  # type: ignore[arg-type]
    log = StepLog(folder / "log.jsonl")
    context = Context(seed, bench.device, tokenizer, FolderState(folder), progress, log)
    pretrain(model, documents, recipe, context)
    save_model(model, tokenizer, folder, recipe.dtype)
    return log.cost()


def _texts(bench: Workbench, roles: Sequence[str]) -> list[str]:
    texts = []
    for role in roles:
        source = bench.tables.source(role)
        for row in bench.tables.rows(role):
            prompt, completion = (
                render(template, row, source, role)
                for template in (source.prompt, source.completion)
            )
            texts.append(prompt + completion)
    return texts


def make_target(bench: Workbench, key: str, progress: Progress) -> Artifact:
    """Return the artifact of the target model, made if need be."""
    with bench.store.work("target", key) as folder:
        done = bench.store.get("target", key)
        if done is not None:
            return done
        cost = build_target(bench, folder, progress)
        return bench.store.finish("target", key, {"stage": "target", "cost": cost})
