"""describe, show, ls runs, completion: what a name means, what a run is, what Tab offers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import SUITE, command, environment

from ilubench import specs
from ilubench.cli.completion import complete_value_in_bash
from ilubench.experiments.describe import describe
from ilubench.interfaces.discovery import GROUPS, find_plugin, list_entries
from ilubench.interfaces.sources import list_settings
from ilubench.specs import Spec
from ilubench.specs.meaning import field_meanings, summary_of

MEASURED = Path(__file__).parents[2] / "leaderboards" / "mini" / "measured"
NAMED = [getattr(specs, name) for name in specs.__all__]
SPECS: list[type[Spec]] = [one for one in NAMED if isinstance(one, type) and issubclass(one, Spec)]


def test_every_field_that_a_user_sets_has_one_meaning() -> None:
    plugins = [find_plugin(group, name) for group in GROUPS for name in list_entries(group)]
    lacking, twice = [], []
    for model in (*plugins, *SPECS):
        assert summary_of(model)
        for field in field_meanings(model, nested=False):
            if not field.meaning:
                lacking.append(f"{model.__name__}.{field.name}")
            described = model.model_fields[field.name].description
            if described and re.search(rf"^ +{field.name}: ", model.__doc__ or "", re.MULTILINE):
                twice.append(f"{model.__name__}.{field.name}")
    assert (lacking, twice) == ([], [])


def test_settings_read_from_source_are_those_of_the_class() -> None:
    for group in GROUPS:
        for name, target in list_entries(group).items():
            read = {setting.name for setting in list_settings(target) if "." not in setting.name}
            assert read == set(find_plugin(group, name).model_fields), target


def test_a_method_is_described_with_ranges_defaults_and_the_suite_s_values() -> None:
    (npo,) = command("describe", "npo", SUITE, "--json").json
    assert "arXiv 2404.05868" in npo["summary"]
    assert "Attributes" not in npo["summary"]
    fields = {field["name"]: field for field in npo["fields"]}
    beta = {"type": "number", "range": "> 0", "default": "0.1", "meaning": "inverse temperature."}
    assert fields["beta"] == {"name": "beta", **beta}
    assert fields["reduction"]["type"] == "mean | sum | batch_mean"
    assert fields["train.lr"]["default"] == "required"
    assert (npo["here"]["train.lr"], npo["here"]["beta"]) == ("0.001", "0.1")
    shown = command("describe", "npo", SUITE)
    assert "| method.beta | number (> 0) | 0.1 | 0.1 | inverse temperature. |" in shown.out


@pytest.mark.parametrize(
    ("name", "kinds", "field", "value"),
    [
        ("gsm8k", ["attacks"], "train.epochs", "2"),
        ("mini", ["generators", "suites"], "seed", None),
        ("finetune", ["attacks"], "each_epoch", None),
        ("verbmem", ["scorers"], "data", None),
        ("forget_knowmem", ["scorers"], "data", "forget_knowmem"),
        ("ilu-control", ["methods"], "penalty", "cross_entropy"),
        ("TrainSpec", ["settings"], "clip", None),
        ("wmdp-bio", ["suites"], "dtype", "bfloat16"),
    ],
)
def test_what_can_be_described(name: str, kinds: list[str], field: str, value: str) -> None:
    found = describe(name)
    assert [one.kind for one in found] == kinds
    assert field in {one.name for one in found[0].fields}
    assert found[0].here.get(field) == value
    assert found[0].summary


def test_a_name_of_nothing_gets_a_hint() -> None:
    done = command("describe", "NPOO")
    assert (done.code, done.out) == (2, "")
    assert "nothing is called 'NPOO'; did you mean 'npo'?" in done.err
    assert (
        "workers is a key of run: processes that share the jobs"
        in command("describe", "workers").err
    )
    assert "write ilubench describe npo suite=mini" in command("describe", "npo", "seeds=1").err


# --------------------------------------------------------------------------- runs


def test_runs_below_a_folder_are_listed(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "npo").symlink_to(MEASURED / "npo")
    plan = tmp_path / "runs" / "mine" / "plan.json"
    plan.write_text("{}")
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "results.json").write_text("{")
    found = command("ls", "runs", str(tmp_path), "--json").json
    assert [Path(run["folder"]).name for run in found] == ["broken", "mine", "npo"]
    assert found[0]["status"].startswith("cannot be read")
    assert found[1]["status"] == "not finished"
    assert [found[2][name] for name in ("suite", "method", "seeds", "status")] == [
        *("mini", "npo", "0,1,2,3,4,5,6,7,8,9", "ok")
    ]
    assert found[2]["date"].startswith("20")
    assert "not finished" in command("show", str(plan.parent)).out
    for words, told in (
        (["nowhere"], "no such folder"),
        ([str(plan.parents[2] / "runs" / "mine" / "x")], "no such folder"),
        (["a", "b"], "write ilubench ls runs FOLDER"),
    ):
        assert told in command("ls", "runs", *words).err
    (tmp_path / "empty").mkdir()
    assert "no run in it" in command("ls", "runs", str(tmp_path / "empty")).err


# --------------------------------------------------------------------------- completion


def completed(*typed: str) -> list[str]:
    """Return what Tab offers in bash behind what is typed."""
    program = (
        "import sys; from ilubench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch', 'transformers', 'numpy') if n in sys.modules])"
    )
    words = " ".join(("ilubench", *typed))
    given = {"COMP_WORDS": words, "COMP_CWORD": str(len(typed))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**environment(), **given, "_ILUBENCH_COMPLETE": "complete_bash"},
        check=False,
    )
    assert done.stderr == ""
    *offered, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    return [word for word in offered if word]


def test_tab_offers_keys_and_imports_no_torch() -> None:
    assert {"method=", "memory="} <= set(completed("run", "m"))
    offered = completed("run", "method=npo", "method.")
    assert {"method.beta=", "method.train."} <= set(offered)
    assert "method.weight=" not in offered
    offered = completed("score", "model", "")
    assert {"scorers=", "task=", "suite=", "data."} <= set(offered)
    assert "method=" not in offered


VALUES = [
    (["run", "method", "=", "np"], ["npo"]),
    (["run", "method", "="], ["ilu", "ilu-control", "npo"]),
    (["run", "suite", "=", "wmdp-b"], ["wmdp-bio"]),
    (["plan", "attacks", "=", "gsm8k,a"], ["gsm8k,agnews"]),
    (["run", "suite", "=", "wmdp-bio", "attacks", "="], ["gsm8k"]),
    (["run", "method", "=", "ilu", "method.base", "=", "rm"], ["rmu"]),
    (["run", "engine", "="], ["auto", "hf", "vllm"]),
    (["score", "m", "suite", "=", "mini", "scorers", "=", "forget_m"], ["forget_mc"]),
    (["run", "never_knew", "=", "f"], ["false"]),
]


@pytest.mark.parametrize(("typed", "offered"), VALUES)
def test_tab_offers_values_behind_the_sign_where_bash_divides(
    typed: list[str], offered: list[str]
) -> None:
    environment = {
        "_ILUBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("ilubench", *typed)),
        "COMP_CWORD": str(len(typed)),
    }
    found = complete_value_in_bash(environment)
    assert found is not None
    assert set(offered) <= set(found)
    assert all(value.startswith("" if typed[-1] == "=" else typed[-1]) for value in found)


def test_other_shells_and_words_are_left_to_typer() -> None:
    words = {"COMP_WORDS": "ilubench run m", "COMP_CWORD": "2"}
    assert complete_value_in_bash({**words, "_ILUBENCH_COMPLETE": "complete_bash"}) is None
    assert complete_value_in_bash({**words, "_ILUBENCH_COMPLETE": "complete_zsh"}) is None
    assert complete_value_in_bash({}) is None
