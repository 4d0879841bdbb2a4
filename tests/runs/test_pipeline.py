"""Runs as a whole: killed and resumed, shared, repeated; and what a change makes anew."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from doubles import SilentProgress
from places import FIXTURES
from runs import (
    SUITE,
    WEAK,
    command,
    environment,
    keys,
    made,
    planned,
    rows,
    samples,
    target_folder,
    weights,
    with_target,
)

from ilubench.errors import ModelError
from ilubench.interfaces import Batch, Checkpoint
from ilubench.records.store import Store
from ilubench.runs.stages.unlearn import run_unlearn

SIGKILLED = -9
ALWAYS_SAVE = (
    "suite.target.recipe.train.save_every_s=0",
    "method.train.save_every_s=0",
    "attack.train.save_every_s=0",
)


@pytest.fixture(scope="session")
def finished() -> Path:
    """The `out` folder of a finished run; tests only read it."""
    return made()


class Played(NamedTuple):
    """The `out` folder of a scenario, and how each of its attempts ended."""

    out: Path
    codes: list[int]


def play(*scenarios: Mapping[str, Any]) -> list[list[int]]:
    done = subprocess.run(
        [sys.executable, str(FIXTURES / "forks.py")],
        input=json.dumps(scenarios),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes


def scenario(out: Path, words: Sequence[str], **how: object) -> dict[str, Any]:
    return {"out": str(out), "words": ["run", SUITE, WEAK, *words, f"out={out}"], **how}


def same(one: Path, other: Path) -> None:
    """Everything that was measured is equal, bit for bit."""
    assert rows(one) == rows(other)
    assert samples(one) == samples(other)
    assert weights(one) == weights(other)
    for stage in ("target", "unlearn", "score", "attack"):
        for folder in (one / "store" / stage).iterdir():
            if folder.is_dir():
                artifact = Store(one / "store").get(stage, folder.name)
                assert artifact is not None, folder
                artifact.verify()


# --------------------------------------------------------------------------- killed and resumed


@pytest.fixture(scope="module")
def played(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Played]:
    """Runs that were killed or were two at once, all forked from one process."""
    root = tmp_path_factory.mktemp("played")
    always = ("method=ilu", "attacks=gsm8k", "keep=attacked", *ALWAYS_SAVE)
    rng = random.Random(6)
    scenarios: dict[str, dict[str, Any]] = {
        "whole": {"words": always},
        "broken": {"words": always, "kills": 3, "like": str(root / "whole"), "seed": 5},
        "timed": {"words": ["method=ilu"], "delays": [rng.uniform(0.3, 1.5) for _ in range(3)]},
        "together": {"words": ["method=ilu"], "together": 2},
    }
    for name in ("timed", "together"):
        with_target(finished, root / name)
    codes = play(*(scenario(root / name, **how) for name, how in scenarios.items()))
    return {name: Played(root / name, found) for name, found in zip(scenarios, codes, strict=True)}


def test_killed_at_any_file_operation_and_resumed(played: Mapping[str, Played]) -> None:
    """Three kills of one run that saves its state after each step, target and all."""
    assert played["whole"].codes == [0]
    assert played["broken"].codes == [SIGKILLED] * 3 + [0]
    same(played["whole"].out, played["broken"].out)


@pytest.mark.parametrize("name", ["timed", "together"])
def test_killed_at_random_times_and_two_at_once(
    name: str, finished: Path, played: Mapping[str, Played]
) -> None:
    """With the settings as they are shipped, most jobs start again; and nobody disturbs anybody."""
    assert played[name].codes[-1] == 0
    assert name == "timed" or played[name].codes == [0, 0]
    same(finished, played[name].out)


def test_a_resumed_attack_skips_the_scores_it_has(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ilubench.runs.stages import attack, score

    out = with_target(finished, tmp_path / "out")
    words = ("run", SUITE, "method=npo", "attacks=gsm8k", "attack.train.save_every_s=0")
    scored: list[str] = []
    begun = 0

    def spy(checkpoint: Checkpoint, engine: Any, scorers: Any, folder: Path, show: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 4 and not resumed:
            raise KeyboardInterrupt  # before the last of the checkpoints 0, 2, 4, 8
        if not (folder / f"{checkpoint.name}.json").is_file():
            scored.append(checkpoint.name)
        score.score_checkpoint(checkpoint, engine, scorers, folder, show)

    monkeypatch.setattr(attack, "score_checkpoint", spy)
    resumed = False
    assert command(*words, f"out={out}").code == 130
    assert scored == ["step-000000", "step-000002", "step-000004"]
    (partial,) = (out / "store" / "attack").glob("*.partial")
    before = {path.name: path.stat().st_mtime_ns for path in (partial / "scores").iterdir()}
    scored.clear()
    begun, resumed = 0, True
    assert command(*words, f"out={out}").code == 0
    assert scored[0] == "step-000008"  # the rest is the reference's attack
    scores = out / "store" / "attack" / partial.stem / "scores"
    after = {path.name: path.stat().st_mtime_ns for path in scores.iterdir()}
    assert before.items() <= after.items()
    log = (scores.parent / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in log]
    assert steps[:8] == list(range(1, 9))
    assert len(steps) <= 9  # one step at most was done twice


def test_scoring_does_not_disturb_an_attack(finished: Path, tmp_path: Path) -> None:
    final = []
    for name, fractions in (("one", "1.0"), ("four", "0.25,0.5,0.75,1.0")):
        out = with_target(finished, tmp_path / name)
        words = ("method=npo", "attacks=gsm8k", "keep=attacked", f"attack.fractions={fractions}")
        done = command("run", SUITE, *words, f"out={out}")
        assert done.code == 0, done.err
        found = {path.name: len(list(path.glob("scores/*.json"))) for path in _artifacts(out)}
        assert set(found.values()) == {2 if name == "one" else 5}
        final.append(sorted((p / "changes.safetensors").read_bytes() for p in _artifacts(out)))
    assert len(final[0]) == 2
    assert final[0] == final[1]


def _artifacts(out: Path) -> Iterator[Path]:
    return (path for path in (out / "store" / "attack").iterdir() if path.is_dir())


def test_methods_meet_the_same_data(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ilubench.training import Batches, fine_tuning

    met: list[list[Any]] = []
    draw, nll = Batches._together, fine_tuning._nll_step

    def drawn(
        self: Batches, several: Sequence[Batches], step: int, progress: float
    ) -> list[list[Batch]]:
        found = draw(self, several, step, progress)
        for one, batches in zip(several, found, strict=True):
            name = one._stream._name
            if name in ("forget", "retain"):  # the environments are ILU's alone
                met[-1].append((name, step, [batch.index.tolist() for batch in batches]))
        return found

    def attacked(model: Any, batches: Sequence[Batch], device: str) -> Any:
        met[-1].append([batch.index.tolist() for batch in batches])
        return nll(model, batches, device)

    monkeypatch.setattr(Batches, "_together", drawn)
    monkeypatch.setattr(fine_tuning, "_nll_step", attacked)
    out = with_target(finished, tmp_path / "out")
    for method in ("npo", "ilu", f"{FIXTURES}/stranger.py:GradDiff"):
        met.append([])
        assert command("run", SUITE, f"method={method}", "attacks=gsm8k", f"out={out}").code == 0
    npo, ilu, stranger = met
    assert len(npo) == 12 + 8 + 8  # the reference is attacked in the first run only
    assert ilu == stranger == npo[: 12 + 8]
    assert npo[12:20] == npo[20:]


# --------------------------------------------------------------------------- identity


def test_the_reference_is_shared() -> None:
    ilu, npo = planned("method=ilu"), planned("method=npo")
    for stage in ("unlearn", "score", "attack"):
        assert keys(ilu, stage, "reference") == keys(npo, stage, "reference")
        assert not set(keys(ilu, stage)) & set(keys(npo, stage))


def test_the_finished_reference_is_used(finished: Path) -> None:
    plan = planned("method=npo", f"out={finished}")
    done = {job.label for job in plan.jobs if plan.is_done(job)}
    assert done == {
        "make the target model of tiny",
        "unlearn none",
        "score none",
        "attack none with gsm8k, seed 0",
        "attack none with agnews, seed 0",
    }


ALL = {"target", "unlearn", "score", "gsm8k", "agnews"}
BELOW_TARGET = ALL - {"target"}


def _anew(*changes: str, method: str = "ilu") -> tuple[set[str], set[str]]:
    """Return what the changes make anew, of the method's jobs and of the reference's."""
    plans = [planned(f"method={method}", *words) for words in ((), changes)]
    found: tuple[set[str], set[str]] = (set(), set())
    before, after = ({(j.who, j.attack or j.stage): j.key for j in plan.jobs} for plan in plans)
    assert before.keys() == after.keys()
    for (who, what), key in before.items():
        if after[who, what] != key:
            found[who == "reference"].add(what)
    return found


@pytest.mark.parametrize(
    ("change", "method", "reference"),
    [
        ("suite.title=another", set(), set()),
        ("method.weight=0.6", BELOW_TARGET, set()),
        ("method.penalty=cross_entropy", BELOW_TARGET, set()),
        ("method.base.beta=0.2", BELOW_TARGET, set()),
        ("seeds=1", BELOW_TARGET, {"gsm8k", "agnews"}),
        ("attack.gsm8k.train.lr=0.01", {"gsm8k"}, {"gsm8k"}),
        ("attack.train.steps=9", {"gsm8k", "agnews"}, {"gsm8k", "agnews"}),
        ("keep=attacked", {"gsm8k", "agnews"}, {"gsm8k", "agnews"}),
        ("data.gsm8k.eval.limit=5", {"gsm8k"}, {"gsm8k"}),
        ("data.gsm8k.train.limit=23", BELOW_TARGET, {"gsm8k"}),  # ilu's environment
        ("data.agnews.train.limit=23", {"agnews"}, {"agnews"}),
        ("data.retain_mc.limit=11", BELOW_TARGET - {"unlearn"}, BELOW_TARGET - {"unlearn"}),
        ("suite.score_batch=3", BELOW_TARGET - {"unlearn"}, BELOW_TARGET - {"unlearn"}),
        ("suite.scorers.retain_mc.settings.limit=5",) + (BELOW_TARGET - {"unlearn"},) * 2,
        ("suite.target.recipe.seed=1", ALL, BELOW_TARGET),
        ("data.pretrain.limit=190", ALL, BELOW_TARGET),
    ],
)
def test_a_change_makes_anew_what_depends_on_it(
    change: str, method: set[str], reference: set[str]
) -> None:
    assert _anew(change) == (method, reference)


def test_a_changed_data_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    words = ("method=npo", f"data.agnews.train={path}")
    texts = [f'{{"text": "word {i}", "label": {i}}}\n' for i in range(4)]
    path.write_text("".join(texts))
    before = planned(*words)
    path.write_text("".join(texts[:3]))
    after = planned(*words)
    changed = {b.label for a, b in zip(before.jobs, after.jobs, strict=True) if a.key != b.key}
    assert changed == {"attack npo with agnews, seed 0", "attack none with agnews, seed 0"}


def test_two_runs_in_one_process_are_equal(finished: Path, tmp_path: Path) -> None:
    """Nothing carries over from what ran before; the global random state does not matter."""
    torch.manual_seed(123)
    random.seed(123)
    out = with_target(finished, tmp_path / "out")
    assert command("run", SUITE, "method=ilu", f"out={out}").code == 0
    same(finished, out)


def flip(path: Path) -> None:
    """Turn one bit of a file; size and everything around stay."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_damaged_in_the_store_is_named_and_done_again(
    finished: Path, tmp_path: Path
) -> None:
    """Weights are looked at where a job loads them: here by the attacks that are to be done."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    store = out / "store"
    first, second, *_ = sorted(path for path in (store / "score").iterdir() if path.is_dir())
    score, manifest = next(first.glob("scores/*.json")), second / "DONE"
    unlearnt = max(
        (store / "unlearn").glob("*/changes.safetensors"), key=lambda f: f.stat().st_size
    )
    damaged = [score, unlearnt, *(store / "target").glob("*/model.safetensors")]
    gone = [
        next(attack.glob("scores/*.json"))
        for attack in (store / "attack").iterdir()
        if attack.is_dir()
    ]
    for path in damaged:
        flip(path)
    for path in gone:
        path.unlink()
    flip(manifest)
    done = command("run", SUITE, "method=ilu", f"out={out}")
    assert done.code == 0
    lines = done.err.splitlines()
    told = [f"{path} is damaged; done again: " for path in (*damaged, manifest)]
    told += [f"{path} is missing; done again: attack " for path in gone]
    for words in told:
        assert [line for line in lines if line.startswith(words)], (words, lines)
    same(finished, out)
    assert "done again" not in command("run", SUITE, "method=ilu", f"out={out}").err


def test_an_edit_in_a_run_folder_leaves_the_store_alone(finished: Path) -> None:
    cells = [path for path in finished.glob("*/cells/**/*") if path.is_file()]
    assert cells
    assert all(path.stat().st_nlink == 1 for path in cells)


READING = """
from pathlib import Path

