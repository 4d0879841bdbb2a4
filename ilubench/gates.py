"""Whether a suite's attacks are any good, seen on the original model: its gates.

An attack whose task the original model knows already, or never learns, is no attack; one that
destroys the original model shows nothing about unlearning; one that trains on evaluation items
teaches what it claims to recover. A suite states its bounds (`gates`), this checks them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ilubench.errors import DataError, UsageError
from ilubench.figures import AttackFigures, RobustnessRow
from ilubench.finished import FinishedRun
from ilubench.markdown import cell, table
from ilubench.planning import REFERENCE
from ilubench.results import OverlapRecord
from ilubench.specs import FineTuningAccuracySpec, GateSpec, MetricSpec, SuiteSpec

__all__ = ["Gate", "check_gates", "gates_of", "gates_text"]


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


def gates_of(run: FinishedRun, examples: Mapping[str, int]) -> list[Gate]:
    """Return every gate of every attack that a run of the original model carried out.

    Args:
        run: of the method `none`.
        examples: attack -> its distinct training examples.

    Raises:
        UsageError: another method's run, or the suite states no gates.
        DataError: no samples or no attack.
    """
    if run.record.method["use"] != REFERENCE:
        used = run.record.method["use"]
        raise UsageError(f"{run.path} is a run of {used}; gates are seen on method={REFERENCE}")
    if run.suite is None:
        raise DataError(f"{run.path}: {run.unread}")
    if run.suite.gates is None:
        raise UsageError(f"suite {run.suite.name} states no `gates`")
    if not run.rows:
        raise DataError(f"{run.path}: no attack was run, so that no gate can be seen")
    row = next(iter(run.rows.values()))  # FA and utility are the same in the row of each metric
    return check_gates(run.suite, row, run.record.overlap, examples)


def check_gates(
    suite: SuiteSpec,
    row: RobustnessRow,
    overlap: Sequence[OverlapRecord],
    examples: Mapping[str, int],
) -> list[Gate]:
    """Return every gate of every attack in the original model's row.

    Args:
        suite: with `gates`.
        row: of the original model.
        overlap: evaluation items found in training text.
        examples: attack -> its distinct training examples.

    Raises:
        DataError: an attack has no FA task, or FA was not measured.
    """
    bounds = suite.gates or GateSpec()
    return [
        gate
        for figures in row.attacks
        for gate in _gates(suite, bounds, figures, _shared(figures.attack, overlap), examples)
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


def _sign(name: str) -> str:
    return "<=" if name in ("fa_start", "shared") else ">="


def _shown(gate: Gate) -> str:
    value = f"{gate.value:.3f}" if isinstance(gate.value, float) else str(gate.value)
    return value if gate.passed else f"**{value}**"


def _shared(attack: str, overlap: Sequence[OverlapRecord]) -> int:
    return sum(found.contained for found in overlap if found.role.split(".")[0] == attack)


def _gates(
    suite: SuiteSpec,
    bounds: GateSpec,
    figures: AttackFigures,
    shared: int,
    examples: Mapping[str, int],
) -> Iterator[Gate]:
    name = figures.attack
    fa = suite.attacks[name].fa
    if fa is None:
        raise DataError(f"attack {name} has no FA task; nobody can see whether it learns anything")
    start, end = _better(figures, 0, fa), _better(figures, -1, fa)
    kept = _kept(figures, suite.utility)
    distinct = examples[name]
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
    return fa.value - (spec.chance if spec.direction == "higher" else -spec.chance)


def _kept(figures: AttackFigures, metrics: Sequence[MetricSpec]) -> float:
    """The lowest share of the utility above chance that any metric had at any checkpoint."""
    kept = []
    for place, spec in enumerate(metrics):
        chance = spec.chance if spec.direction == "higher" else -spec.chance
        values = [step.utility[place].value for step in figures.steps]
        above = [value - chance for value in values if value is not None]
        if len(above) < len(values) or above[0] <= 0:
            raise DataError(f"attack {figures.attack}: {spec.label} of the original is no utility")
        kept.append(min(above) / above[0])
    return min(kept)
