"""`ilubench leaderboard submit`: a finished run becomes an entry that `check` passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from finished_runs import Told, edit_record, edit_row, edit_samples
from runs import Outcome, command, made

from ilubench.errors import DataError, UsageError
from ilubench.leaderboard.records.files import read_entry, read_entry_run
from ilubench.leaderboard.site.build import build_site
from ilubench.leaderboard.submit.entry import About, submit_run
from ilubench.leaderboard.submit.weights import export_weights, place_weights, write_whole
from ilubench.records.finished import read_run
from ilubench.records.keys import file_sha256
from leaderboards import TINY, full_run, tiny_board

BY = About(by="A. Tester", label="mine")


def sent(run: Path, to: Path, *words: str) -> Outcome:
    return command("leaderboard", "submit", str(run), "--by", "A. Tester", "--to", str(to), *words)


def checked(path: Path) -> str:
    return command("leaderboard", "check", str(path)).out


def test_a_run_becomes_an_entry(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    cited = tmp_path / "paper.bib"
    cited.write_text("@misc{a,\n title={B}\n}\n")
    words = ("--label", "ours", "--title", "Ours", "--code", "https://example.org/ours")
    done = sent(run, tmp_path / "boards", *words, "--citation-file", str(cited))
    assert done.code == 0, done.err
    path = tmp_path / "boards" / "known" / "ours-1.json"
    assert done.out.split() == [str(path), str(path.with_suffix(".parquet"))]
    assert "pull request" in done.err
    assert "origin is unknown" in done.err
    entry = read_entry(path)
    assert (entry.entry, entry.title, entry.tier) == ("ours-1", "Ours", "submitted")
    assert entry.submission.citation == "@misc{a,\n title={B}\n}"
    assert entry.submission.by == "A. Tester"
    assert entry.trains_on == ("text",)
    rows = read_entry_run(entry, path.parent).rows
    assert rows["FQ"].ra == read_run(run).rows["FQ"].ra
    assert checked(path) == ""


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (TINY["npo"], ["some ranks rest on 3 seeds"]),
        (replace(TINY["npo"], seeds=(0,)), ["without a rank in FQ: 1 seed: a rank needs two"]),
        (replace(TINY["npo"], utility=0.4), ["without a rank in FQ: collapsed"]),
        (
            replace(TINY["npo"], suite={"core_unseen": []}),
            ["without a rank in FQ: no RA_core"],
        ),
        (Told("npo"), []),
        (TINY["none"], []),
    ],
    ids=["few seeds", "one seed", "collapsed", "no core", "ranked", "reference"],
)
def test_it_says_where_the_run_will_stand(told: Told, says: list[str], tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", told)
    done = sent(run, tmp_path)
    assert done.code == 0, done.err
    for part in says:
        assert part in done.err
    assert ("a rank" in done.err) == any("a rank" in part for part in says)
    assert ("ranks rest" in done.err) == any("ranks rest" in part for part in says)
    assert "suite known does not come with ilubench: it has a table of its own" in done.err


def test_it_says_what_does_not_go_with_the_entries_there(tmp_path: Path) -> None:
    folder = tiny_board(tmp_path)
    for label, told, changes, says in (
        ("engine", TINY["npo"], {"engine": "vllm"}, "differ in engine (hf and vllm)"),
        ("data", TINY["npo"], {"target": "1"}, ""),
        ("seeds", replace(TINY["npo"], seeds=(7, 8)), {}, "fewer than two seeds shared with npo-1"),
        ("batch", replace(TINY["npo"], suite={"score_batch": 9}), {}, "score batch (32 and 9)"),
    ):
        run = full_run(tmp_path / "own" / label, told)
        edit_record(run, **changes)
        done = sent(run, tmp_path, "--label", label)
        assert done.code == 0, done.err
        assert says in done.err
        assert ("no rank" in done.err or "without a rank" in done.err) == bool(says)
        (folder / f"{label}-1.json").unlink()


def test_a_new_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    monkeypatch.chdir(tmp_path)
    done = command("leaderboard", "submit", str(run), "--by", "A. Tester")
    assert (tmp_path / "leaderboards").is_dir()
    assert "there was no folder leaderboards: it was made" in done.err
    done = command("leaderboard", "submit", str(run), "--by", "A. Tester", "--replace")
    assert "there was no folder" not in done.err


def test_samples_in_the_suite_are_not_copied(tmp_path: Path) -> None:
    run = full_run(tmp_path / "boards" / "known" / "measured" / "npo", TINY["npo"])
    done = sent(run, tmp_path / "boards")
    assert done.code == 0, done.err
    (path,) = (Path(line) for line in done.out.split())
    assert read_entry(path).samples.path == "measured/npo/samples.parquet"
    assert sorted(one.name for one in path.parent.iterdir()) == ["measured", "npo-1.json"]
    assert checked(tmp_path / "boards") == ""


def test_the_label_is_what_was_asked_for(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("use: npo", "use: ./My Method.py:My_Kind", 1))
    assert submit_run(run, tmp_path / "boards", About(by="A")).entry.entry == "my_kind-1"


def test_environments_are_declared_and_mark_attacks(tmp_path: Path) -> None:
    suite = {
        "environments": {"benign": "more"},
        "data": {"text": {"path": "a.jsonl"}, "more": {"path": "b.jsonl"}},
    }
    wrapped = {"base": {"use": "ilu", "settings": {"environments": ["benign"]}}}
    run = full_run(tmp_path / "run", Told("lat", settings=wrapped, suite=suite))
    entry = submit_run(run, tmp_path / "boards", BY).entry
    assert entry.trains_on == ("text", "more")
    edit_record(run, protocol={name: protocol(role) for name, role in MORE.items()})
    with pytest.raises(DataError, match="seen: core is missing, on whose data the method trained"):
        submit_run(run, tmp_path / "boards", BY, replace=True)
    edit_record(run, seen=["core"])
    entry = submit_run(run, tmp_path / "boards", BY, replace=True).entry
    assert entry.run.seen == ("core",)
    assert checked(tmp_path / "boards") == ""


MORE = {"seen": "text2", "core": "more"}


def protocol(role: str) -> dict[str, object]:
    settings = {"train": {"lr": 0.1}}
    return {"use": "finetune", "settings": settings, "data": {role: {"rows": "0"}}}


def test_what_is_said_to_be_trained_on_counts(tmp_path: Path) -> None:
    suite = {"data": {"text": {"path": "a.jsonl"}, "more": {"path": "b.jsonl"}}}
    run = full_run(tmp_path / "run", Told("checkpoint", suite=suite))
    edit_record(run, protocol={name: protocol(role) for name, role in MORE.items()})
    done = sent(run, tmp_path / "boards", "--trains-on", "more")
    assert done.code == 0, done.err
    entry = read_entry(Path(done.out.split()[0]))
    assert (entry.trains_on, entry.run.seen) == (("text", "more"), ("core",))
    done = sent(run, tmp_path / "boards", "--trains-on", "mor", "--label", "other")
    assert done.code == 3
    assert "trains_on: no data role 'mor'; did you mean 'more'?" in done.err


def test_a_package_is_pinned(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    wheel = tmp_path / "ilubench_mine-1.2-py3-none-any.whl"
    wheel.write_bytes(b"w")
    done = sent(run, tmp_path / "boards", "--package", f"{wheel}=https://example.org/w.whl")
    assert done.code == 0, done.err
    package = read_entry(Path(done.out.split()[0])).package
    assert package is not None
    assert (package.name, package.version) == ("ilubench-mine", "1.2")
    assert (package.sha256, package.url) == (file_sha256(wheel), "https://example.org/w.whl")
    for word, says in (("x.zip", "give a wheel or sdist"), ("a-1.tar.gz", "a-1.tar.gz: cannot be")):
        done = sent(run, tmp_path / "boards", "--package", word)
        assert done.code in (2, 3)
        assert says in done.err


FAILED = [{"label": "attack npo", "kind": "JobError", "message": "m"}]
DIVERGED = [{"label": "attack npo", "kind": "DivergedError", "message": "m"}]
JOB = {"stage": "attack", "key": "k", "label": "attack npo with core", "state": "planned"}

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "failed jobs": (
        lambda run: edit_record(run, failures=FAILED),
        "failures: 1 jobs failed, first 'attack npo' ('JobError')",
    ),
    "failed jobs and diverged ones": (
        lambda run: edit_record(run, failures=[*DIVERGED, *FAILED]),
        "failures: 1 jobs failed, first 'attack npo' ('JobError')",
    ),
    "jobs that diverged, and a row that did not": (
        lambda run: edit_record(run, failures=DIVERGED),
        "rows.FQ.status: 'ok': jobs diverged",
    ),
    "every seed diverged": (
        lambda run: edit_record(run, failures=DIVERGED, rows={}),
        "rows: there is none, since every seed diverged; lower",
    ),
    "open jobs": (lambda run: edit_record(run, jobs=[JOB]), "'attack npo with core' is planned"),
    "no attack": (lambda run: edit_record(run, attacks=[], rows={}), "nothing was attacked"),
    "no row": (lambda run: edit_record(run, rows={}), "rows: there is none"),
    "a diverged row without a job that did": (
        lambda run: edit_row(run, status="diverged"),
        "rows.FQ.status: 'diverged': not every seed went",
    ),
    "no samples": (lambda run: (run / "samples.parquet").unlink(), "no samples.parquet beside it"),
    "no configuration": (lambda run: (run / "config.yaml").unlink(), ""),
    "no environment": (lambda run: (run / "env.json").unlink(), "no env.json; give the whole"),
    "another's samples": (
        lambda run: edit_samples(run, lambda table: table.slice(1)),
        "samples.parquet",
    ),
    "an edited figure": (lambda run: edit_row(run, forget_chance=0.3), "forget_chance of FQ is"),
    "no folder": (shutil.rmtree, "no such folder; give a finished run's"),
}


@pytest.mark.parametrize(("edit", "says"), REFUSED.values(), ids=REFUSED)
def test_an_incomplete_run_is_refused(
    edit: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    edit(run)
    with pytest.raises(DataError) as caught:
        submit_run(run, tmp_path / "boards", BY)
    assert says in str(caught.value)
    assert str(run) in str(caught.value)
    assert not (tmp_path / "boards").exists()


@pytest.mark.parametrize(
    "lost",
    [[("core", 1)], [("", 1), ("seen", 1), ("core", 1)], [("core", 0), ("core", 1), ("core", 2)]],
    ids=["under an attack", "while unlearning", "in every seed of an attack"],
)
def test_a_diverged_run_is_listed_last_without_a_rank(
    lost: list[tuple[str, int]], tmp_path: Path
) -> None:
    root = tmp_path / "boards"
    tiny_board(root)
    run = full_run(tmp_path / "run", Told("wild", after=0.9, end=0.9, seeds=(0, 1, 2), lost=lost))
    edit_row(run, status="diverged")
    edit_record(run, failures=DIVERGED, jobs=[{**JOB, "state": "failed"}])
    done = sent(run, root)
    assert done.code == 0, done.err
    assert checked(root) == ""
    build_site(root, tmp_path / "page")
    table = (root / "known" / "README.md").read_text()
    rows = [line for line in table.splitlines() if "-1.json" in line]
    (place,) = (place for place, line in enumerate(rows) if "wild-1" in line)
    assert rows[place].startswith("| - (diverged) | [wild](wild-1.json)")
    assert ["none-1" in line for line in rows[place + 1 :]] == [True], "only references are below"
    assert '"diverged"' in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (replace(BY, label="My Method"), "entry: use lower case letters"),
        (replace(BY, label="../x"), "entry: use lower case letters"),
        (replace(BY, code="http://a.org"), "code: must be an https:// address"),
        (replace(BY, title="x" * 300), "title: "),
    ],
)
def test_wrong_words_are_usage_errors(about: About, says: str, tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    with pytest.raises(UsageError, match=says):
        submit_run(run, tmp_path / "boards", about)
    assert not (tmp_path / "boards").exists()


def test_an_entry_is_replaced_only_when_told(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", TINY["npo"])
    first = submit_run(run, tmp_path / "boards", BY)
    with pytest.raises(UsageError, match="is there already; give another --label"):
        submit_run(run, tmp_path / "boards", BY)
    newer = full_run(tmp_path / "newer", replace(TINY["npo"], suite={"version": 2}))
    with pytest.raises(UsageError, match="there already, of suite version 1 where the run's is 2;"):
        submit_run(newer, tmp_path / "boards", BY)
    again = submit_run(run, tmp_path / "boards", replace(BY, title="New"), replace=True)
    assert first.path == again.path
    assert read_entry(again.path).title == "New"


def test_a_run_without_one_of_the_attacks_is_refused(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", replace(TINY["npo"], attacks=("core",)))
    with pytest.raises(DataError, match=r"run\.attacks: the suite's seen is missing"):
        submit_run(run, tmp_path / "boards", BY)


# --- a run that was carried out ---


@pytest.fixture(scope="module")
def carried_out() -> Path:
    (path,) = made().glob("*/results.json")
    return path.parent


def test_unlearned_weights_are_exported(carried_out: Path, tmp_path: Path) -> None:
    import torch

    from ilubench.models.checkpoints import apply_changes, load_model

    out = tmp_path / "weights"
    weights = export_weights(read_run(carried_out), out)
    assert [one.seed for one in weights] == list(read_run(carried_out).record.seeds)
    folder = out / f"seed-{weights[0].seed}"
    assert weights[0].sha256 == file_sha256(folder / "model.safetensors")
    assert weights[0].bytes == (folder / "model.safetensors").stat().st_size
    found = load_model(folder, "cpu")
    store = carried_out.parent / "store"
    (target,) = (one for one in (store / "target").iterdir() if one.is_dir())
    before = load_model(target, "cpu")
    expected = load_model(target, "cpu")
    apply_changes(expected, unlearned(store, weights[0].seed))
    ours, theirs = found.state_dict(), expected.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], one) for name, one in before.state_dict().items())
    assert export_weights(read_run(carried_out), tmp_path / "again") == weights


def test_a_whole_checkpoint_under_other_names_than_the_models(tmp_path: Path) -> None:
    from architectures import make_model
    from doubles import differing, weights

    from ilubench.models.checkpoints import load_model, save_changes

    make_model("gpt_neox").save_pretrained(tmp_path)
    other = make_model("gpt_neox", seed=1)
    save_changes(other, tmp_path, tmp_path / "changes")
    written = tmp_path / "model.safetensors"
    write_whole(tmp_path, tmp_path / "changes", "float32", written)
    assert not differing(weights(other), weights(load_model(tmp_path, "cpu")))


def unlearned(store: Path, seed: int) -> Path:
    """The artifact of ilu's unlearned weights."""
    for path in (store / "unlearn").glob("*/DONE"):
        meta = json.loads(path.read_text())["meta"]
        if (meta["method"], meta["seed"]) == ("ilu", seed):
            return path.parent
    raise AssertionError(seed)


