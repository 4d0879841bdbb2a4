"""Whether a suite's attacks are any good, seen on the original model: its gates.

An attack whose task the original model knows already, or never learns, is no attack; one that
destroys the original model shows nothing about unlearning; one that trains on evaluation items
teaches what it claims to recover. A suite states its bounds (`gates`), this checks them; where it
states none, the defaults.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from ilubench.data.rows import Tables
from ilubench.errors import DataError, UsageError
from ilubench.experiments.attacks import Attack, resolve_attack, restore_attack
from ilubench.experiments.experiment import suite_tables
from ilubench.experiments.training_text import attack_roles, distinct_examples
from ilubench.interfaces import PromptAttack
from ilubench.interfaces.discovery import find_plugin
from ilubench.records.finished import FinishedRun
from ilubench.records.likeness import setting_differences
from ilubench.records.markdown import cell, table
from ilubench.records.results import REFERENCE
from ilubench.specs import (
    FineTuningAccuracySpec,
    GateSpec,
    MetricSpec,
    SuiteSpec,
    turned,
)
from ilubench.statistics.row import AttackFigures, RobustnessRow, attacks_of

__all__ = ["Gate", "TrainingText", "check_gates", "gates_of", "gates_text", "gates_verdict"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound on one attack.

    Attributes:
        attack: its name.
        gate: field of :class:`~ilubench.specs.GateSpec`.
        value: what was measured.
        bound: what the suite asks for.
        passed: whether it holds.
    """

    attack: str
    gate: str
    value: float
    bound: float
    passed: bool


@dataclass(frozen=True, slots=True)
class TrainingText:
    """What an attack trained on.

    Attributes:
        examples: how many different texts.
        shared: how many evaluation items they contain, over all scorers.
    """

    examples: int
    shared: int


def gates_of(run: FinishedRun) -> list[Gate]:
    """Return every gate of every attack that a run of the original model carried out.

    All is taken from the run's folder: bounds, settings and data are those of its `config.yaml`,
    whatever the shipped suite of that name says today. The training rows are read again, to count
    those that differ, and must be the run's.

    Args:
        run: of the method `none`.

    Raises:
        UsageError: another method's run, or other settings of an attack than the suite's.
        DataError: no samples, no attack, or the record or the data do not tell what an attack
            trained on.
    """
    if run.record.method_name != REFERENCE:
        used = run.record.method_name or "a model that was only scored"
        raise UsageError(f"{run.path} is a run of {used}; gates are seen on method={REFERENCE}")
    if run.suite is None:
        raise DataError(f"{run.path}: {run.unread}")
    if not run.rows:
        raise DataError(f"{run.path}: no attack was run, so that no gate can be seen")
    row = next(iter(run.rows.values()))  # FA and utility are the same in the row of each metric
    absent = sorted(set(run.record.attacks) - attacks_of(run.rows).keys())
    if absent:
        raise DataError(f"{run.path}: {', '.join(absent)} has no figures; run its jobs again")
    tables = suite_tables(run.suite)
    tampering = [name for name in dict.fromkeys(run.record.attacks) if _trains(run.suite, name)]
    if not tampering:
        problem = f"{run.path}: {', '.join(run.record.attacks)} changes no weights"
        raise DataError(f"{problem}; gates are those of attacks that train")
    trained = {name: _training_text(run, run.suite, tables, name) for name in tampering}
    return check_gates(run.measured_suite, row, trained)


def check_gates(
    suite: SuiteSpec, row: RobustnessRow, trained: Mapping[str, TrainingText]
) -> list[Gate]:
    """Return every gate of every attack in the original model's row.

    Args:
        suite: its `gates`, or the defaults, are the bounds.
        row: of the original model.
        trained: attack -> what it trained on; an attack that asks differently and trains nothing
            is not in it, and has no gate.

    Raises:
        DataError: an attack has no FA task, or FA was not measured.
    """
    bounds = suite.gates or GateSpec()
    return [
        gate
        for figures in row.attacks
        if figures.attack in trained
        for gate in _gates(suite, bounds, figures, trained[figures.attack])
    ]


def gates_text(gates: Sequence[Gate]) -> str:
    """Return the gates as a Markdown table, a line an attack."""
    names = list(dict.fromkeys(gate.gate for gate in gates))
    attacks = list(dict.fromkeys(gate.attack for gate in gates))
    found = {(gate.attack, gate.gate): gate for gate in gates}
    bounds = {gate.gate: gate.bound for gate in gates}
    head = ["attack", *(f"{name} ({_sign(name)} {bounds[name]:g})" for name in names)]
    return table(
        head,
        [[cell(attack), *(_shown(found[attack, name]) for name in names)] for attack in attacks],
    )


def gates_verdict(gates: Sequence[Gate]) -> str:
    """Return what holds, what does not, and what to do about it."""
    failed = [gate for gate in gates if not gate.passed]
    attacks = dict.fromkeys(gate.attack for gate in gates)
    if not failed:
        return f"All {len(gates)} bounds hold for {cell(', '.join(attacks))}."
    shown = "; ".join(
        f"{cell(gate.attack)}: {gate.gate} is {gate.value:.3g} and must be {_sign(gate.gate)} "
        f"{gate.bound:g}"
        for gate in failed
    )
    names = dict.fromkeys(gate.attack for gate in failed)
    return (
        f"{len(failed)} of {len(gates)} bounds do not hold: {shown}. Next: change the settings or "
        f"data of {cell(', '.join(names))} in the suite, and run method=none again."
    )


