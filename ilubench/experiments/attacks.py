"""Names -> attacks: of a suite, with a run's words, or as a run was made."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from pydantic import JsonValue

from ilubench.errors import PluginError, SpecError, did_you_mean
from ilubench.experiments.scorers import check_chats, check_metric
from ilubench.interfaces import PromptAttack, Scorer, WeightAttack
from ilubench.interfaces.discovery import SuiteAttacks, create_plugin, find_plugin
from ilubench.specs import AttackSpec, PluginRef, Settings, SuiteSpec
from ilubench.specs.overrides import Override, PluginLookup, apply_overrides, nested_settings
from ilubench.specs.values import NO_VALUE, convert_value
from ilubench.specs.yaml_files import task_names

__all__ = ["Attack", "named_attacks", "resolve_attack", "restore_attack"]


@dataclass(frozen=True)
class Attack:
    """A resolved attack: its spec, its plugin, and the scorer of its FA task.

    ``links``: the attacks that it is made of, one after the other.
    """

    name: str
    spec: AttackSpec
    plugin: WeightAttack | PromptAttack
    fa: Scorer | None
    links: Mapping[str, "Attack"] = field(default_factory=dict)

    @property
    def tunes(self) -> bool:
        """Whether it is told what its checkpoints scored, which are trials then."""
        return isinstance(self.plugin, WeightAttack) and self.plugin.adaptive

    @property
    def only(self) -> dict[str, dict[str, JsonValue]]:
        """Scorer -> column -> value: of the rows that are scored; also what its links say."""
        every = [link.spec.only for link in self.links.values()]
        return {scorer: told for only in (*every, self.spec.only) for scorer, told in only.items()}

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name the attack in errors about its settings."""
        try:
            yield
        except SpecError as error:
            place = f"attack.{self.name}.{error.field}" if error.field else f"attacks.{self.name}"
            raise SpecError(error.problem, field=place, remedy=error.remedy) from error

    def trained(self, suite: SuiteSpec) -> dict[str, tuple[str, ...]]:
        """Return each role that it reads -> the full names of the roles of rows that it stands for.

        It is the attack's own or the suite's, the name of an environment, or `forget` or `retain`:
        all roles of the suite's forget or retain set.

        Raises:
            SpecError: it is none of them.
        """
        if self.links:
            return {
                f"{name}.{role}": names
                for name, link in self.links.items()
                for role, names in link.trained(suite).items()
            }
        words: dict[str, tuple[str, ...]] = {n: (r,) for n, r in suite.environments.items()}
        words |= {"forget": suite.forget, "retain": suite.retain}
        own = {*self.spec.data, *suite.data}
        return {
            role: words[role] if role in words and role not in own else (self.role(role, suite),)
            for role in self.plugin.roles()
        }

    def reads(self, suite: SuiteSpec) -> dict[str, str]:
        """Return a name of each role of rows that it reads -> its full name."""
        return {
            role if len(names) == 1 else full: full
            for role, names in self.trained(suite).items()
            for full in names
        }

    def role(self, role: str, suite: SuiteSpec) -> str:
        """Return the full name of a role: the attack's own, else the suite's."""
        if role in self.spec.data:
            return f"{self.name}.{role}"
        if role in suite.data:
            return role
        words = [*suite.environments, "forget", "retain"]
        known = did_you_mean(role, [*self.spec.data, *suite.data, *words])
        remedy = f"declare data.{role} of the attack, in a suite or its own file; or {known}"
        raise SpecError(f"unknown data role {role!r}", where=f"attack {self.name}", remedy=remedy)


