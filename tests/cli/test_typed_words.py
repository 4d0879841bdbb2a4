"""What people type, and the words that would work: each mistake is answered with them."""

import contextlib
import importlib
import io
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
import typer
from runs import SUITE, TINY, WEAK, command, environment, interruptible

from ilubench import __version__
from ilubench.cli import app
from ilubench.cli.guard import guarded
from ilubench.errors import SpecError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.runs.executors.base import failure_of
from ilubench.runs.jobs import Job
from ilubench.specs.overrides import parse_words


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*words: str, code: int = 2) -> str:
    done = command(*words)
    assert done.code == code, done.err
    assert done.out == ""
    *_, last = done.err.splitlines()
    assert last.startswith("error: ")
    assert "internal" not in last
    assert "Traceback" not in done.err
    return last


TYPED: list[tuple[str, str]] = [
    ("seeds=0-4", "write seeds=0..4"),
    ("seeds=[0-4]", "write seeds=0..4"),
    ("seeds=0:4", "write seeds=0..4"),
    ("seeds=0...4", "write seeds=0..4"),
    ("seeds=range(5)", "write seeds=0..4"),
    ("'seeds=range(2, 5)'", "write seeds=2..4"),
    ("'seeds=0 1 2'", "write seeds=0,1,2"),
    ("'seeds=0;1;2'", "write seeds=0,1,2"),
    ("seeds=0, 1, 2", "write seeds=0,1,2"),
    ("seeds=-1", "must be at least 0"),
    ("seeds=0,-4", "must be at least 0"),
    ("seeds=0..100000000000", "100000000001 numbers, more than 10000; write a shorter one"),
    (f"seeds={'9' * 5000}", "error: seeds"),
    (f"method.train.steps={10**30}", "must be below 2**63"),
    ("attack.fractions=2", "must be at most 1"),
    ("attack.fractions=nan", "must be finite"),
    (f"seeds=0..{'9' * 5000}", "is not a range; write first..last"),
    ("seeds=1.5", "must be a whole number"),
    ("seeds=0,0", "seeds: 0 is given twice; give each once"),
    ("seeds=0..2,4,1", "seeds: 1 is given twice"),
    ("attacks=gsm8k,gsm8k", "attacks: gsm8k is named twice; name each once"),
    ("attacks=gsm8k,agnews,gsm8k", "gsm8k is named twice"),
    ("attack.fractions=0.0000001", "is step 0, where the attack has not begun"),
    ("attack.gsm8k.fractions=1.0,0.001", "attack.gsm8k.fractions: 0.001 of 8 steps is step 0"),
    ("seeds=0…4", "write seeds=0..4"),
    ("seeds=0-4,7", "write seeds=0..4,7"),
    ("seeds=", "e.g. seeds=<value>"),
    ("out=", "e.g. out=<value>"),
    ("attacks=", "e.g. attacks=<value>"),
    ("'method=npo, seeds=0'", "write method=npo seeds=0"),
    ("steps=3", "did you mean method.train.steps=3 or attack.train.steps=3?"),
    ("max_steps=3", "did you mean method.train.steps=3 or attack.train.steps=3?"),
    ("weigth=3", "did you mean method.weight=3?"),
    ("scorers=retain_mc", "`ilubench score MODEL scorers=retain_mc` takes it"),
    ("lr=", "did you mean method.train.lr=<value>"),
    ("texts=maybe", "must be true or false"),
    ("method.train.lr=fast", "must be a number"),
    ("seed=3", "did you mean seeds=3?"),
    ("sedes=3", "did you mean seeds=3?"),
    ("attack=gsm8k", "did you mean attacks=gsm8k?"),
    ("attacks=gsm8k agnews", "write attacks=gsm8k,agnews"),
    ("'attacks=gsm8k agnews'", "write attacks=gsm8k,agnews"),
    ("attacks=gsm8k+agnews", "write attacks=gsm8k,agnews"),
    ("attacks=GSM8K", "did you mean 'gsm8k'?"),
    ("attacks=gsm-8k", "did you mean 'gsm8k'?"),
    ("--method ilu", "write method=ilu, without dashes"),
    ("--method=ilu", "write method=ilu, without dashes"),
    ("--seeds 0..4", "write seeds=0..4, without dashes"),
    ("--method.train.lr 1e-5", "write method.train.lr=1e-5, without dashes"),
    ("--never-knew=false", "write never_knew=false, without dashes"),
    ("-method ilu", "write method=ilu, without dashes"),
    ("'method=ilu attacks=gsm8k'", "write method=ilu attacks=gsm8k"),
    ("'method=ilu  seeds=0..4'", "write method=ilu seeds=0..4"),
    ("method = ilu", "write method=ilu"),
    ("'method = ilu'", "write method=ilu"),
    ("method= ilu", "write method=ilu"),
    ("method =ilu", "write method=ilu"),
    ("ilu", "e.g. method=ilu"),
    ("mini", "e.g. suite=mini"),
    ("gsm8k", "e.g. attacks=gsm8k"),
    ("seeds", "e.g. seeds=<value>"),
    ("method=ILU", "did you mean 'ilu'?"),
    ("method=Task-Vector", "did you mean 'task_vector'?"),
    ("method=Sim_NPO", "did you mean 'simnpo'?"),
    ("method=npo+sam", "write method=sam method.base=npo"),
    ("method=sam-npo", "write method=sam method.base=npo"),
    ("method=NPO_SAM", "write method=sam method.base=npo"),
    ("'method=ilu(rmu)'", "write method=ilu method.base=rmu"),
    ("method=npo+rmu", "a run of each is method=npo,rmu"),
    ("lr=1e-5", "did you mean method.train.lr=1e-5 or attack.train.lr=1e-5?"),
    ("LR=1e-5", "did you mean method.train.lr=1e-5 or attack.train.lr=1e-5?"),
    ("learning-rate=1e-5", "method.train.lr=1e-5 or attack.train.lr=1e-5"),
    ("epochs=3", "method.train.epochs=3 or attack.train.epochs=3"),
    ("batch_size=8", "method.train.batch_size=8 or attack.train.batch_size=8"),
    ("train.steps=8", "method.train.steps=8 or attack.train.steps=8"),
    ("beta=0.3 method=npo", "did you mean method.beta=0.3?"),
    ("beta=0.3 method=ilu", "did you mean method.base.beta=0.3?"),
    ("max_length=64", "suite.max_length=64"),
    ("limit=3", "data.<role>.limit=3"),
    ("model=x", "suite.target.model.path=<folder> or suite.target.model.hub=<org/name>"),
    ("dataset=x.jsonl", "data.<role>=<file>"),
    ("output=x", "did you mean out=x?"),
    ("method=npo method.lr=1", "did you mean 'method.train.lr'?"),
    ("attack.lr=1", "did you mean attack.train.lr?"),
    ("attack.gsm8k.lr=1", "did you mean 'attack.gsm8k.train.lr'?"),
    ("engine=vlm", "did you mean 'vllm'?"),
    ("attack.train.lr=1e400", "must be finite"),
    ("attack.fractions=nan", "must be finite"),
    ("attack.train.epochs=1e308", "must be at most 1000000"),
    ("suite.methods.npo.beta=2024-13-45", "must be a number"),
    (f"suite.target.recipe.config.x={'[' * 3000}", "not a value that YAML can read"),
    (f"suite.scorers.retain_mc.settings.limit={'9' * 5000}", "not a value that YAML can read"),
]
"""What follows `plan SUITE`, and the words that the answer has."""