from ilubench.training.losses import token_nll
from ilubench.models.forward import answer_logits
from ilubench.specs import TrainSpec
from ilubench.training import LossMethod


class Reading(LossMethod):
    train: TrainSpec
    weights: str

    def identity(self):
        return {"weights": Path(self.weights).read_text()}

    def loss(self, model, batch, prepared):
        answers = answer_logits(model, batch.forget)
        weight = float(Path(self.weights).read_text())
        return -weight * token_nll(answers.logits, answers.targets).sum() / batch.forget.tokens
"""


@pytest.mark.parametrize("how", [("plan", "--write"), ("run", "--json")])
def test_what_a_finished_run_left_stays(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Sequence[str]
) -> None:
    """`plan --write` has nothing to plan there; `run` shows what is on a disk that is read-only."""
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "report.html"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    if how[0] == "run":
        monkeypatch.setattr("os.access", lambda path, mode: False)
    done = command(how[0], SUITE, "method=ilu", f"out={out}", *how[1:])
    assert done.code == 0, done.err
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before
    (folder,) = out.glob("tiny-*")
    if how[0] == "run":
        told = json.loads((folder / "results.json").read_text())["rows"]
        assert done.json["rows"] == told
    else:
        assert f"finished, left as it is: {folder}" in done.err


@pytest.mark.parametrize("wrapper", ["ilu", "sam", "undo", "tar"])
def test_a_file_that_the_base_reads_is_part_of_the_key(wrapper: str, tmp_path: Path) -> None:
    module, read = tmp_path / "reading.py", tmp_path / "weights.txt"
    module.write_text(READING)
    base = f"method.base={module}:Reading"
    terms = ("method.terms=all",) if wrapper == "sam" else ()
    words = (
        f"method={wrapper}",
        *terms,
        base,
        f"method.base.weights={read}",
        "method.base.train.lr=1e-4",
    )
    found = []
    for text in ("1.0", "1.0", "2.0"):
        read.write_text(text)
        found.append(keys(planned(*words), "unlearn"))
    assert found[0] == found[1] != found[2]


# --------------------------------------------------------------------------- what was computed with


def test_the_record_says_what_its_sums_were_computed_with(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target as it was made, and the job after it with other kernels: each, and a note."""
    (file,) = finished.glob("*/results.json")
    made_with = json.loads(file.read_text())["arithmetic"]
    assert made_with.keys() == {"threads", "kernels"}
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ZZZ")
    out = with_target(finished, tmp_path)
    done = command("run", SUITE, "method=none", "attacks=none", f"out={out}", "--json")
    both = f"{made_with['kernels']}, ZZZ"
    assert done.json["arithmetic"]["kernels"] == both
    said = f"jobs were computed with other kernels ({both}): figures differ by up to 5e-5"
    assert said in done.json["notes"]
    assert not any("threads" in note for note in done.json["notes"])


# --------------------------------------------------------------------------- models that are given


def test_a_target_whose_files_change_is_refused(finished: Path, tmp_path: Path) -> None:
    """The keys of all jobs say which files it had when the run began."""
    folder = shutil.copytree(target_folder(finished), tmp_path / "theirs")
    bench = planned(f"suite.target.model.path={folder}", f"out={tmp_path}").bench
    assert bench.target_folder == folder
    flip(folder / "model.safetensors")
    with pytest.raises(ModelError, match="its files are others than when the run began"):
        bench.target_model()


def test_a_checkpoint_whose_files_change_is_refused(finished: Path, tmp_path: Path) -> None:
    """Its weights would lie in the store under the key of others."""
    folder = shutil.copytree(target_folder(finished), tmp_path / "theirs")
    out = with_target(finished, tmp_path / "out")
    words = ("method=checkpoint", f"method.model.path={folder}", "attacks=none", f"out={out}")
    plan = planned(*words)
    flip(folder / "model.safetensors")
    (job,) = (job for job in plan.jobs if job.stage == "unlearn" and job.who == "method")
    with pytest.raises(ModelError, match="its files are others than when the run began"):
        run_unlearn(plan.bench, job, SilentProgress())
    assert not plan.is_done(job)