def named_attacks(
    suite: SuiteSpec, names: tuple[str, ...] | None, overrides: Sequence[Override]
) -> tuple[Attack, ...]:
    """Return the attacks of a run, with its words' changes.

    Args:
        suite: has them.
        names: that were asked for, `all` for every one; None: the benign ones.
        overrides: what follows `attack.`.

    Raises:
        SpecError: an unknown name, or a wrong setting.
        PluginError: a plugin is missing or broken.
    """
    chosen = suite.benign_attacks if names is None else names
    chosen = tuple(suite.attacks) if chosen == ("all",) else chosen
    for name in chosen:
        if name not in suite.attacks:
            parts = re.split(r"[\s+;/|]+", name)
            remedy = did_you_mean(name, {*suite.attacks, *task_names("attacks")})
            if len(parts) > 1 and set(parts) <= set(suite.attacks):
                remedy = f"write attacks={','.join(parts)}"
            if name in ("all", *NO_VALUE):
                remedy = f"attacks={name} stands alone"
            raise SpecError(
                f"suite {suite.name} has no attack {name!r}", field="attacks", remedy=remedy
            )
        if chosen.count(name) > 1:
            raise SpecError(f"{name} is named twice", field="attacks", remedy="name each once")
    everyone = tuple(o for o in overrides if o.path[0] not in suite.attacks)
    found = tuple(resolve_attack(suite, name, overrides, everyone) for name in chosen)
    made = {name: one for top in found for name, one in ((top.name, top), *top.links.items())}
    for override in overrides:
        if override.path[0] in suite.attacks and override.path[0] not in made:
            problem = f"this run does not make {override.path[0]}, and nothing would come of it"
            remedy = f"leave it out, or write attacks={','.join((*chosen, override.path[0]))}"
            raise SpecError(problem, field=f"attack.{override.key}", remedy=remedy)
    kinds = [type(one.plugin) for one in made.values()]
    known = {field for kind in kinds for field in kind.model_fields}
    for override in everyone:
        if not kinds:
            problem = "this run makes no attack, and nothing would come of it"
            raise SpecError(problem, field=f"attack.{override.key}", remedy="leave it out")
        if override.path[0] not in known:
            below = {n for kind in kinds for n in nested_settings(kind, override.path[0])}
            remedy = did_you_mean(override.path[0], {*known, *suite.attacks})
            if below:
                remedy = f"did you mean {' or '.join(f'attack.{one}' for one in sorted(below))}?"
            problem = f"unknown setting {override.path[0]!r}"
            raise SpecError(problem, field=f"attack.{override.key}", remedy=remedy)
    return found


def resolve_attack(
    suite: SuiteSpec,
    name: str,
    overrides: Sequence[Override] = (),
    everyone: Sequence[Override] = (),
) -> Attack:
    """Return an attack of the suite, with the words' changes.

    Args:
        suite: has it.
        name: of the attack.
        overrides: what follows `attack.`; those below an attack's name count for it.
        everyone: those of them that set a field of every attack which has it.

    Raises:
        SpecError: a setting is wrong, or a link.
        PluginError: its plugin is missing or broken.
    """
    spec = suite.attacks[name]
    kind = _attack_class(name, spec)
    mine = tuple(o.below() for o in overrides if o.path[0] == name and len(o.path) > 1)
    own = tuple(o for o in everyone if o.path[0] in kind.model_fields)
    lookup, settings = PluginLookup(find_plugin, lambda _g, _u: {}), dict(spec.settings)
    links: dict[str, Attack] = {}
    several = _links_field(kind)
    if several:
        chosen = [o for o in (*own, *mine) if o.path == (several,)]
        own, mine = (tuple(o for o in some if o not in chosen) for some in (own, mine))
        told = (
            convert_value(tuple[str, ...], chosen[-1].text, f"attack.{name}.{several}")
            if chosen
            else settings.get(several)
        )
        for link in _link_names(suite, name, several, told):
            links[link] = resolve_attack(suite, link, overrides, everyone)
    settings = apply_overrides(kind, settings, own, lookup, prefix="attack.")
    settings = apply_overrides(kind, settings, mine, lookup, prefix=f"attack.{name}.")
    attack = _attack(name, spec, kind, settings, links)
    if attack.fa is not None:
        data = {**suite.data, **attack.spec.data}
        check_chats(attack.fa, data, f"attack {name}: fa.scorer")
    return attack


