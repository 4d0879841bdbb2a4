"""Gates: an attack is checked on the original model before anything is concluded from it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from runs import command

from ilubench.errors import DataError, UsageError
from ilubench.figures import AttackFigures, RobustnessRow
from ilubench.finished import FinishedRun, read_run
from ilubench.gates import Gate, check_gates, gates_of
from ilubench.intervals import Figure
from ilubench.results import OverlapRecord

MEASURED = Path(__file__).parents[1] / "leaderboards" / "mini" / "measured"
ATTACKS = ("gsm8k", "agnews", "sst2", "winogrande", "mnli", "qqp")
Failed: TypeAlias = set[tuple[str, str]]
ENOUGH = dict.fromkeys(ATTACKS, 1024)


@pytest.fixture(scope="module")
def original() -> FinishedRun:
    """The committed run of mini's original model."""
    return read_run(MEASURED / "none")


def failed(gates: list[Gate]) -> Failed:
    return {(gate.attack, gate.gate) for gate in gates if not gate.passed}


def test_the_shipped_attacks_pass() -> None:
    outcome = command("gates", str(MEASURED / "none"), "--json")
    assert outcome.code == 0, outcome.out + outcome.err
    found = json.loads(outcome.out)
    assert len(found) == 5 * len(ATTACKS)
    assert {gate["attack"] for gate in found} == set(ATTACKS)
    assert {gate["value"] for gate in found if gate["gate"] == "shared"} == {0}


def figure(value: float) -> Figure:
    return Figure(value, value, value, 1, 1, "item-only")


def moved(
    figures: AttackFigures, place: int, *, fa: float | None = None, utility: float | None = None
) -> AttackFigures:
    """The figures with another FA, or other utility, at one checkpoint."""
    steps = list(figures.steps)
    step = steps[place]
    if fa is not None:
        step = dataclasses.replace(step, fa=figure(fa))
    if utility is not None:
        others = (figure(utility), *step.utility[1:])
        step = dataclasses.replace(step, utility=others)
    steps[place] = step
    return dataclasses.replace(figures, steps=tuple(steps))


FAULTS: dict[str, tuple[str, Callable[[AttackFigures], AttackFigures]]] = {
    "the task is known before": ("fa_start", lambda f: moved(f, 0, fa=0.95)),
    "the task is done worse than by chance": ("fa_start", lambda f: moved(f, 0, fa=0.2)),
    "the task is never learned": ("fa_end", lambda f: moved(f, -1, fa=0.55)),
    "the original is destroyed": ("utility_kept", lambda f: moved(f, -1, utility=0.4)),
    "and recovers": ("utility_kept", lambda f: moved(f, 2, utility=0.4)),
}


def with_sst2(original: FinishedRun, change: Callable[[AttackFigures], AttackFigures]) -> Failed:
    row = next(iter(original.rows.values()))
    attacks = tuple(change(f) if f.attack == "sst2" else f for f in row.attacks)
    changed: RobustnessRow = dataclasses.replace(row, attacks=attacks)
    assert original.suite is not None
    return failed(check_gates(original.suite, changed, original.record.overlap, ENOUGH))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_gate(original: FinishedRun, fault: str) -> None:
    gate, change = FAULTS[fault]
    assert with_sst2(original, lambda figures: figures) == set()
    assert with_sst2(original, change) == {("sst2", gate)}


def test_few_examples_and_shared_items_fail(original: FinishedRun) -> None:
    row = next(iter(original.rows.values()))
    assert original.suite is not None
    few = {**ENOUGH, "winogrande": 192}
    found = failed(check_gates(original.suite, row, original.record.overlap, few))
    assert found == {("winogrande", "examples")}
    leak = OverlapRecord(
        role="qqp.train", scorer="forget_mc", items=128, contained=1, share=1 / 128
    )
    found = failed(check_gates(original.suite, row, (leak,), ENOUGH))
    assert found == {("qqp", "shared")}


def test_gates_are_seen_on_the_original_only(original: FinishedRun) -> None:
    with pytest.raises(UsageError, match="method=none"):
        gates_of(read_run(MEASURED / "npo"), ENOUGH)
    assert original.suite is not None
    bare = dataclasses.replace(original, suite=original.suite.model_copy(update={"gates": None}))
    with pytest.raises(UsageError, match="states no `gates`"):
        gates_of(bare, ENOUGH)


def test_an_attack_without_fa_cannot_pass(original: FinishedRun) -> None:
    row = next(iter(original.rows.values()))
    assert original.suite is not None
    attacks = {
        name: spec.model_copy(update={"fa": None}) for name, spec in original.suite.attacks.items()
    }
    suite = original.suite.model_copy(update={"attacks": attacks})
    with pytest.raises(DataError, match="no FA task"):
        check_gates(suite, row, (), ENOUGH)
