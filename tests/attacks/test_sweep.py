"""The attacker who tunes: its search, what it is told, what its row says, a kill, refusals."""

import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from doubles import (
    MemoryState,
    StepRecorder,
    make_context,
    make_tokenizer,
    random_examples,
    tiny_llama,
    weights,
)
from pydantic import ValidationError
from runs import TINY, Outcome, command, made, samples, with_target

from ilubench.attacks import sweep
from ilubench.attacks.sweep import Sweep
from ilubench.errors import DivergedError, UsageError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.forecast.amounts import Amounts
from ilubench.interfaces import Checkpoint, Context, Example, Told
from ilubench.records.finished import read_run
from ilubench.reports.item_changes import strongest_steps
from ilubench.runs.plan import make_plan
from ilubench.runs.stages import attack
from ilubench.runs.stages.score import score_checkpoint
from ilubench.runs.stages.telling import score_and_tell
from ilubench.specs.overrides import parse_words
from ilubench.training import fine_tune

Weights = dict[str, torch.Tensor]

VOCABULARY = len(make_tokenizer())
DATA: Mapping[str, list[Example]] = {
    "forget": random_examples(9, VOCABULARY, 1),
    "gsm8k": random_examples(20, VOCABULARY, 2),
}
SWEEP = Sweep(trials=4, sets=("forget", "gsm8k"), sequences=16, lr=(1e-5, 1e-2))


def told(model: torch.nn.Module) -> Told:
    """A made-up score: it depends on the weights alone."""
    size = float(sum(t.double().abs().sum() for t in model.state_dict().values()))
    return Told(size % 1.0, 0.85 + size % 0.3)


Tried = list[tuple[str | None, dict[str, Any], Weights]]


def search(context: Context, settings: Sweep = SWEEP) -> Tried:
    """Every trial that was scored: its level, settings and weights."""
    found: Tried = []

    def score(point: Checkpoint) -> None:
        found.append((point.level, dict(point.settings), weights(point.model)))

    course = settings.tamper(tiny_llama(VOCABULARY), DATA, context)
    score_and_tell(course, score, lambda point: told(point.model))
    return found


@cache
def undisturbed() -> tuple[Tried, StepRecorder]:
    """The search that nothing interrupts, and its steps."""
    log = StepRecorder()
    return search(make_context(make_tokenizer(), log=log)), log


def alike(one: Tried, other: Tried) -> bool:
    return [point[:2] for point in one] == [point[:2] for point in other] and all(
        torch.equal(a, b)
        for mine, yours in zip(one, other, strict=True)
        for a, b in zip(mine[2].values(), yours[2].values(), strict=True)
    )


# --------------------------------------------------------------------------- the search


def test_the_same_seed_makes_the_same_trials_and_another_seed_others() -> None:
    first, log = undisturbed()
    assert [level for level, *_ in first] == [f"trial-{n:03d}" for n in range(1, 5)]
    for _, settings, _ in first:
        assert settings["set"] in DATA
        assert settings["batch_size"] * settings["steps"] == SWEEP.sequences
        assert 1e-5 <= settings["lr"] <= 1e-2
    # every step of every trial counts, under a number of its own
    steps = sum(settings["steps"] for _, settings, _ in first)
    assert [step for step, _ in log.steps] == [*range(1, steps + 1)]
    assert alike(first, search(make_context(make_tokenizer())))
    other = search(make_context(make_tokenizer(), seed=8))
    assert [point[1] for point in first] != [point[1] for point in other]


@pytest.mark.parametrize("kill_after", [1, 4, 7])
def test_a_killed_search_goes_on_with_the_same_trials(kill_after: int) -> None:
    whole, _ = undisturbed()
    state, first, rest = MemoryState(), StepRecorder(kill_after=kill_after), StepRecorder()
    with pytest.raises(KeyboardInterrupt):
        search(make_context(make_tokenizer(), state=state, log=first))
    again = search(make_context(make_tokenizer(), state=state, log=rest))
    # what was told before the kill is not trained again
    before = len(whole) - len(again)
    done = sum(settings["steps"] for _, settings, _ in whole[:before])
    assert rest.steps[0][0] == done + 1
    assert done <= kill_after
    assert alike(again, whole[before:])  # from the unlearned weights, whatever came before


def test_the_state_of_a_trial_that_is_over_takes_no_room() -> None:
    state = MemoryState()
    search(make_context(make_tokenizer(), state=state))
    assert not any(tensors for tensors, _ in state.phases.values())