@pytest.mark.parametrize(("typed", "answer"), TYPED, ids=lambda text: text[:40])
def test_the_answer_has_the_words_that_work(typed: str, answer: str, here: Path) -> None:
    assert answer in refused("plan", SUITE, *shlex.split(typed))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["engine=HF", "attacks=none"], ["engine=hf", "attacks=none"]),
        (["device=CPU"], ["device=cpu"]),
        (["attacks=['gsm8k', \"agnews\"]"], ["attacks=gsm8k,agnews"]),
        (["method=npo", "method.retain=KL"], ["method=npo", "method.retain=kl"]),
        (["seeds=0,1,2"], ["seeds=0..2"]),
    ],
)
def test_values_that_mean_the_same(typed: list[str], meant: list[str]) -> None:
    one, other = (resolve_experiment(parse_words([SUITE, *words])) for words in (typed, meant))
    assert (one.run, one.method, one.seeds) == (other.run, other.method, other.seeds)


def test_one_number_as_seeds_gets_a_hint(here: Path) -> None:
    done = command("plan", SUITE, "seeds=5", "--json")
    assert done.code == 0
    assert done.err == "note: seeds=5 is one seed; 5 seeds are seeds=0..4\n"
    for single in ("seeds=0", "seeds=1000", "seeds=5,6"):
        assert command("plan", SUITE, single, "--json").err == ""


