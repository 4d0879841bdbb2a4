"""The command line, end to end: what a user types, sees, and gets wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from places import FIXTURES
from runs import (
    SUITE,
    TINY,
    command,
    environment,
    keys,
    made,
    planned,
    process,
    rows,
    target_folder,
    with_target,
)

from ilubench.records.results import RunRecord

HEAVY = ("torch", "transformers", "pydantic", "rich", "numpy", "datasets", "lm_eval", "yaml")


@pytest.fixture(scope="session")
def finished() -> Path:
    """The `out` folder of a finished run; tests only read it."""
    return made()


@pytest.fixture(scope="session")
def target(finished: Path) -> str:
    return f"suite.target.model.path={target_folder(finished)}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------- light commands


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from ilubench.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.stderr == ""
    *page, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    words = " ".join(page)
    for name in ("run", "plan", "ls", "score", "attack", "make-target", "convert"):
        assert name in words


def test_without_a_word_it_shows_its_help() -> None:
    done = command()
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage")


@pytest.mark.parametrize("name", ["run", "plan", "ls", "score", "attack", "make-target", "convert"])
def test_each_command_has_help(name: str) -> None:
    done = command(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage" in done.out


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("suites", "mini"),
        ("attacks", "gsm8k"),
        ("methods", "ilu"),
        ("scorers", "verbmem"),
        ("generators", "mini"),
    ],
)
def test_ls(kind: str, expected: str) -> None:
    listed = command("ls", kind, "--json").json
    assert expected in [entry["name"] for entry in listed]
    assert all(entry["title"] and "broken" not in entry["title"] for entry in listed)
    shown = command("ls", kind)
    assert shown.code == 0
    assert {entry["name"] for entry in listed} <= set(shown.out.split())


def test_ls_imports_no_torch() -> None:
    program = (
        "import sys; from ilubench.cli import app\n"
        "for kind in ('suites', 'attacks', 'methods', 'scorers', 'generators'):\n"
        "    app(['ls', kind], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True, stdout=-3)


# --------------------------------------------------------------------------- run


def test_run_prints_a_table_and_plain_lines(finished: Path, tmp_path: Path) -> None:
    out = with_target(finished, tmp_path / "out")
    done = process("run", SUITE, "method=npo", "attacks=gsm8k", f"out={out}")
    assert done.code == 0
    for shown in ("NLL_f", "original", "unlearned", "gsm8k", "RA", "report   ", "next     "):
        assert shown in done.out
    assert "\x1b" not in done.out + done.err  # no colours, no cursor movements in a pipe
    lines = done.err.splitlines()
    assert "[2/7] unlearn none: done" in done.err
    assert all(
        line.startswith(("suite", "method", "attacks", "jobs", "folder", "[")) for line in lines
    )


def test_results_are_a_record_and_a_repeat_is_cached(finished: Path) -> None:
    before = rows(finished)
    done = command("run", SUITE, "method=ilu", f"out={finished}", "--json")
    assert done.code == 0, done.err
    record = RunRecord.model_validate_json(done.out)
    assert {job.state for job in record.jobs} == {"cached"}
    assert record.seen == ("gsm8k",)
    assert not record.failures
    assert rows(finished) == before
    assert set(record.rows) == {"NLL_f"}
    folder = finished / record.run
    expected = {"config.yaml", "env.json", "plan.json", "status.json", "results.json"}
    assert expected <= {path.name for path in folder.iterdir()}
    assert (folder / "metrics.parquet").is_file()
    for job in record.jobs:
        assert (folder / "cells" / job.key / "DONE").is_file()


@pytest.mark.parametrize("details", [(), ("--details",)], ids=["screen", "details"])
def test_show_is_the_report_of_a_run_that_is_there(
    finished: Path, details: tuple[str, ...]
) -> None:
    (run,) = (file.parent for file in finished.glob("*/results.json"))
    done = command("show", str(run), *details)
    assert done.code == 0, done.err
    again = command("run", SUITE, "method=ilu", f"out={finished}", *details)
    report, following = again.out.split("next     ")
    assert report in done.out
    assert "seeds=0..4" in following
    full = (run.name, "tiny version 1", "weight=0.5", "base=npo", "all jobs done")
    beside = ("original: NLL_f", "original: FA")
    texts = (*full, *beside, "NLL_f: robustness", f"{run}/samples.parquet: every item's score")
    assert [text in done.out for text in texts] == [True] + [bool(details)] * (len(texts) - 1)


def test_a_run_is_shown_as_json_and_a_folder_of_runs_is_refused(finished: Path) -> None:
    (run,) = (file.parent for file in finished.glob("*/results.json"))
    assert command("show", str(run), "--json").json["run"] == run.name
    below = command("show", str(finished))
    assert below.code == 3
    assert f"it has runs below it, such as {run}" in below.err


def test_plan_says_what_is_cached_and_writes_nothing(finished: Path, here: Path) -> None:
    listed = command("plan", SUITE, "method=ilu", f"out={finished}", "--json").json
    assert len(listed["jobs"]) == 9
    assert all(job["cached"] for job in listed["jobs"])
    fresh = command("plan", SUITE, "method=ilu", "seeds=0..2", "--json").json
    assert not any(job["cached"] for job in fresh["jobs"])
    assert len({job["key"] for job in fresh["jobs"]}) == len(fresh["jobs"]) == 21
    shown = command("plan", SUITE, "method=ilu")
    assert "attack ilu with agnews, seed 0" in shown.out
    assert "to do" in shown.out
    assert list(here.iterdir()) == []


def test_words_win_over_the_config_file(here: Path) -> None:
    Path("c.yaml").write_text(
        f"suite: {TINY}\nmethod: ilu\nmethod.weight: 0.25\nattacks: [gsm8k]\nseeds: [3]\n"
    )
    from_file = command("plan", "--config", "c.yaml", "--json").json
    assert (
        from_file
        == command(
            "plan", SUITE, "method=ilu", "method.weight=0.25", "attacks=gsm8k", "seeds=3", "--json"
        ).json
    )
    both = command("plan", "--config", "c.yaml", "seeds=4", "--json").json
    assert (
        both
        == command(
            "plan", SUITE, "method=ilu", "method.weight=0.25", "attacks=gsm8k", "seeds=4", "--json"
        ).json
    )


def test_order_of_words_does_not_matter() -> None:
    there = ("method=ilu", "method.base=npo", "method.base.beta=0.2", "attacks=agnews")
    one = planned(*there)
    other = planned(*reversed(there))
    assert [job.key for job in one.jobs] == [job.key for job in other.jobs]


# --------------------------------------------------------------------------- checkpoints


def test_score_a_folder(finished: Path, here: Path, target: str) -> None:
    folder = str(target_folder(finished))
    done = command("score", folder, SUITE, "out=out", "--json")
    assert done.code == 0, done.err
    assert done.json["attacks"] == []
    made_rows, _, _ = rows(finished)
    original = made_rows["rows"]["NLL_f"]["forget_original"]
    (scored,) = (score for score in done.json["scores"] if score["scorer"] == "forget_nll")
    assert scored["value"] == original["value"]
    assert scored["n"] == 6


def test_attack_a_folder(finished: Path, here: Path, target: str) -> None:
    """A checkpoint equal to the target ends where `none` ends."""
    shutil.copytree(target_folder(finished), "theirs")
    done = command("attack", "theirs", SUITE, target, "attacks=gsm8k", "out=out", "--json")
    assert done.code == 0, done.err
    (theirs,) = done.json["rows"]["NLL_f"]["attacks"]
    none = command("run", SUITE, target, "method=none", "attacks=gsm8k", "out=out", "--json")
    (ours,) = none.json["rows"]["NLL_f"]["attacks"]
    assert theirs["steps"] == ours["steps"]


def test_another_target_takes_the_place_of_the_suite_s(finished: Path, here: Path) -> None:
    """Whatever way the suite gives its own: a hub, a packaged folder, with a hash."""
    folder = target_folder(finished)
    model = f"model: {{hub: org/name, revision: abc, sha256: {'a' * 64}}}"
    suite = _suite(("target:\n", f"target:\n  {model}\n"))
    done = command("plan", suite, f"suite.target.model.path={folder}", "--json")
    assert done.code == 0, done.err
    assert done.json["jobs"][0]["cached"]


def test_make_target(finished: Path, here: Path) -> None:
    done = command("make-target", "new", SUITE)
    assert done.code == 0, done.err
    ours = (here / "new" / "model.safetensors").read_bytes()
    assert ours == (target_folder(finished) / "model.safetensors").read_bytes()
    assert not list((here / "new").glob("state.*"))
    again = command("make-target", "new", SUITE)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "not empty" in again.err


# --------------------------------------------------------------------------- mistakes


def _write(name: str, text: str) -> str:
    path = Path(name)
    path.write_text(text)
    return str(path)


def _suite(*changes: tuple[str, str]) -> str:
    text = TINY.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return f"suite={_write('mine.yaml', text)}"


def _data(text: str, name: str = "rows.jsonl") -> str:
    return f"data.forget_passages={_write(name, text)}"


def _folder(**files: str) -> str:
    folder = Path("model")
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("_json", ".json")).write_text(text)
    return str(folder)


Words = Callable[[], list[str]]

PLAIN: list[tuple[str, int, tuple[str, ...]]] = [
    ("rn", 2, ("rn",)),
    ("run --jsn", 2, ("--jsn",)),
    (f"run {SUITE} method=ilo", 2, ("'ilo'", "did you mean 'ilu'?")),
    ("run suite=minni", 2, ("'minni'", "did you mean 'mini'?")),
    (f"run {SUITE} attacks=gsm8", 2, ("did you mean 'gsm8k'?",)),
    (f"run {SUITE} method.wieght=1", 2, ("method.wieght", "did you mean 'weight'?")),
    (f"run {SUITE} sedes=1", 2, ("sedes", "did you mean seeds=1?")),
    (
        f"run {SUITE} attack.gsm8k.train.stepz=4",
        2,
        ("attack.gsm8k.train.stepz", "did you mean 'steps'?"),
    ),
    (f"run {SUITE} method.weight=much", 2, ("method.weight", "number", "'much'")),
    (f"run {SUITE} method.weight=-1", 2, ("weight", "at least", "-1")),
    (f"run {SUITE} seeds=4..0", 2, ("seeds", "4..0")),
    (f"run {SUITE} seeds=", 2, ("seed",)),
    (f"run {SUITE} seeds=1 seeds=2", 2, ("'seeds'", "twice")),
    (f"run {SUITE} seeds", 2, ("'seeds'", "key=value")),
    (
        f"run {SUITE} method=ilu method.environments=gsm8",
        2,
        ("environment", "did you mean 'gsm8k'?"),
    ),
    (f"run {SUITE} data.forget_passages=rows.jsonl", 3, ("data.forget_passages", "rows.jsonl")),
    (f"run {SUITE} data.forget_pasages=rows.jsonl", 2, ("did you mean 'forget_passages'?",)),
    ("run suite=none.yaml", 2, ("none.yaml", "no such file")),
    ("run --config c.yaml", 2, ("c.yaml",)),
    (f"run {SUITE} method=./no.py:A", 2, ("no.py", "no such file")),
    (
        f"run {SUITE} method={FIXTURES}/stranger.py:GradDif",
        2,
        ("stranger.py", "did you mean 'GradDiff'?"),
    ),
    (
        f"run {SUITE} method={FIXTURES}/raises_at_import.py:A",
        2,
        ("raises_at_import.py", "OSError: no such instrument"),
    ),
    (f"run {SUITE} method={FIXTURES}/faulty.py:NotMethod", 2, ("NotMethod", "not a method")),
    (f"run {SUITE} method={FIXTURES}/faulty.py:NotSpec", 2, ("NotSpec", "not")),
    (f"run {SUITE} method={FIXTURES}/faulty.py:Unfinished", 2, ("Unfinished", "unlearn")),
    (f"score ./nothing {SUITE}", 3, ("nothing",)),
    (f"run {SUITE} suite.target.model.path=no", 3, ("'no'",)),
    ("ls method", 2, ("did you mean 'methods'?",)),
    (f"run {SUITE} engine=vlm", 2, ("engine",)),
    (f"run {SUITE} device=meta", 2, ("device=meta", "cuda")),
    (f"attack org/name {SUITE} method=npo", 2, ("method", "the model is given")),
    ("score", 2, ("MODEL",)),
    ("table . --format foo", 2, ("'--format': 'foo' is not one of 'md', 'csv'",)),
    ("run suite=mini attacks=noise attack.noise.scales=", 2, ("scales: must have 1 or more",)),
    (f"run {SUITE} attacks=relearn_split", 2, ("declare data.train of the attack",)),
    (f"run {SUITE} device=gpu", 2, ("gpu",)),
]
"""What is typed, the exit code, what the error says."""

MISTAKES: list[tuple[str, Words, int, tuple[str, ...]]] = [
    ("empty data file", lambda: ["run", SUITE, _data("")], 3, ("forget_passages", "no rows")),
    (
        "broken line",
        lambda: ["run", SUITE, _data('{"text": "a"}\n{"text": "b"\n')],
        3,
        ("rows.jsonl", "line 2"),
    ),
    ("unknown ending", lambda: ["run", SUITE, _data("x", "rows.txt")], 3, ("rows.txt", ".jsonl")),
    ("bad YAML", lambda: ["run", _suite(("data:", "data: ]"))], 2, ("mine.yaml:", "YAML")),
    (
        "unknown field in a suite",
        lambda: ["run", _suite(("max_length:", "max_lenght:"))],
        2,
        ("mine.yaml:71", "max_lenght", "did you mean 'max_length'?"),
    ),
    (
        "undeclared role in a suite",
        lambda: ["run", _suite(("forget: [forget_passages]", "forget: [forgotten]"))],
        2,
        ("mine.yaml", "'forgotten'"),
    ),
    (
        "plugin with a syntax error",
        lambda: ["run", SUITE, f"method={_write('bad.py', 'def f(:')}:A"],
        2,
        ("bad.py", "SyntaxError"),
    ),
    (
        "folder without weights",
        lambda: ["attack", _folder(config_json="{}"), SUITE],
        3,
        ("model", ".safetensors"),
    ),
]
"""The same where a file is written first."""


def _check(code: int, err: str, expected: int, texts: tuple[str, ...]) -> None:
    assert code == expected, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert "internal" not in err
    for text in texts:
        assert text in err


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [pytest.param(partial(str.split, words), *told, id=words) for words, *told in PLAIN]
    + [pytest.param(*mistake[1:], id=mistake[0]) for mistake in MISTAKES],
)
def test_mistakes(words: Words, code: int, texts: tuple[str, ...], here: Path) -> None:
    typed = words()
    before = sorted(here.rglob("*"))
    done = command(*typed)
    _check(done.code, done.err, code, texts)
    assert done.out == ""
    after = [path for path in sorted(here.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before


def test_no_gpu(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = command("run", SUITE, "device=cuda")
    _check(done.code, done.err, 2, ("device=cuda", "device=cpu"))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "code", "texts"),
    [
        pytest.param(
            ["suite.max_length=8"], 3, ("data.forget_passages", "max_length"), id="long item"
        ),
        pytest.param(
            ["data.forget_passages=rows.jsonl"],
            3,
            ("data.forget_passages", "'text'", "did you mean 'tekst'?"),
            id="missing column",
        ),
        pytest.param(
            ["data.gsm8k.eval=rows.jsonl"],
            3,
            ("data.eval", "'question'"),
            id="missing column of an attack's score",
        ),
        pytest.param(
            ["data.retain_mc=rows.jsonl"],
            3,
            ("mini_mc", "'choices'"),
            id="rows that an lm-eval task cannot use",
        ),
        pytest.param(
            ["method.trainable=*.no_such_matrix"],
            2,
            ("no parameter matches '*.no_such_matrix'",),
            id="no such parameter",
        ),
    ],
)
def test_mistakes_that_show_with_the_model(
    changes: list[str], code: int, texts: tuple[str, ...], here: Path, target: str
) -> None:
    _write("rows.jsonl", '{"tekst": "a"}\n')
    done = command("run", SUITE, target, "method=npo", *changes)
    *_, last = done.err.splitlines(keepends=True)
    _check(done.code, last, code, texts)
    assert sum(line.startswith("error:") for line in done.err.splitlines()) == 1
    _nothing_left(here)


def _nothing_left(here: Path) -> None:
    """No results, no half-made artifact; the original's score and locks of the store may stay."""
    left = [path for path in here.glob("runs/**/*") if path.is_file() and path.suffix != ".lock"]
    assert len({path.relative_to(here / "runs").parts[:3] for path in left}) <= 2
    assert not list(here.glob("runs/*/*.json"))
    assert not list(here.glob("runs/**/*.partial"))


