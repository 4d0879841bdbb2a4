"""Gates: an attack is checked on the original model before anything is concluded from it."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from finished_runs import STEPS, Told, edit_row, write_run
from places import MEASURED
from runs import command

from ilubench.data.rows import Tables
from ilubench.errors import DataError, UsageError
from ilubench.records.finished import FinishedRun, read_run
from ilubench.reports.gates import Gate, TrainingText, check_gates, gates_of
from ilubench.specs import DataSource, GateSpec
from ilubench.statistics.intervals import Figure
from ilubench.statistics.row import AttackFigures, RobustnessRow

SHIPPED = ("gsm8k", "agnews", "sst2", "winogrande", "mnli", "qqp")
SCORERS = ("asked", "kept")
Failed: TypeAlias = set[tuple[str, str]]
ENOUGH = dict.fromkeys(("seen", "core"), TrainingText(examples=40, shared=0))


def failed(gates: list[Gate]) -> Failed:
    return {(gate.attack, gate.gate) for gate in gates if not gate.passed}


def test_the_shipped_attacks_pass() -> None:
    outcome = command("gates", str(MEASURED / "none"), "--json")
    assert outcome.code == 0, outcome.out + outcome.err
    found = json.loads(outcome.out)
    assert len(found) == 5 * len(SHIPPED)
    assert {gate["attack"] for gate in found} == set(SHIPPED)
    assert {gate["value"] for gate in found if gate["gate"] == "shared"} == {0}


# --------------------------------------------------------------------------- a run of known scores


TRAIN = {"lr": 0.1, "steps": STEPS[-1]}


def source(folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "train.jsonl"), "prompt": "{q}", "completion": " {a}"}


def suite(folder: Path, **gates: Any) -> dict[str, Any]:
    """A suite whose attack `seen` trains on rows of its own, and `core` on a role of the suite."""
    own = {
        "settings": {"train": TRAIN},
        "fa": {"scorer": "nothing", "metric": "acc", "chance": 0.2},
    }
    return {
        "data": {"text": {"path": "nowhere.jsonl"}, "train": source(folder)},
        "attacks": {"seen": {**own, "data": {"train": source(folder)}}, "core": own},
        "gates": {"fa_start": 0.1, "fa_end": 0.4, "utility_kept": 0.9, "examples": 40, **gates},
    }


def overlap(contained: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    looked_for = [("seen.train", s) for s in (*SCORERS, "seen/fa", "core/fa")]
    looked_for += [("train", s) for s in (*SCORERS, "seen/fa", "core/fa")]
    return [
        {"role": r, "scorer": s, "items": 12, "contained": n, "share": n / 12}
        for r, s in looked_for
        for n in (contained.get((r, s), 0),)
    ]


def rows_of(folder: Path) -> str:
    source_of = DataSource.model_validate(source(folder))
    return str(Tables({"train": source_of}, {}, _none).fingerprint("train")["rows"])


def _none(spec: object) -> Any:
    raise NotImplementedError(spec)


def finished(
    folder: Path, *, distinct: int = 40, told: Mapping[str, Any] | None = None, **changes: Any
) -> FinishedRun:
    """A run of the original model whose attacks are good; `changes` are fields of its record."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": n, "q": f"q{n % distinct}", "a": "yes"}) for n in range(48)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    protocol = {"data": {"train": {"examples": 48, "rows": rows_of(folder)}}}
    record = {"protocol": {"seen": protocol, "core": protocol}, "overlap": overlap({}), **changes}
    given = {"suite": suite(folder), "attack_settings": {"train": TRAIN}, **(told or {})}
    return read_run(write_run(folder / "run", Told(use="none", **given), **record))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finished(tmp_path_factory.mktemp("gates"))


def test_good_attacks_pass(original: FinishedRun) -> None:
    found = gates_of(original)
    assert failed(found) == set()
    values = {(gate.attack, gate.gate): gate.value for gate in found}
    assert {values[name, "examples"] for name in ("seen", "core")} == {40}
    assert values["seen", "fa_start"] == pytest.approx(0, abs=1e-9)
    assert values["core", "fa_end"] == pytest.approx(0.5)
    assert len(found) == 10


def test_few_examples_fail(tmp_path: Path) -> None:
    """The run's rows are counted, not those that a shipped suite of its name has today."""
    few = finished(tmp_path / "few", distinct=39)
    assert failed(gates_of(few)) == {("seen", "examples"), ("core", "examples")}
    config = few.path / "config.yaml"
    raw = yaml.safe_load(config.read_text())
    raw["suite"]["attacks"]["seen"]["data"]["train"]["limit"] = 10
    config.write_text(yaml.safe_dump(raw))
    with pytest.raises(DataError, match=r"rows of seen.train are others today than when it was"):
        gates_of(read_run(few.path))


def test_shared_items_fail(tmp_path: Path) -> None:
    """Counted in what an attack trains on, be it a role of the suite; nothing else counts."""
    for number, (role, attack) in enumerate((("seen.train", "seen"), ("train", "core"))):
        found = finished(tmp_path / str(number), overlap=overlap({(role, "asked"): 1}))
        assert failed(gates_of(found)) == {(attack, "shared")}