def test_templates_may_hold_what_looks_like_words(here: Path) -> None:
    words = "data.forget_passages.prompt=Say: method=ilu suite=mini "
    assert command("plan", SUITE, words).code == 0


def test_a_message_ends_at_500_characters() -> None:
    err = io.StringIO()

    def fail() -> None:
        raise SpecError("a\x1b[31m" + "b" * 5000, remedy="write less")

    with contextlib.redirect_stderr(err):
        assert guarded(fail) == 2
    assert len(err.getvalue()) <= 510
    assert "\x1b" not in err.getvalue()
    assert err.getvalue().endswith("; write less\n")


@pytest.mark.parametrize("folder", ["../..", "/etc", "data/../../x"])
def test_packaged_leads_not_out_of_the_package(folder: str, here: Path) -> None:
    told = refused("plan", SUITE, f"suite.target.model.packaged={folder}", code=3)
    assert "leads out of the package" in told


# --------------------------------------------------------------------------- a --config file


@pytest.mark.parametrize("blank", ["", "~", "null", "{}"])
@pytest.mark.parametrize("field", ["attacks", "method", "seeds", "attack.train.lr"])
def test_a_blank_field_of_a_config_file_is_named(field: str, blank: str, here: Path) -> None:
    """None of them is the word none, by which nothing is attacked, or the default."""
    Path("c.yaml").write_text(f"suite: {TINY}\n{field}: {blank}\n")
    told = refused("plan", "--config", "c.yaml")
    assert f"c.yaml:2: {field}: is blank; leave the field out, or write none" in told


def test_a_config_file_is_read_as_it_is_written(here: Path) -> None:
    """Numbers, dates and truth values of YAML are the text that words would have."""
    from ilubench.specs.overrides import from_file

    Path("r.yaml").write_text(
        "data:\n  forget_mc: {revision: 1234e56, subset: 0123, limit: none}\n"
        "never_knew: no\nseeds: [0, 1]\nout: 2024-12-05\n"
    )
    found = {override.key: override.text for override in from_file(Path("r.yaml"))}
    assert found == {
        "data.forget_mc.revision": "1234e56",
        "data.forget_mc.subset": "0123",
        "data.forget_mc.limit": "none",
        "never_knew": "no",
        "seeds": "0,1",
        "out": "2024-12-05",
    }


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("~", "a value of its list is blank"),
        ("''", "a value of its list is blank"),
        ("'Science, Technology'", "'Science, Technology' would be divided"),
        ("'[b]'", "'[b]' would be divided, or lose signs, in a list of words; write it in the s"),
        ("[b]", "a list of plain values is needed"),
    ],
)
def test_a_list_of_a_config_file_keeps_its_items(item: str, problem: str, here: Path) -> None:
    field = "suite.attacks.agnews.data.train.labels.label"
    Path("c.yaml").write_text(f"suite: {TINY}\n{field}: [a, {item}]\n")
    assert f"c.yaml:2: {field}: {problem}" in refused("plan", "--config", "c.yaml")


def test_a_list_in_a_config_file_is_one_where_anything_may_stand(here: Path) -> None:
    from ilubench.cli.words import grid_of

    Path("c.yaml").write_text(f"suite: {TINY}\nsuite.attacks.gsm8k.settings.fractions: [0.5, 1]\n")
    (made,) = grid_of(None, Path("c.yaml"))
    assert made.suite.attacks["gsm8k"].settings["fractions"] == [0.5, 1]


def test_a_config_file_with_a_zero_byte(here: Path) -> None:
    Path("n.yaml").write_text("a: 1\n\0\n")
    assert "n.yaml, character 6: not valid YAML" in refused("plan", "--config", "n.yaml")
    assert "n.yaml, character 6: not valid YAML" in refused("plan", "suite=./n.yaml")