def _link_names(suite: SuiteSpec, name: str, field: str, told: object) -> list[str]:
    """Return the attacks that one is made of.

    Raises:
        SpecError: one is unknown, is named twice, changes no weights, or is made of others.
    """

    def refuse(problem: str, remedy: str) -> SpecError:
        return SpecError(problem, where=f"attack {name}", field=field, remedy=remedy)

    if not isinstance(told, list | tuple) or not all(isinstance(one, str) for one in told):
        raise refuse("a list of attacks' names is needed", f"write {field}: [lora, quantize]")
    names = [str(one) for one in told]
    if len(names) < 2:
        raise refuse(f"{len(names)} is no chain", "name two or more")
    for link in names:
        if link not in suite.attacks:
            remedy = did_you_mean(link, [one for one in suite.attacks if one != name])
            raise refuse(f"suite {suite.name} has no attack {link!r}", remedy)
        kind = _attack_class(link, suite.attacks[link])
        if names.count(link) > 1:
            raise refuse(f"{link} is named twice", "name each once")
        if not issubclass(kind, WeightAttack):
            raise refuse(f"{link} changes no weights", "leave it out")
        if kind.adaptive:
            raise refuse(f"{link} tunes, and its trials are no course", "leave it out")
        if _links_field(kind):
            raise refuse(f"{link} is made of others itself", "name these instead")
    return names


def restore_attack(suite: SuiteSpec, name: str, settings: Settings) -> Attack:
    """Return an attack with the settings that it was run with; its spec stays the suite's.

    Raises:
        SpecError: a setting is wrong.
        PluginError: its plugin is missing or broken.
    """
    spec = suite.attacks[name]
    kind = _attack_class(name, spec)
    told = settings.get(_links_field(kind))
    links = {
        link: restore_attack(suite, link, cast("Settings", cast("Settings", ref)["settings"]))
        for link, ref in (told.items() if isinstance(told, Mapping) else ())
    }
    return _attack(name, spec, kind, settings, links)


# --- inside ---


def _attack_class(name: str, spec: AttackSpec) -> type[WeightAttack | PromptAttack]:
    found = find_plugin("attacks", spec.use)
    if not issubclass(found, WeightAttack | PromptAttack):
        raise PluginError(f"attack {name!r}: {spec.use!r} is no WeightAttack and no PromptAttack")
    return found


def _attack(
    name: str,
    spec: AttackSpec,
    found: type[WeightAttack | PromptAttack],
    settings: Settings,
    links: Mapping[str, Attack],
) -> Attack:
    tunes = issubclass(found, WeightAttack) and found.adaptive
    if spec.fa is not None and (tunes or issubclass(found, PromptAttack)):
        why = "tunes on what is forgotten" if tunes else "changes no weights"
        problem = f"{spec.use} {why}, so that it has no task to be learned"
        raise SpecError(problem, where=f"attack {name}", field="fa", remedy="leave it out")
    if tunes and not spec.further:
        problem = f"{spec.use} tunes: RA is over courses, and its trials are none"
        raise SpecError(problem, where=f"attack {name}", remedy="write further: true")
    if links:
        refs = {
            n: {"use": one.spec.use, "settings": one.plugin.model_dump(mode="json")}
            for n, one in links.items()
        }
        settings = {**settings, _links_field(found): cast("JsonValue", refs)}
    ref = PluginRef(use=spec.use, settings=settings)
    plugin = create_plugin("attacks", ref, source=f"attack {name}")
    fa = None
    if spec.fa is not None:
        fa = cast(
            "Scorer", create_plugin("scorers", spec.fa.scorer, source=f"attack {name}: fa.scorer")
        )
        check_metric(fa, spec.fa, f"attack {name}: fa.metric")
    return Attack(name, spec, plugin, fa, links)


def _links_field(kind: type[WeightAttack | PromptAttack]) -> str:
    """Return the field that names other attacks of the suite; empty where there is none."""
    fields = kind.model_fields.items()
    marked = (name for name, told in fields if SuiteAttacks() in told.metadata)
    return next(marked, "")
