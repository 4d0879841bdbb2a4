"""The key of the target model, which every other key starts from."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue

from ilubench.data.rows import Tables
from ilubench.models.checkpoints import folder_sha256, tokenizer_sha256
from ilubench.records.code_hash import code_closure
from ilubench.records.keys import digest, library_versions
from ilubench.specs import RecipeSpec

__all__ = [
    "TRAINING_LIBRARIES",
    "fingerprint_roles",
    "key_of_files",
    "key_of_recipe",
    "recipe_identity",
]

TRAINING_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def fingerprint_roles(tables: Tables, roles: Iterable[tuple[str, str]]) -> dict[str, JsonValue]:
    """Return name -> fingerprint of the rows of a role."""
    return {name: dict(tables.fingerprint(role)) for name, role in sorted(roles)}


def key_of_files(model: Path, tokenizer: Path | None) -> str:
    """Return the key of given weights: their files' hash, and that of a tokenizer of its own."""
    files: dict[str, JsonValue] = {"stage": "target", "files": folder_sha256(model)}
    if tokenizer is not None:
        files["tokenizer"] = tokenizer_sha256(tokenizer)
    return digest(files)


def recipe_identity(
    recipe: RecipeSpec,
    init: Path | None,
    tokenizer: Path | None,
    tables: Tables,
    max_length: int,
) -> dict[str, JsonValue]:
    """Return what tells the model that a recipe makes from others, wherever it is made.

    Args:
        recipe: how it is made.
        init: the folder of the weights to begin with.
        tokenizer: the folder of another tokenizer than theirs.
        tables: of its text.
        max_length: tokens of a sequence; text that is packed has no such limit.
    """
    named = ((f"{place}", role) for place, role in enumerate(recipe.roles))
    return {
        # whatever the place is called that the weights lie in, they are what they are
        "recipe": recipe.model_dump(mode="json", exclude={"init"}),
        "text": fingerprint_roles(tables, named),
        **({} if init is None else {"init": folder_sha256(init)}),
        **({"tokenizer": tokenizer_sha256(tokenizer)} if init and tokenizer else {}),
        **({} if recipe.pack else {"max_length": max_length}),
    }


def key_of_recipe(identity: Mapping[str, JsonValue], device: str) -> str:
    """Return the key of the model that a recipe makes, by this code on a kind of device."""
    return digest(
        {
            "stage": "target",
            **identity,
            "device": device,
            "libraries": dict(library_versions(TRAINING_LIBRARIES)),
            "code": dict(code_closure(["ilubench.runs.stages.target"])),
        }
    )