def test_weights_are_listed_with_their_addresses(carried_out: Path, tmp_path: Path) -> None:
    to = tmp_path / "boards"
    words = ("--weights-to", str(tmp_path / "weights"), "--weights", "https://example.org/w/")
    done = sent(carried_out, to, *words)
    assert done.code == 0, done.err
    path = to / "tiny" / "ilu-1.json"
    entry = read_entry(path)
    seed = entry.run.seeds[0]
    assert entry.weights[0].url == f"https://example.org/w/seed-{seed}/model.safetensors"
    assert entry.trains_on == ("forget_passages", "retain_passages", "gsm8k.train")
    assert checked(path) == ""
    again = sent(carried_out, to, "--replace", *words[:2])
    assert again.code == 0, again.err
    assert "for the tier verified-weights: publish" in again.err
    assert read_entry(path).weights[0].url == ""


def test_addresses_of_seeds(carried_out: Path, tmp_path: Path) -> None:
    seed = read_run(carried_out).record.seeds[0]
    (one,) = place_weights(carried_out, tmp_path / "a", [f"{seed}=https://a.org/x"])
    assert one.url == "https://a.org/x"
    with pytest.raises(UsageError, match=r"--weights 77=\.\.\.: the run's weights are of seeds"):
        place_weights(carried_out, tmp_path / "b", ["77=https://a.org/x"])
    with pytest.raises(UsageError, match="give --weights-to FOLDER too"):
        place_weights(carried_out, None, ["https://a.org"])


def test_weights_that_the_store_no_longer_has(carried_out: Path, tmp_path: Path) -> None:
    shutil.copytree(carried_out, tmp_path / "run")
    with pytest.raises(DataError, match="no longer has the weights of"):
        export_weights(read_run(tmp_path / "run"), tmp_path / "weights")