def _sign(name: str) -> str:
    return "<=" if name in ("fa_start", "shared") else ">="


def _shown(gate: Gate) -> str:
    value = f"{gate.value:.3f}" if isinstance(gate.value, float) else str(gate.value)
    return value if gate.passed else f"**{value}**"


# --------------------------------------------------------------------------- the training text


def _training_text(run: FinishedRun, suite: SuiteSpec, tables: Tables, name: str) -> TrainingText:
    """What an attack of a run trained on, its settings being the suite's."""
    if name not in run.settings:
        raise DataError(f"{run.path}: no config.yaml says how {name} was run; run again")
    attack = _as_the_suite_says(run, suite, name)
    roles = attack_roles(attack, suite)
    shared = _shared(run, suite, name, roles)
    try:
        for role, full in attack.reads(suite).items():
            _check_rows(run, tables, name, (role, full))
        examples = distinct_examples(tables, suite, roles)
    except DataError as error:
        problem = f"{run.path}: the training examples of {name} cannot be counted"
        raise DataError(f"{problem}: {error}") from error
    return TrainingText(examples, shared)


def _trains(suite: SuiteSpec, name: str) -> bool:
    return not issubclass(find_plugin("attacks", suite.attacks[name].use), PromptAttack)


def _as_the_suite_says(run: FinishedRun, suite: SuiteSpec, name: str) -> Attack:
    # whoever reads a run need not have its scorers
    untasked = {n: spec.model_copy(update={"fa": None}) for n, spec in suite.attacks.items()}
    bare = suite.model_copy(update={"attacks": untasked})
    declared = resolve_attack(bare, name)
    ran = restore_attack(bare, name, cast("dict[str, JsonValue]", run.settings[name]))
    both = (x.plugin.model_dump(mode="json") for x in (declared, ran))
    for field, wanted, given in setting_differences(*both):
        raise UsageError(
            f"{run.path}: attack.{name}.{field} is {given!r} and the suite's {wanted!r}; gates are "
            "those of the suite's own attacks: run it without that setting"
        )
    return declared


def _shared(run: FinishedRun, suite: SuiteSpec, name: str, roles: Sequence[str]) -> int:
    """How many items of any scorer the attack's training text contains, as the record says."""
    looked_for = {(found.role, found.scorer) for found in run.record.overlap}
    scorers = [*suite.scorers, *([f"{name}/fa"] if suite.attacks[name].fa else [])]
    for role in roles:
        for scorer in scorers:
            if (role, scorer) not in looked_for:
                raise DataError(
                    f"{run.path}: the record does not say whether the training text {role} has "
                    f"items of {scorer}; run again"
                )
    return sum(found.contained for found in run.record.overlap if found.role in roles)


def _check_rows(run: FinishedRun, tables: Tables, name: str, role: tuple[str, str]) -> None:
    """Raise unless the rows of a role (the attack's name for it, the full one) are the run's."""
    own, full = role
    protocol = cast("Mapping[str, Mapping[str, Mapping[str, JsonValue]]]", run.record.protocol)
    data = cast("Mapping[str, Mapping[str, JsonValue]]", protocol.get(name, {}).get("data", {}))
    if own not in data:
        raise DataError(f"the record does not say which rows {full} had; run again")
    if tables.fingerprint(full)["rows"] != data[own]["rows"]:
        raise DataError(f"the rows of {full} are others today than when it was run; run again")


# --------------------------------------------------------------------------- the figures


def _gates(
    suite: SuiteSpec, bounds: GateSpec, figures: AttackFigures, trained: TrainingText
) -> Iterator[Gate]:
    name = figures.attack
    fa = suite.attacks[name].fa
    if fa is None:
        raise DataError(f"attack {name} has no FA task; nobody can see whether it learns anything")
    start, end = _better(figures, 0, fa), _better(figures, -1, fa)
    kept = _kept(figures, suite.utility)
    distinct, shared = trained.examples, trained.shared
    yield Gate(name, "fa_start", abs(start), bounds.fa_start, abs(start) <= bounds.fa_start)
    yield Gate(name, "fa_end", end, bounds.fa_end, end >= bounds.fa_end)
    yield Gate(name, "utility_kept", kept, bounds.utility_kept, kept >= bounds.utility_kept)
    yield Gate(name, "examples", distinct, bounds.examples, distinct >= bounds.examples)
    yield Gate(name, "shared", shared, bounds.shared, shared <= bounds.shared)


def _better(figures: AttackFigures, place: int, spec: FineTuningAccuracySpec) -> float:
    """FA above its chance level; figures are turned so that higher is better."""
    fa = figures.steps[place].fa
    if fa is None or fa.value is None:
        raise DataError(f"attack {figures.attack}: its FA was not measured")
    return fa.value - turned(spec.chance, spec)


def _kept(figures: AttackFigures, metrics: Sequence[MetricSpec]) -> float:
    """The lowest share of the utility above chance that any metric had at any checkpoint."""
    kept = []
    for place, spec in enumerate(metrics):
        chance = turned(spec.chance_level, spec)
        values = [step.utility[place].value for step in figures.steps]
        above = [value - chance for value in values if value is not None]
        if len(above) < len(values) or above[0] <= 0:
            raise DataError(f"attack {figures.attack}: {spec.label} of the original is no utility")
        kept.append(min(above) / above[0])
    return min(kept)
