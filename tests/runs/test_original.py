"""The original model's scores against chance and what the suite states, before anything costly."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from runs import TINY, Outcome, command, made, target_folder

from ilubench.records.chance import at_chance
from ilubench.records.results import ScoreSummary
from ilubench.specs import Estimator, MetricSpec


def summary(value: float, se: float | None, n: int) -> ScoreSummary:
    return ScoreSummary(scorer="s", metric="m", estimator=Estimator(), value=value, se=se, n=n)


@pytest.mark.parametrize(
    ("value", "se", "n", "direction", "weak"),
    [
        (0.60, 0.05, 100, "higher", False),
        (0.30, 0.05, 100, "higher", True),  # .25 lies within .30 +- .10
        (0.36, 0.05, 100, "higher", False),
        (0.36, 0.05, 4, "higher", True),  # four items: t is 3.18
        (0.10, 0.01, 100, "higher", True),
        (1.00, None, 1, "higher", True),
        (1.00, 0.0, 20, "higher", False),
        (0.25, 0.0, 20, "higher", True),
        (0.10, 0.02, 100, "lower", False),
        (0.24, 0.02, 100, "lower", True),
    ],
)
def test_what_is_no_better_than_chance(
    value: float, se: float | None, n: int, direction: Any, weak: bool
) -> None:
    spec = MetricSpec(label="L", scorer="s", metric="m", direction=direction, chance=0.25)
    assert at_chance(summary(value, se, n), spec) is weak


def suite(folder: Path, **changes: Any) -> str:
    """Return the words of a tiny suite whose utility is a likelihood, far from chance."""
    raw = yaml.safe_load(TINY.read_text())
    raw["target"] = {"model": {"path": str(target_folder(made()))}}
    raw["scorers"]["retain_mc"] = {
        "use": "answer_nll",
        "settings": {**raw["scorers"]["forget_nll"]["settings"], "data": "retain_mc"},
    }
    raw["primary_forget"] = [
        {
            "label": "NLL_f",
            "scorer": "forget_nll",
            "metric": "nll",
            "direction": "lower",
            "chance": 50.0,
            **changes,
        }
    ]
    raw["utility"] = [{**raw["primary_forget"][0], "label": "NLL_r", "scorer": "retain_mc"}]
    raw["utility"][0].pop("stated", None)
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(raw))
    return f"suite={path}"


def stopped(*words: str) -> Outcome:
    return command(*words, "allow_weak_target=false")


def stages(out: Path) -> dict[str, int]:
    found = (path for path in (out / "store").glob("*/*") if path.is_dir())
    names = [path.parent.name for path in found]
    return {name: names.count(name) for name in sorted(set(names))}


def test_a_target_that_looks_forgotten_stops_the_run(tmp_path: Path) -> None:
    own, out = suite(tmp_path, chance=0.5), tmp_path / "out"
    for words in (("method=npo",), ("method=npo", "attacks=none"), ("method=none",)):
        done = stopped("run", own, *words, f"out={out}")
        assert done.code == 3
        error = done.err.splitlines()[-1]
        assert "nll of forget_nll is " in error
        assert "over 6 items, no better than chance (0.5) beyond its interval" in error
        assert "it looks as if it had forgotten already" in error
        assert "allow_weak_target=true goes on" in error
        assert stages(out) == {"score": 1, "unlearn": 1}  # the original's; found again, not redone
        assert not list(out.glob("own-*")) + list(out.glob("tiny-*"))
    scored = command("score", str(target_folder(made())), own, f"out={out}")
    assert scored.code == 0
    assert "0.5: no better" in scored.out


def test_going_on_is_noted(tmp_path: Path) -> None:
    own, out = suite(tmp_path, chance=0.5), tmp_path / "out"
    words = ("run", own, "method=npo", "attacks=gsm8k", f"out={out}", "--json")
    done = command(*words, "allow_weak_target=true")
    assert done.code == 0, done.err
    notes = [note for note in done.json["notes"] if "allow_weak_target" in note]
    assert [note.split(" is ")[0] for note in notes] == ["nll of forget_nll", "nll of retain_mc"]
    again = command(*words, "allow_weak_target=false")  # nothing is left to be stopped
    assert again.code == 0
    notes = [note for note in again.json["notes"] if "all jobs were done before" in note]
    assert [note.split(" is ")[0] for note in notes] == ["nll of forget_nll", "nll of retain_mc"]


def test_a_strong_target_needs_no_word(tmp_path: Path) -> None:
    own, out = suite(tmp_path), tmp_path / "out"
    done = stopped("run", own, "method=npo", "attacks=none", f"out={out}", "--json")
    assert done.code == 0, done.err
    assert done.json["notes"] == []
    first = [job["label"] for job in done.json["jobs"]][:3]
    assert first == ["make the target model of tiny", "unlearn none", "score none"]


def test_what_the_suite_states_of_its_target(tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = suite(tmp_path, stated={"value": 1.25, "within": 0.01})
    done = stopped("run", own, "method=npo", "attacks=none", f"out={out}")
    assert done.code == 3
    assert "for the original model, and the suite states 1.25 +- 0.01" in done.err
    # other data: what was published is of others
    done = stopped(
        "run", own, "data.retain_mc.limit=5", "method=npo", "attacks=none", f"out={out}", "--json"
    )
    assert done.code == 0, done.err
    (note,) = done.json["notes"]
    assert note.endswith(
        "the suite states 1.25 +- 0.01 (target, data or scorers are not the suite's)"
    )
    value = next(s["value"] for s in done.json["scores"] if s["scorer"] == "forget_nll")
    right = suite(tmp_path, stated={"value": round(value, 3), "within": 0.01})
    assert stopped("run", right, "method=npo", "attacks=none", f"out={out}").code == 0


def test_jobs_on_their_own_stop_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = suite(tmp_path, chance=0.5)
    assert stopped("plan", own, "method=npo", "attacks=none", "--write").code == 0
    (folder,) = (path for path in Path("runs").iterdir() if (path / "plan.json").is_file())
    codes = {
        job["label"]: command("job", str(folder), job["key"])
        for job in json.loads((folder / "plan.json").read_text())["jobs"]
    }
    assert {label: done.code for label, done in codes.items()} == {
        "make the target model of tiny": 0,
        "unlearn none": 0,
        "score none": 0,
        "unlearn npo, seed 0": 3,
        "score npo, seed 0": 2,
    }
    assert "no better than chance" in codes["unlearn npo, seed 0"].err


def test_weights_are_scored_in_another_type(tmp_path: Path) -> None:
    out, values = tmp_path / "out", {}
    own = suite(tmp_path)
    for words in (
        (),
        ("suite.dtype=bfloat16",),
        ("suite.dtype=bfloat16", "suite.score_dtype=float32"),
    ):
        done = command("run", own, "method=none", "attacks=none", *words, f"out={out}", "--json")
        assert done.code == 0, done.err
        values[done.json["dtype"]] = done.json["scores"][0]["value"]
    assert list(values) == ["float32", "bfloat16", "bfloat16, scored in float32"]
    exact, coarse, both = values.values()
    assert len({exact, coarse, both}) == 3
    assert both == pytest.approx(exact, abs=0.02)
    shown = command("run", own, "method=none", "attacks=none", *words, f"out={out}").out
    assert "bfloat16, scored in float32" in shown


def test_texts_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    own = suite(tmp_path)
    raw = yaml.safe_load((tmp_path / "own.yaml").read_text())
    for name, gated in (("open", False), ("closed", True)):
        rows = [{"id": f"r{n}", "prompt": "agent", "gt": "city of agents"} for n in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        raw["data"][name] = {"path": str(tmp_path / f"{name}.jsonl"), "gated": gated}
        raw["scorers"][name] = {"use": "verbmem", "settings": {"data": name, "max_tokens": 3}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    for words, kept in (((), None), (("texts=true",), {"open": 2})):
        done = command(
            "run", own, "method=none", "attacks=none", *words, f"out={tmp_path}", "--json"
        )
        assert done.code == 0, done.err
        path = tmp_path / done.json["run"] / "texts.parquet"
        if kept is None:
            assert not path.exists()
            continue
        lines = pq.read_table(path).to_pylist()
        assert {line["scorer"] for line in lines} <= {"open"}
        assert [line["item"] for line in lines] == ["r0", "r1"]
        assert all(line["text"] and line["who"] == "reference" for line in lines)
