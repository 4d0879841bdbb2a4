"""What a name stands for: a method, attack, scorer, generator or suite, or a class of settings."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, JsonValue

from ilubench import specs
from ilubench.errors import UsageError, did_you_mean
from ilubench.experiments.method_settings import method_settings, method_variants
from ilubench.experiments.suites import read_suite
from ilubench.interfaces import Generator, Method, PromptAttack, Scorer, WeightAttack
from ilubench.interfaces.discovery import GROUPS, find_plugin, list_entries
from ilubench.specs import RunSpec, Spec, SuiteSpec
from ilubench.specs.meaning import FieldMeaning, field_meanings, summary_of
from ilubench.specs.merging import merge_mappings
from ilubench.specs.yaml_files import load_yaml, task_file, task_names

__all__ = ["Description", "describable", "describe"]

_BELOW = {"methods": "method.", "attacks": "attack.", "suites": "suite."}
_KINDS: dict[str, Any] = {
    "methods": Method,
    "attacks": WeightAttack | PromptAttack,
    "scorers": Scorer,
    "generators": Generator,
}
_SPECS = {name: getattr(specs, name) for name in specs.__all__}
_SETTINGS = {n: c for n, c in _SPECS.items() if isinstance(c, type) and issubclass(c, Spec)}


class Description(NamedTuple):
    """What is known of a name.

    Attributes:
        kind: `methods` and the other groups, `suites` or `settings`.
        name: as it is written.
        summary: what it is, and its source.
        prefix: what its fields have before them as words.
        suite: whose values `here` has.
        fields: with ranges, defaults and meanings.
        here: field -> its value in the suite, where that is not the default.
    """

    kind: str
    name: str
    summary: str
    prefix: str
    suite: str
    fields: tuple[FieldMeaning, ...]
    here: Mapping[str, str]


def describable() -> list[str]:
    """Return the names that can be described without a suite's own."""
    plugins = [name for group in GROUPS for name in list_entries(group)]
    tasks = [*task_names("suites"), *task_names("attacks")]
    return sorted({*plugins, *tasks, *_SETTINGS})


def describe(name: str, suite_name: str = "mini") -> list[Description]:
    """Return what a name stands for, of each kind that has it.

    Args:
        name: of a plugin, suite, attack, a suite's variant or scorer, or a class of settings.
        suite_name: the suite whose values are shown, and whose own names count.

    Raises:
        UsageError: nothing of that name.
        SpecError: no such suite.
    """
    suite, _ = read_suite(suite_name)
    found = [one for kind in (_plugins, _parts, _suites, _classes) for one in kind(name, suite)]
    if not found:
        for key in field_meanings(RunSpec, nested=False):
            if key.name == name:
                told = f"{name} is a key of run: {key.meaning.rstrip('.')}"
                raise UsageError(f"{told}; `ilubench run --help` names all")
        own = [*method_variants(suite), *suite.attacks, *suite.scorers]
        remedy = did_you_mean(name, [*describable(), *own])
        raise UsageError(f"nothing is called {name!r}; {remedy}")
    return found


def _plugins(name: str, suite: SuiteSpec) -> Iterator[Description]:
    for group in GROUPS:
        if name in list_entries(group) or ".py:" in name:
            found = find_plugin(group, name)
            if not issubclass(found, _KINDS[group]):  # a file's class is of one kind
                continue
            here = method_settings(suite, name) if group == "methods" else {}
            yield _made(group, name, summary_of(found), (found, here, suite.name))


def _parts(name: str, suite: SuiteSpec) -> Iterator[Description]:
    """Yield what a suite calls so: a variant of a method, an attack, a scorer."""
    if name in method_variants(suite):
        ref = method_variants(suite)[name]
        found = find_plugin("methods", ref.use)
        here = merge_mappings(method_settings(suite, ref.use), ref.settings)
        summary = f"The method `{ref.use}` as suite {suite.name} varies it.\n\n{summary_of(found)}"
        yield _made("methods", name, summary, (found, here, suite.name))
    attack = suite.attacks.get(name)
    if attack is None and name in task_names("attacks"):
        values = load_yaml(task_file("attacks", name))
        attack = specs.AttackSpec.model_validate(
            {k: v for k, v in values.items() if k != "extends"}
        )
    if attack is not None:
        found = find_plugin("attacks", attack.use)
        where = suite.name if name in suite.attacks else "its file"
        about = f"{attack.title or 'An attack'}, by the plugin `{attack.use}`"
        if attack.protocol is not None:
            about += f"; protocol: {attack.protocol.kind} ({attack.protocol.note})"
        summary = f"{about}.\n\n{summary_of(found)}"
        yield _made("attacks", name, summary, (found, attack.settings, where))
    scorer = suite.scorers.get(name)
    if scorer is not None:
        found = find_plugin("scorers", scorer.use)
        summary = f"The scorer `{scorer.use}` in suite {suite.name}.\n\n{summary_of(found)}"
        made = _made("scorers", name, summary, (found, scorer.settings, suite.name))
        yield made._replace(prefix=f"suite.scorers.{name}.settings.")


def _suites(name: str, suite: SuiteSpec) -> Iterator[Description]:
    if name in task_names("suites") or name == suite.name or name.endswith((".yaml", ".yml")):
        own, _ = read_suite(name) if name != suite.name else (suite, None)
        told = (own.title, own.description, own.citation, _chats(own))
        parts = (part for part in told if part)
        here = own.model_dump(mode="json", exclude_defaults=True)
        yield _made("suites", name, "\n\n".join(parts), (SuiteSpec, here, own.name), nested=False)


def _chats(suite: SuiteSpec) -> str:
    """Which roles are chats, the attacks' own included."""
    found = [role for role, source in suite.all_sources().items() if source.chat]
    if not found:
        return "Texts and prompts are plain: no role is a chat."
    return f"Chats, by the model's own template: {', '.join(found)}."


def _classes(name: str, suite: SuiteSpec) -> Iterator[Description]:
    del suite
    if name in _SETTINGS:
        yield _made("settings", name, summary_of(_SETTINGS[name]), (_SETTINGS[name], {}, ""))


def _made(
    kind: str,
    name: str,
    summary: str,
    values: tuple[type[BaseModel], Mapping[str, JsonValue], str],
    *,
    nested: bool = True,
) -> Description:
    model, given, suite = values
    fields = tuple(field_meanings(model, nested=nested))
    here = {field.name: _shown(_value(given, field.name)) for field in fields}
    kept = {field: text for field, text in here.items() if text}
    return Description(kind, name, summary, _BELOW.get(kind, ""), suite, fields, kept)


def _value(values: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    first, _, rest = name.partition(".")
    value = values.get(first)
    if not rest:
        return value
    return _value(value, rest) if isinstance(value, Mapping) else None


def _shown(value: Any) -> str:  # noqa: ANN401
    """Return a value on one line: of a mapping its names, of a list of mappings their labels."""
    if isinstance(value, Mapping):
        return str(value["use"]) if "use" in value else ", ".join(map(str, value))
    if isinstance(value, list | tuple):
        return ",".join(
            str(v.get("label", "...")) if isinstance(v, Mapping) else str(v) for v in value
        )
    return "" if value is None else str(value)