@pytest.mark.parametrize("lost", ["all", "seen.train", "train", "asked", "core/fa"])
def test_an_overlap_that_nobody_looked_for_is_no_pass(tmp_path: Path, lost: str) -> None:
    kept = [e for e in overlap({}) if lost not in ("all", e["role"], e["scorer"])]
    with pytest.raises(DataError, match="the record does not say whether the training text"):
        gates_of(finished(tmp_path / "run", overlap=kept))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train": {**TRAIN, "steps": 200}}, "attack.seen.train.steps is 200 and the suite's 100"),
        ({"train": TRAIN, "each_epoch": False}, "attack.seen.each_epoch is False and"),
        ({"train": {"lr": 0.1, "epochs": 20}}, "attack.seen.train.steps is None and"),
    ],
)
def test_gates_are_of_the_suite_s_own_attacks(
    tmp_path: Path, changed: Mapping[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        gates_of(finished(tmp_path / "run", told={"attack_settings": changed}))
    machine = {"train": {**TRAIN, "micro_batch": 1}}  # says nothing of the result
    assert gates_of(finished(tmp_path / "other", told={"attack_settings": machine}))


def test_what_cannot_be_read_is_no_pass(tmp_path: Path) -> None:
    found = finished(tmp_path / "run")
    (tmp_path / "run" / "train.jsonl").unlink()
    outcome = command("gates", str(found.path))
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert "the training examples of seen cannot be counted: data.seen.train: no such file" in (
        outcome.err
    )
    with pytest.raises(DataError, match="does not say which rows"):
        gates_of(finished(tmp_path / "old", protocol={}))
    bare = finished(tmp_path / "bare")
    with pytest.raises(DataError, match=r"no config.yaml says how seen was run"):
        gates_of(dataclasses.replace(bare, settings={}))
    told = {"attacks": ("core",)}
    short = finished(tmp_path / "short", told=told, attacks=("seen", "core"))
    edit_row(short.path, status="incomplete")
    short = read_run(short.path)
    with pytest.raises(DataError, match="seen has no figures"):
        gates_of(short)


# --------------------------------------------------------------------------- planted faults


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
    "the task is done worse than by chance": ("fa_start", lambda f: moved(f, 0, fa=0.05)),
    "the task is never learned": ("fa_end", lambda f: moved(f, -1, fa=0.55)),
    "the original is destroyed": ("utility_kept", lambda f: moved(f, -1, utility=0.4)),
    "and recovers": ("utility_kept", lambda f: moved(f, 2, utility=0.4)),
}


def with_core(original: FinishedRun, change: Callable[[AttackFigures], AttackFigures]) -> Failed:
    row = next(iter(original.rows.values()))
    attacks = tuple(change(f) if f.attack == "core" else f for f in row.attacks)
    changed: RobustnessRow = dataclasses.replace(row, attacks=attacks)
    assert original.suite is not None
    return failed(check_gates(original.suite, changed, ENOUGH))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_gate(original: FinishedRun, fault: str) -> None:
    gate, change = FAULTS[fault]
    assert with_core(original, lambda figures: figures) == set()
    assert with_core(original, change) == {("core", gate)}


def test_gates_are_seen_on_the_original_only(tmp_path: Path, original: FinishedRun) -> None:
    other = read_run(write_run(tmp_path / "npo", Told(use="npo")))
    with pytest.raises(UsageError, match="method=none"):
        gates_of(other)
    assert original.suite is not None
    bare = dataclasses.replace(original, suite=original.suite.model_copy(update={"gates": None}))
    bounds = {gate.gate: gate.bound for gate in gates_of(bare)}
    assert bounds == {name: field.default for name, field in GateSpec.model_fields.items()}


def test_an_attack_without_fa_cannot_pass(original: FinishedRun) -> None:
    row = next(iter(original.rows.values()))
    assert original.suite is not None
    attacks = {
        name: spec.model_copy(update={"fa": None}) for name, spec in original.suite.attacks.items()
    }
    suite = original.suite.model_copy(update={"attacks": attacks})
    with pytest.raises(DataError, match="no FA task"):
        check_gates(suite, row, ENOUGH)


def asking(run: FinishedRun, *names: str) -> FinishedRun:
    """The run, some of whose attacks ask differently and train nothing."""
    assert run.suite is not None
    attacks = {
        name: spec.model_copy(update={"use": "prefix"} if name in names else {})
        for name, spec in run.suite.attacks.items()
    }
    return dataclasses.replace(run, suite=run.suite.model_copy(update={"attacks": attacks}))


def test_an_attack_that_trains_nothing_has_no_gate(original: FinishedRun) -> None:
    assert {gate.attack for gate in gates_of(asking(original, "seen"))} == {"core"}
    with pytest.raises(DataError, match=r"seen, core changes no weights|core, seen changes no"):
        gates_of(asking(original, "seen", "core"))