def test_the_search_learns_from_what_it_is_told() -> None:
    """It comes back to the rates just below 1e-3, above which the utility is gone."""
    settings = Sweep(trials=24, sets=("forget",), sequences=4, batch_sizes=(4,), lr=(1e-6, 1e-1))
    rates: list[float] = []
    course = settings.tamper(tiny_llama(VOCABULARY), DATA, make_context(make_tokenizer()))

    def tell(point: Checkpoint) -> Told:
        rates.append(cast("float", point.settings["lr"]))
        return Told(0.4 - 0.1 * math.log10(rates[-1]), 1.0 if rates[-1] <= 1e-3 else 0.2)

    score_and_tell(course, lambda _: None, tell)
    near = [1e-4 <= rate <= 1e-3 for rate in rates[12:]]
    assert sum(near) >= 4  # of twelve at random, 2.4


class Diverging:
    """Scores that are not finite, of some trials."""

    def __init__(self, *numbers: int) -> None:
        self._numbers, self.scored = numbers, list[str | None]()

    def __call__(self, point: Checkpoint) -> None:
        if int((point.level or "")[-3:]) in self._numbers:
            raise DivergedError("a score is not finite")
        self.scored.append(point.level)


def test_a_trial_that_diverges_is_a_failed_trial() -> None:
    score = Diverging(1, 3)
    course = SWEEP.tamper(tiny_llama(VOCABULARY), DATA, make_context(make_tokenizer()))
    last = score_and_tell(course, score, lambda point: told(point.model))
    assert score.scored == [f"trial-{n:03d}" for n in (2, 4)]
    assert last is not None
    hopeless = Sweep(trials=2, sets=("forget",), sequences=8, lr=(1e9, 1e9))
    course = hopeless.tamper(tiny_llama(VOCABULARY), DATA, make_context(make_tokenizer()))
    with pytest.raises(DivergedError, match="all 2 trials diverged; lower the ends of lr"):
        score_and_tell(course, Diverging(1, 2), lambda point: told(point.model))


def test_whoever_does_not_tell_gets_all_trials_too() -> None:
    course = SWEEP.tamper(tiny_llama(VOCABULARY), DATA, make_context(make_tokenizer()))
    assert len([point.level for point in course]) == SWEEP.trials


def test_an_attack_that_does_not_tune_goes_on_as_ever() -> None:
    def steps() -> Iterator[Checkpoint]:
        model = tiny_llama(VOCABULARY)
        yield from (Checkpoint(model, step) for step in (0, 1))

    seen: list[int | None] = []
    last = score_and_tell(steps(), lambda point: seen.append(point.step), None)
    assert seen == [0, 1]
    assert last is not None
    assert last.step == 1

    def fails(point: Checkpoint) -> None:
        raise DivergedError("a score is not finite")

    with pytest.raises(DivergedError):
        score_and_tell(steps(), fails, None)


# --------------------------------------------------------------------------- runs

SUITE = f"""
extends: {TINY}
name: tuned
attacks:
  sweep: &sweep
    further: true
    use: sweep
    settings: {{trials: 3, sets: [forget, gsm8k], sequences: 16, lr: [1.0e-5, 1.0e-2]}}
  asking:
    <<: *sweep
    fa:
      scorer: {{use: answer_nll, settings: {{data: forget_mc, prompt: x, completion: y}}}}
      metric: nll
  ranked: {{use: sweep, settings: {{trials: 3, sets: [forget], sequences: 16}}}}
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "tuned.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run of two seeds, under a benign attack and the sweep."""
    out = with_target(made(), tmp_path_factory.mktemp("runs") / "out")
    words = (f"suite={suite}", "method=npo", "attacks=agnews,sweep", "seeds=0,1", f"out={out}")
    done = command("run", *words, "--json")
    assert done.code == 0, done.err
    (folder,) = (path.parent for path in out.glob("tuned-*/results.json"))
    return folder, done


def lowest(folder: Path, seed: int, who: str = "method") -> float:
    """The lowest mean of a seed's trials, from the samples; six items never lose their utility."""
    table = pq.read_table(folder / "samples.parquet")
    mine = pc.and_(pc.equal(table["attack"], "sweep"), pc.equal(table["seed"], seed))
    own = table.filter(pc.and_(mine, pc.equal(table["who"], who)))
    own = own.filter(pc.equal(own["scorer"], "forget_nll"))
    means = own.group_by("level").aggregate([("value", "mean")])
    assert sorted(means["level"].to_pylist()) == ["trial-001", "trial-002", "trial-003"]
    return cast("float", min(means["value_mean"].to_pylist()))