# --------------------------------------------------------------------------- commands


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("rnu", "did you mean 'run'?"),
        ("tabel x", "did you mean 'table'?"),
        ("Run", "did you mean 'run'?"),
        ("make_target x", "did you mean 'make-target'?"),
        ("leaderboard chek", "did you mean 'check'?"),
        ("method=ilu seeds=0", "write ilubench run method=ilu seeds=0"),
    ],
)
def test_an_unknown_command(typed: str, answer: str) -> None:
    from ilubench.cli import app

    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", err)
        code = guarded(lambda: app(typed.split(), prog_name="ilubench", standalone_mode=False))
    assert code == 2
    assert answer in err.getvalue()


def test_help_is_a_command_too() -> None:
    assert command("help").out == command("--help").out
    assert command("help", "run").out == command("run", "--help").out
    assert command("leaderboard", "help", "check").out == (
        command("leaderboard", "check", "--help").out
    )


def test_help_of_run_names_the_keys() -> None:
    from ilubench.specs import RunSpec

    page = command("run", "--help").out
    for key in (*RunSpec.model_fields, "method.<setting>", "data.<role>", "suite.<field>"):
        assert f"\n  {key} " in page, key
    assert "such as 0..4" in page


def test_the_version_is_told() -> None:
    assert command("--version").out == f"ilubench {__version__}\n"


# --------------------------------------------------------------------------- models and paths


def _folder(name: str, **files: str) -> str:
    folder = Path(name)
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file.replace("_json", ".json")).write_text(text)
    return name


def test_a_run_or_an_adapter_is_no_model(here: Path) -> None:
    _folder("runs/one", results_json="{}")
    told = refused("score", "runs/one", SUITE, code=3)
    assert "the folder of a run, no model; `ilubench show runs/one`" in told
    assert "--weights-to" in told
    told = refused("attack", "runs", SUITE, code=3)
    assert "a folder of runs, no model; `ilubench ls runs runs`" in told
    adapter = _folder("lora", adapter_config_json='{"base_model_name_or_path": "org/base"}')
    told = refused("attack", adapter, SUITE, code=3)
    assert (
        "an adapter (adapter_config.json), not a model; merge it into its base 'org/base'" in told
    )
    Path("model.safetensors").write_text("x")
    assert "is a file; give the folder" in refused("score", "model.safetensors", SUITE, code=3)


def test_the_home_folder_is_known_in_every_path(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here))
    Path("t.yaml").write_text(TINY.read_text())
    Path("c.yaml").write_text("suite: ~/t.yaml\nout: ~/o\n")
    Path("rows.jsonl").write_text('{"text": "a"}\n')
    words = ("suite=~/t.yaml", "out=~/o", "data.forget_passages=~/rows.jsonl")
    assert command("plan", *words, "--write").code == 0
    assert any((here / "o").glob("tiny-*/plan.json"))
    assert command("plan", "--config", "~/c.yaml").code == 0
    assert command("plan", "--config=~/c.yaml").code == 0
    assert str(here / "none") in refused("score", "~/none", "suite=~/t.yaml", code=3)
    assert f"{here}/o" in refused("table", "~/o", code=2)
    assert "no.yaml" in refused("plan", "suite=~/no.yaml")


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("file", "a file is there, and a folder is needed"),
        ("file/below", "a file is there, and a folder is needed"),
        ("a" * 300, "the name is too long"),
        ("/proc/none", "there is no such file or folder"),
    ],
)
def test_a_folder_that_cannot_be_written_leaves_with_3(out: str, reason: str, here: Path) -> None:
    Path("file").write_text("")
    told = refused("plan", SUITE, "--write", f"out={out}", code=3)
    assert out in told
    assert reason in told


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (13, "you may not read or write it"),
        (28, "no space is left"),
        (30, "its disk is read-only"),
        (122, "your quota"),
    ],
)
def test_faults_of_the_system_name_the_path(
    number: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def call() -> Any:
        raise OSError(number, "whatever", "some/where")

    assert guarded(call) == 3
    assert f"error: some/where: {reason}" in capsys.readouterr().err


def test_a_lack_of_memory_is_told_whatever_was_blamed(capsys: pytest.CaptureFixture[str]) -> None:
    def blame() -> None:
        raise SpecError("config.json: x is 3, which makes no model") from MemoryError()

    assert guarded(blame) == 3
    assert capsys.readouterr().err.startswith("error: there is not enough memory for this; ")
    failed = failure_of(Job(stage="score", key="k", label="l"), lacking(blame))
    assert failed.message.startswith("out of memory (config.json: x is 3")


def lacking(call: Callable[[], None]) -> Exception:
    with pytest.raises(SpecError) as raised:
        call()
    return raised.value


def test_a_library_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"cut_short{EXTENSION_SUFFIXES[0]}").write_bytes(b"ELF")
    monkeypatch.syspath_prepend(tmp_path)
    assert guarded(lambda: importlib.import_module("cut_short")) == 3
    err = capsys.readouterr().err
    assert err.startswith("error: cut_short cannot be loaded: ")
    assert err.endswith("; give it more memory, or install it again\n")