def test_a_checkpoint_of_another_architecture(finished: Path, here: Path, target: str) -> None:
    from safetensors.torch import load_file, save_file

    theirs = here / "theirs"
    shutil.copytree(target_folder(finished), theirs)
    config = json.loads((theirs / "config.json").read_text())
    config["num_hidden_layers"] = 1
    (theirs / "config.json").write_text(json.dumps(config))
    tensors = load_file(theirs / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if ".layers.1." not in name}
    save_file(kept, theirs / "model.safetensors", metadata={"format": "pt"})
    done = command("attack", "theirs", SUITE, target)
    *_, last = done.err.splitlines(keepends=True)
    _check(done.code, last, 3, ("layers.1.", "theirs"))
    _nothing_left(here)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (
            ["run", SUITE, f"method={FIXTURES}/raises_at_import.py:A"],
            2,
            "OSError: no such instrument",
        ),
        (["run", SUITE, "data.forget_passages=no.jsonl"], 3, "no such file"),
    ],
)
def test_mistakes_in_a_process(words: list[str], code: int, text: str, tmp_path: Path) -> None:
    done = process(*words, cwd=tmp_path)
    _check(done.code, done.err, code, (text,))
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------- a job that fails


def test_a_method_that_raises(here: Path, target: str) -> None:
    words = ["run", SUITE, target, f"method={FIXTURES}/faulty.py:Raises", "attacks=gsm8k"]
    done = command(*words, "--json")
    assert done.code == 4
    record = RunRecord.model_validate_json(done.out)
    (failure,) = record.failures
    assert failure.message == "RuntimeError: the dog ate the gradients"
    assert "seed 0" in failure.label
    assert "failed: RuntimeError: the dog ate the gradients" in done.err
    states = {job.label: job.state for job in record.jobs}
    assert states["score none"] == states["attack none with gsm8k, seed 0"] == "done"
    assert list(states.values()).count("skipped") == 2
    (trace,) = Path("runs").glob("*/failures/*.txt")
    assert "the rest of the message" in trace.read_text()
    assert "Traceback" not in done.err
    shown = command(*words)
    assert shown.code == 4
    assert "No verdict: 1 of 7 jobs failed" in shown.out
    assert "! failed: unlearn" in shown.out
    assert "the dog ate the gradients" in shown.out
    assert "tries again what failed" in shown.out