def test_a_run_says_what_the_strongest_trials_reached(finished: tuple[Path, Outcome]) -> None:
    folder, done = finished
    row = done.json["rows"]["NLL_f"]
    agnews, tuned = row["attacks"]
    trials = tuned["trials"]
    assert row["ra_attacks"] == ["agnews"]
    assert agnews["trials"] is None
    assert (trials["n_trials"], trials["top_n"], trials["seeds"]) == (3, 3, [0, 1])
    assert trials["worst_case"]["value"] == pytest.approx(
        (lowest(folder, 0) + lowest(folder, 1)) / 2
    )
    bounded = trials["bounded_worst_case"]
    assert bounded == trials["best_so_far"][-1]
    steps = [s["forget"]["value"] for a in row["attacks"] for s in a["steps"][1:] if s["eligible"]]
    assert row["worst_case"]["value"] == pytest.approx(min(steps))
    assert tuned["ra"]["note"]["kind"] == "no-order"
    tried = [t for t in done.json["trials"] if t["who"] == "method" and t["seed"] == 1]
    assert [t["trial"] for t in tried] == [1, 2, 3]
    assert set(tried[0]["settings"]) == {"set", "lr", "batch_size", "schedule", "steps"}
    # the first trials are drawn without a look at the model: the same for both
    original = [t for t in done.json["trials"] if t["who"] == "reference" and t["seed"] == 1]
    assert [t["settings"] for t in original][:2] == [t["settings"] for t in tried][:2]
    assert any("each seed's strongest of 3 trials" in note for note in done.json["notes"])
    assert done.json["libraries"]["optuna"]


def test_the_figures_follow_from_the_samples(finished: tuple[Path, Outcome]) -> None:
    folder, _ = finished
    assert read_run(folder).rows["NLL_f"].attacks[1].trials is not None
    record = json.loads((folder / "results.json").read_text())
    trials = record["rows"]["NLL_f"]["attacks"][1]["trials"]
    trials["worst_case"]["value"] -= 0.1
    edited = folder.parent / "edited"
    edited.mkdir()
    for name in ("config.yaml", "samples.parquet", "env.json"):
        (edited / name).write_bytes((folder / name).read_bytes())
    (edited / "results.json").write_text(json.dumps(record))
    done = command("table", str(edited))
    assert done.code == 3
    assert "attacks.1.trials.worst_case.value of NLL_f is" in done.err


def test_reports_show_the_trials(finished: tuple[Path, Outcome]) -> None:
    folder, _ = finished
    shown = command("show", str(folder), "--details").out
    for text in (
        "NLL_f: sweep, 3 trials a seed (lowest forget metric)",
        "bounded_worst_case (keeps 90% of the utility)",
        "top_n_average (the 3 lowest)",
        "bounded_worst_case after 3",
        "strongest of seed 1",
        "n/a: trials have no order",
    ):
        assert text in shown, text
    assert (
        "! sweep: each seed's strongest of 3 trials, selected on"
        in command("show", str(folder)).out
    )
    for words in (("variance",), ("table", "--attacks"), ("table",)):
        done = command(words[0], str(folder), *words[1:])
        assert done.code == 0, done.err


def test_a_finished_sweep_is_found_again(finished: tuple[Path, Outcome], suite: Path) -> None:
    folder, done = finished
    words = (f"suite={suite}", "method=npo", "attacks=agnews,sweep", "seeds=0,1")
    again = command("run", *words, f"out={folder.parent}", "--json")
    assert {job["state"] for job in again.json["jobs"]} == {"cached"}
    assert again.json["rows"] == done.json["rows"]