@pytest.mark.parametrize("kind", [ConnectionError, EOFError])
def test_other_faults_stay_internal(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise kind("no path in it")

    def call() -> Any:
        broken = typer.Typer()
        broken.command()(fail)
        return broken([], standalone_mode=False)

    assert guarded(call) == 5
    assert "internal" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "ilubench", "ls", "suites", "--json"]
        done = subprocess.run(words, stdout=full, stderr=-1, env=environment(), check=False)
    assert done.returncode == 3
    assert done.stderr.decode().count("\n") == 1
    assert b"no space is left" in done.stderr


def test_closed_streams_are_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)  # as Python starts behind `>&-`
    monkeypatch.setattr("sys.stderr", None)
    assert guarded(lambda: app(["ls", "suites"], standalone_mode=False)) == 0
    assert guarded(lambda: app(["table", "nowhere"], standalone_mode=False)) == 3


STREAMS = """
import subprocess, sys
from ilubench.cli.guard import guarded

ASKED = "import sys; sys.exit(sys.stdout is None or sys.stderr is None)"
sys.exit(guarded(lambda: subprocess.run([sys.executable, "-c", ASKED]).returncode))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_what_a_command_starts_has_the_streams_that_were_closed(closed: str) -> None:
    words = shlex.join([sys.executable, "-c", STREAMS])
    done = subprocess.run(["sh", "-c", f"exec {words} {closed}"], env=environment(), check=False)
    assert done.returncode == 0


# --------------------------------------------------------------------------- interrupted


WAITS = """
import time
from ilubench.cli import app, main

@app.command()
def wait() -> None:
    print("begun", flush=True)
    time.sleep(60)

main()
"""


def _interrupted(words: list[str], how: signal.Signals, begun: str) -> None:
    """Send a signal to a process once it has said that it has begun."""
    with interruptible():
        run = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
        )
    assert run.stdout is not None
    assert run.stderr is not None
    try:
        said = run.stdout if begun == "begun" else run.stderr
        assert any(line.startswith(begun) for line in iter(said.readline, ""))
        run.send_signal(how)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130
    told = "error: interrupted; the same command goes on where it stopped"
    assert err.splitlines()[-1] == told
    assert "Traceback" not in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_says_how_to_go_on(how: signal.Signals) -> None:
    _interrupted([sys.executable, "-c", WAITS, "wait"], how, "begun")


ENDS = """
import atexit, os, signal, sys

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.{how})

if "{when}" == "atexit":
    atexit.register(os.kill, os.getpid(), signal.{how})
else:
    late = Late()  # goes with the modules
from ilubench.cli import main
main()
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("when", ["atexit", "modules"])
@pytest.mark.parametrize(("words", "code"), [(["ls", "suites"], 0), (["ls", "x"], 2)])
def test_a_signal_to_a_command_that_has_ended_changes_nothing(
    how: str, when: str, words: list[str], code: int
) -> None:
    script = ENDS.format(how=how, when=when)
    with interruptible():
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_ctrl_c_within_an_exec_is_one_too(here: Path) -> None:
    """Libraries make classes so; Python remembers it, and `-m` would end by the signal."""
    inner = WAITS.replace("    time.sleep(60)", "    exec('time.sleep(60)')")
    Path("waits.py").write_text(inner)
    _interrupted([sys.executable, "-m", "waits", "wait"], signal.SIGINT, "begun")


@pytest.mark.slow
def test_a_signal_in_a_run_says_how_to_go_on(tmp_path: Path) -> None:
    words = ["-m", "ilubench", "run", SUITE, WEAK, "method=npo", f"out={tmp_path}/o"]
    _interrupted([sys.executable, *words], signal.SIGINT, "folder")