def test_when_nothing_is_left_to_aggregate(here: Path, target: str) -> None:
    """Every attack fails: still a record, and the exit code of failed jobs."""
    Path("bad.py").write_text(
        "from ilubench.attacks.finetune import FineTune\n"
        "class Bad(FineTune):\n"
        "    def tamper(self, model, data, context):\n"
        "        raise ValueError('no attack today')\n"
    )
    suite = _suite(("  gsm8k:\n    settings", "  gsm8k:\n    use: ./bad.py:Bad\n    settings"))
    done = command("run", suite, target, "method=npo", "attacks=gsm8k", "--json")
    assert done.code == 4
    record = RunRecord.model_validate_json(done.out)
    assert [failure.message for failure in record.failures] == ["ValueError: no attack today"] * 2
    assert record.rows == {}
    assert record.scores
    other = command("run", suite, target, "method=npo", "--json")  # agnews is attacked all the same
    assert other.code == 4
    assert [a["attack"] for a in other.json["rows"]["NLL_f"]["attacks"]] == ["agnews"]


# --------------------------------------------------------------------------- a stranger's method


def test_a_stranger_s_method(here: Path, target: str) -> None:
    source = (FIXTURES / "stranger.py").read_text()
    assert len(source.splitlines()) <= 40
    Path("stranger.py").write_text(source)
    words = (target, "method=./stranger.py:GradDiff", "attacks=gsm8k")
    done = command("run", SUITE, *words, "method.gamma=0.5", "--json")
    assert done.code == 0, done.err
    assert done.json["method"]["settings"]["gamma"] == 0.5
    assert done.json["method"]["settings"]["train"]["steps"] == 6
    assert (
        done.json["rows"]["NLL_f"]["forget_unlearned"]
        != done.json["rows"]["NLL_f"]["forget_original"]
    )

    def key_of(text: str) -> str:
        Path("stranger.py").write_text(text)
        for name in [name for name in sys.modules if name.startswith("ilubench_plugin_stranger")]:
            del sys.modules[name]
        (key,) = keys(planned(*words), "unlearn")
        return key

    before = key_of(source)
    assert key_of(source.replace("batch.tokens", "batch.tokens  # the mean")) == before
    assert key_of(source.replace("Gradient difference", "Difference of gradients")) == before
    assert key_of(source.replace("batch.tokens", "(2 * batch.tokens)")) != before