def test_a_killed_job_goes_on(
    finished: tuple[Path, Outcome], suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the second trial is scored: its scores in the end are those of a whole job."""
    out = with_target(made(), tmp_path / "out")
    words = (f"suite={suite}", "method=none", "attacks=sweep", "seeds=0", f"out={out}")

    def killed(point: Checkpoint, *rest: Any) -> None:
        if point.level == "trial-002":
            raise KeyboardInterrupt
        score_checkpoint(point, *rest)

    monkeypatch.setattr(attack, "score_checkpoint", killed)
    assert command("run", *words).code != 0
    left = [path.name for path in out.glob("store/attack/*.partial/scores/*.json")]
    assert left == ["level-trial-001.json"]
    trained: list[str] = []

    def counted(model: Any, data: Any, spec: Any, context: Context) -> Iterator[int]:
        trained.append(context.phase)
        return fine_tune(model, data, spec, context)

    monkeypatch.setattr(attack, "score_checkpoint", score_checkpoint)
    monkeypatch.setattr(sweep, "fine_tune", counted)
    assert command("run", *words, "--json").code == 0
    assert trained == ["trial-002", "trial-003"]
    whole, again = samples(finished[0].parent), samples(out)
    for name, scores in again.items():
        assert scores == whole[name], name
    assert sum("level-trial" in name for name in again) == 3


def test_what_it_is_told_by_is_part_of_its_key(suite: Path) -> None:
    def keys(path: Path) -> dict[str, str]:
        asked = parse_words([f"suite={path}", "attacks=agnews,sweep", "method=none"])
        plan = make_plan(resolve_experiment(asked))
        jobs = {job.attack: job for job in plan.jobs if job.attack}
        (score,) = (job for job in plan.jobs if job.stage == "score")
        assert jobs["sweep"].told_by == (score.key,)
        assert score.key in jobs["sweep"].needs
        assert jobs["agnews"].told_by == ()
        return {name: job.key for name, job in jobs.items()}

    plain = keys(suite)
    other = suite.parent / "other.yaml"
    other.write_text(
        f"extends: {suite}\nprimary_forget:\n"
        "  - {label: NLL_f, scorer: forget_nll, metric: nll, direction: lower, chance: 7.0}\n"
    )
    changed = keys(other)
    assert changed["agnews"] == plain["agnews"]
    assert changed["sweep"] != plain["sweep"]


def test_a_planned_sweep_says_its_cost(suite: Path) -> None:
    asked = parse_words([f"suite={suite}", "attacks=sweep", "method=none"])
    plan = make_plan(resolve_experiment(asked))
    (job,) = (job for job in plan.jobs if job.attack)
    amount = Amounts(plan.bench).of(job)
    assert (amount.steps, amount.checkpoints) == (7, 3)  # 3 trials of 4, 2 or 1 steps
    assert amount.steps * amount.batch == pytest.approx(48, abs=7)
    assert amount.held > 0
    done = command("plan", f"suite={suite}", "attacks=sweep", "method=none", "--card=a100-40")
    assert done.code == 0, done.err


# --------------------------------------------------------------------------- refusals

WORDS = {
    "trials=0": "attack sweep: trials: must be at least 1; given: 0",
    "sets=": "attack sweep: sets: there is nothing to choose from; name at least one",
    "sets=forget,moon": "attack sweep: unknown data role 'moon'",
    "sequences=0": "attack sweep: sequences: must be at least 1; given: 0",
    "lr=1e-3,1e-5": "attack sweep: lr: give the lower end first: [1e-05, 0.001]",
    "batch_sizes=": "attack sweep: batch_sizes: there is nothing to choose from",
}


@pytest.mark.parametrize(("word", "message"), WORDS.items())
def test_a_wrong_setting_is_one_line(word: str, message: str, suite: Path) -> None:
    done = command("run", f"suite={suite}", "attacks=sweep", f"attack.sweep.{word}")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert message in done.err


def test_it_has_no_task_and_is_a_further_attack(suite: Path) -> None:
    done = command("run", f"suite={suite}", "attacks=asking")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "sweep tunes on what is forgotten, so that it has no task to be learned" in done.err
    done = command("run", f"suite={suite}", "attacks=ranked")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "attack ranked: sweep tunes: RA is over courses, and its trials are none" in done.err


def test_without_optuna_the_words_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "optuna" else find(name)
    )
    with pytest.raises(UsageError, match=r"needs Optuna: pip install 'ilubench\[sweep\]'"):
        SWEEP.check_examples({"forget": 9, "gsm8k": 20})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sets": ("forget", "forget")}, "sets: forget: named more than once; name it once"),
        ({"batch_sizes": (4, 8, 4)}, "batch_sizes: 4: named more than once; name it once"),
        ({"trials": 10**8}, "less than or equal to 10000"),
    ],
)
def test_a_search_over_nothing_or_forever_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sweep(**{"trials": 4, "sets": ("forget",), "sequences": 16, **settings})


def test_a_course_cannot_pass_for_trials(tmp_path: Path) -> None:
    """An attack that does not tune has no levels of that name."""
    fixtures = TINY.parent
    suite = tmp_path / "named.yaml"
    suite.write_text(
        f"extends: {TINY}\nname: named\nattacks:\n  rounded:\n    further: true\n"
        f'    use: "{fixtures}/tampering.py:Rounded"\n'
        "    settings: {digits: {trial-001: 2}}\n"
    )
    out = with_target(made(), tmp_path / "out")
    done = command(
        "run", f"suite={suite}", "method=none", "attacks=rounded", f"out={out}", "--json"
    )
    assert done.code == 4
    assert "level-trial-001: an attack that tunes has trials; give another level" in done.out


def test_texts_beside_it_are_those_of_its_strongest_trial(finished: tuple[Path, Outcome]) -> None:
    folder, _ = finished
    steps = strongest_steps(read_run(folder), "NLL_f")
    assert [*steps] == ["sweep"]
    for seed, step in steps["sweep"]:
        mine = [
            s["value"]
            for s in pq.read_table(folder / "samples.parquet").to_pylist()
            if (s["who"], s["attack"], s["scorer"]) == ("method", "sweep", "forget_nll")
            and (s["seed"], s["step"]) == (seed, step)
        ]
        assert sum(mine) / len(mine) == pytest.approx(lowest(folder, seed))
    assert {seed for seed, _ in steps["sweep"]} == {0, 1}
