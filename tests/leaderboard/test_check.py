"""`ilubench leaderboard check`: silent on honest records, one line on each tampered copy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from runs import command

from ilubench.leaderboard.records.samples import point_to_samples
from ilubench.records import bounded_parquet as bounds
from leaderboards import TINY, attacked_board, edit_json, tiny_board, tiny_entry, verified_entry

Edit = Callable[[Path], object]
ENTRY = "npo-1.json"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board `known` of three entries; npo-1 was verified once. Tests work on copies."""
    root = tmp_path_factory.mktemp("honest") / "leaderboards"
    tiny_board(root)
    verified_entry(root, "npo", replace(TINY["npo"], seeds=(10, 11, 12), noise=5))
    return root


@pytest.fixture
def board(honest: Path, tmp_path: Path) -> Path:
    """A copy of the suite's folder."""
    shutil.copytree(honest, tmp_path / "leaderboards", symlinks=True)
    return tmp_path / "leaderboards" / "known"


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder: size and time of each thing, links not followed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


# --- ways to tamper ---


def record(change: Callable[[dict[str, Any]], object], name: str = ENTRY) -> Edit:
    return lambda folder: edit_json(folder / name, change)


def field(path: str, value: object) -> Edit:
    """A field of npo-1 by its dotted name gets another value."""

    def change(top: Any) -> None:
        *above, last = path.split(".")
        for part in above:
            top = top[int(part) if isinstance(top, list) else part]
        top[int(last) if isinstance(top, list) else last] = value

    return record(change)


def content(change: Callable[[bytes], bytes]) -> Edit:
    """The record's bytes become others."""

    def edit(folder: Path) -> None:
        path = folder / ENTRY
        path.write_bytes(change(path.read_bytes()))

    return edit


def swapped(old: str, new: str) -> Edit:
    """A text of the record's file, which must be in it, becomes another, once."""

    def change(before: bytes) -> bytes:
        assert old.encode() in before
        return before.replace(old.encode(), new.encode(), 1)

    return content(change)


def resampled(change: Callable[[pa.Table], pa.Table], **settings: Any) -> Edit:
    """Other samples, and a pointer that is right about them."""

    def edit(folder: Path) -> None:
        path = folder / "npo-1.parquet"
        pq.write_table(change(pq.read_table(path)), path, **settings)
        repoint(folder, "npo-1.parquet")

    return edit


def repoint(folder: Path, name: str) -> None:
    pointer = point_to_samples(folder, name).model_dump()
    edit_json(folder / ENTRY, lambda entry: entry.update(samples=pointer))


def column(name: str, make: Callable[[pa.ChunkedArray], Any]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, make(table[name]))

    return change


def bomb_of_lines(folder: Path) -> None:
    """Twenty million lines in a few kilobytes."""
    codes = pa.DictionaryArray.from_arrays(
        pa.array(memoryview(bytes(20_000_000)), pa.int8()), pa.array(["method"])
    )
    pq.write_table(pa.table({"who": codes}), folder / "npo-1.parquet", compression="zstd")
    assert (folder / "npo-1.parquet").stat().st_size < 100_000
    repoint(folder, "npo-1.parquet")


def bomb_of_text(folder: Path) -> None:
    """A text of a megabyte that each of a hundred thousand lines has."""
    path = folder / "npo-1.parquet"
    first = pq.read_table(path).slice(0, 1).to_pylist()[0]
    same = pa.array(memoryview(bytes(100_000)), pa.int8())
    columns = {
        name: pa.DictionaryArray.from_arrays(same, pa.array(["x" * 1_000_000]))
        if name == "item"
        else pa.array([value] * 100_000)
        for name, value in first.items()
    }
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000
    repoint(folder, "npo-1.parquet")


def no_parquet(folder: Path) -> None:
    (folder / "npo-1.parquet").write_bytes(b"PAR1 and no more PAR1")
    repoint(folder, "npo-1.parquet")


def copied(folder: Path) -> None:
    """Another entry's run under a name and an id of its own."""
    entry = json.loads((folder / "rmu-1.json").read_text())
    entry.update(entry="copied-1", run={**entry["run"], "run": "known-copied"})
    (folder / "copied-1.json").write_text(json.dumps(entry))


def link(name: str) -> Edit:
    """A file becomes a link to the same content elsewhere."""

    def edit(folder: Path) -> None:
        elsewhere = folder.parents[1] / "elsewhere"
        shutil.move(folder / name, elsewhere)
        (folder / name).symlink_to(elsewhere)

    return edit


def linked_folder(folder: Path) -> None:
    """The samples lie in a folder that is a link."""
    elsewhere = folder.parents[1] / "elsewhere"
    elsewhere.mkdir()
    shutil.move(folder / "npo-1.parquet", elsewhere / "npo-1.parquet")
    (folder / "measured").symlink_to(elsewhere, target_is_directory=True)
    field("samples.path", "measured/npo-1.parquet")(folder)


def suite_is_a_link(folder: Path) -> None:
    shutil.move(folder, folder.parents[1] / "elsewhere")
    folder.symlink_to(folder.parents[1] / "elsewhere", target_is_directory=True)


def pipe(folder: Path) -> None:
    (folder / ENTRY).unlink()
    os.mkfifo(folder / ENTRY)


def sample_pipe(folder: Path) -> None:
    (folder / "npo-1.parquet").unlink()
    os.mkfifo(folder / "npo-1.parquet")


def large(folder: Path) -> None:
    with (folder / ENTRY).open("r+b") as file:
        file.truncate(100_000_000)


def others_samples(folder: Path) -> None:
    """Another entry's samples, with a pointer that is right about them."""
    shutil.copyfile(folder / "rmu-1.parquet", folder / "npo-1.parquet")
    repoint(folder, "npo-1.parquet")


def others_verification(folder: Path) -> None:
    verifications = json.loads((folder / ENTRY).read_text())["verifications"]
    record(lambda entry: entry.update(verifications=verifications), "rmu-1.json")(folder)


def same_run_twice(folder: Path) -> None:
    entry = json.loads((folder / "rmu-1.json").read_text())
    (folder / "rmu-again-1.json").write_text(json.dumps({**entry, "entry": "rmu-again-1"}))


def reported(folder: Path, name: str) -> Path:
    """Write a row of a paper."""
    (folder / "reported").mkdir()
    figure = {"metric": "m", "state": "s", "value": 0.5, "higher_is": "more known"}
    row = {"entry": name, "title": "t", "suite": "known", "model": "m", "source": "paper"}
    more = {"checked": True, "citation": "c", "where": "Table 1", "figures": [figure]}
    path = folder / "reported" / f"{name}.json"
    path.write_text(json.dumps({**row, **more}))
    return path


def same_name_twice(folder: Path) -> None:
    reported(folder, "npo-1")


def attack(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Submits an attack, then changes its record."""
    return lambda folder: edit_json(attacked_board(folder.parent), change)


def report(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Reports a row of a paper, then changes it."""
    return lambda folder: edit_json(reported(folder, "paper"), change)


def left_over(folder: Path) -> None:
    shutil.copyfile(folder / "npo-1.parquet", folder / "other.parquet")


def deep(text: bytes) -> bytes:
    return text.replace(b'"remarks": ""', b'"remarks": ' + b"[" * 5000 + b"]" * 5000)


def value_of(name: str, change: Callable[[float], float]) -> Edit:
    """A figure of the row is changed in all that it says."""

    def edit(entry: dict[str, Any]) -> None:
        figure = entry["run"]["rows"]["FQ"][name]
        figure.update({part: change(figure[part]) for part in ("value", "low", "high")})

    return record(edit)


def reversed_interval(entry: dict[str, Any]) -> None:
    figure = entry["run"]["rows"]["FQ"]["ra"]
    figure["low"], figure["high"] = figure["high"], figure["low"]


def renamed_attack(table: pa.Table) -> pa.Table:
    return column("attack", lambda old: pc.replace_substring(old, "core", "unnamed"))(table)


def one_seed_better(table: pa.Table) -> pa.Table:
    """The method's scores of one seed, before and during the attacks, look better forgotten."""
    mine = pc.and_(pc.equal(table["who"], "method"), pc.equal(table["scorer"], "asked"))
    mine = pc.and_(mine, pc.equal(table["seed"], 1))
    better = pc.if_else(mine, pc.subtract(table["value"], 0.1), table["value"])
    return column("value", lambda _: better)(table)


def fewer_items(table: pa.Table) -> pa.Table:
    return table.filter(pc.not_equal(table["item"], "i03"))


FIELDS: list[tuple[str, object, str]] = [
    ("title", "a\nb", "title: has the control character U+000A"),
    ("submission.by", "\x1b[31mred", "submission.by: has the control"),
    ("title", "a\u202eb", "title: has the control character U+202E"),
    ("title", "a\ud800", "title: has the control character U+D800"),
    ("run.engine", "hf\n# x", "run.engine: has the control"),
    ("title", " ", "title: is empty"),
    ("submission.code", "javascript:alert(1)", "https://"),
    ("entry", "../npo-1", "entry: use lower case letters"),
    ("run.cost", {"steps": float("nan")}, "NaN is no figure"),
    ("run.cost", {"steps": float("inf")}, "Infinity is no figure"),
    ("run.more", 1, "run.more: unknown field"),
    ("schema_version", 2, "schema_version: Entry has schema version 2; this"),
    ("run.schema_version", 9, "schema_version: RunRecord has schema version 9"),
    ("run.seeds.0", "0", "run.seeds.0: must be a whole number, not"),
    ("run.method_version", True, "must be a whole number, not true"),
    ("kind", "reported", "kind: "),
    ("entry", "ours-1", "entry: is 'ours-1'; the file must be ours-1.json"),
    ("run.suite", "mini", "run.suite: is 'mini', and the folder is 'known'"),
    ("samples.path", "../npo-1.parquet", "samples.path: must be the p"),
    ("samples.path", "/etc/x.parquet", "samples.path: must be the plain"),
    ("samples.path", "..\\npo-1.parquet", "samples.path: must be the p"),
    ("samples.path", "C:npo-1.parquet", "samples.path: must be the plain"),
    ("samples.path", "CON.parquet", "samples.path: must be the plain"),
    ("samples.path", "a\x00.parquet", "samples.path: has the control"),
    ("samples.path", "./npo-1.parquet", "samples.path: must be the plain"),
    ("samples.path", "npo-1.json", "samples.path: must be the plain"),
    ("samples.path", "none.parquet", "none.parquet: cannot be read: No such"),
    ("samples.sha256", "0" * 64, "the record says 0000"),
    ("samples.bytes", 17, "bytes, the record says 17"),
    ("samples.bytes", 10**9, "samples.bytes: Input should be less"),
    ("run.rows.FQ.ra.value", 5.0, "ra.value of FQ is 5 by its"),
    ("run.rows.FQ.ra.low", 0.9, "ra.low of FQ is 0.9"),
    ("run.rows.FQ.ra.n_items", 1200, "ra.n_items of FQ is 1200 by its record"),
    ("run.rows.FQ.ra.n_seeds", 30, "ra.n_seeds of FQ is 30 by its record"),
    ("run.rows.FQ.attacks.0", 7, "run.rows.FQ.attacks.0"),
    ("run.rows", {}, "rows"),
    ("run.rows.X", {}, "run.rows.X"),
    ("run.scores.0.value", 0.5, "run.scores.0.value: is 0.5, and"),
    ("run.scores.0.se", 0.0, "run.scores.0.se: is 0.0, and"),
    ("run.scores.0.n", 99, "run.scores.0.n: is 99, and 12 by"),
    ("run.seeds", [0, 1, 2, 7], "config.seeds: are [0, 1, 2], and the run's [0, 1"),
    ("run.seeds", [0, 0, 1], "run.seeds: needs at least one, and each once"),
    ("run.attacks", ["seen"], "attack"),
    ("config.method", {"beta": 1}, "config.method: other settings than"),
    (
        "config.suite.primary_forget.0.chance",
        0.5,
        "forget_chance of FQ is 1 by its record and 0.5 by its samples",
    ),
    ("run.cost", {"steps": -1.0}, "run.cost.steps: -1.0 is below 0"),
    (
        "run.failures",
        [{"label": "l", "kind": "JobError", "message": "m"}],
        "run.failures: 1 jobs failed, first 'l' ('JobError')",
    ),
    ("run.failures", [{"label": "l", "kind": "DivergedError", "message": "m"}], "run.rows"),
    ("run.engine", "hff", "run.engine: no 'hff'; did you mean 'hf'?"),
    ("trains_on", [], "trains_on: text is missing, which the meth"),
    ("trains_on", ["text", "tex"], "trains_on: no data role 'te"),
    ("run.seen", ["core"], "trains_on: train is missing, which the"),
    (
        "weights",
        [{"seed": 9, "sha256": "0" * 64, "bytes": 5}],
        "weights: must be of the run's seeds",
    ),
    ("run.method_version", 2, "must end with the me"),
    (
        "verifications.0.comparisons.1.low",
        -9.0,
        "verifications.0.comparisons.1.low: is -9, and",
    ),
    ("verifications.0.run.rows.FQ.ra.value", 0.9, "ra.value of FQ is 0.9"),
    ("verifications.0.kind", "weights", "verifications.0.kind: the entry has no weights"),
]
"""Field of npo-1, its new value, what is said of it."""

FORMS: dict[str, tuple[Edit, str]] = {
    "a key twice": (swapped('"kind": "entry"', '"kind": "entry", "kind": "entry"'), "'kind' is gi"),
    "100 MB": (large, "has 100000000 bytes; 4000000 are allowed"),
    "1e999": (swapped('"cost": {}', '"cost": {"steps": 1e999}'), "'1e999' is too large"),
    "a huge number": (swapped('"seed": 0', f'"seed": {"9" * 5000}'), "is too large for a whole"),
    "an unknown field": (
        record(lambda entry: entry.update(titel="x")),
        "titel: unknown field; did",
    ),
    "nested deeply": (content(deep), "nested deeper than 64"),
    "no UTF-8": (content(lambda text: text.replace(b"npo", b"np\xff", 1)), "no UTF-8 text"),
    "a byte order mark": (content(lambda text: b"\xef\xbb\xbf" + text), "byte order mark"),
    "YAML": (content(lambda _: b"kind: entry\nentry: npo-1\n"), "no JSON: "),
    "a list": (content(lambda text: b"[" + text + b"]"), "a record is an object"),
    "nothing": (content(lambda _: b""), "no JSON: "),
    "a record that is a link": (link(ENTRY), "is a link"),
    "a suite that is a link": (suite_is_a_link, "is a link"),
    "a pipe": (pipe, "is no regular file"),
}

POINTERS: dict[str, tuple[Edit, str]] = {
    "samples that are a link": (link("npo-1.parquet"), "npo-1.parquet is a link"),
    "a folder that is a link": (linked_folder, "measured is a link"),
    "samples that are a pipe": (sample_pipe, "is no regular file"),
}

SAMPLES: dict[str, tuple[Edit, str]] = {
    "twenty million lines": (bomb_of_lines, "has 20000000 lines; 10000000 are allowed"),
    "a text for all lines": (bomb_of_text, "item: a text of 1000000 bytes; 500 are allowed"),
    "a column more": (
        resampled(lambda table: table.append_column("more", table["item"])),
        "'more': samples have no such column",
    ),
    "nested values": (
        resampled(column("value", lambda old: pa.array([[x] for x in old.to_pylist()]))),
        "value: its values are list<",
    ),
    "values as text": (
        resampled(column("value", lambda old: pc.cast(old, pa.string()))),
        "value: its values are string, not double",
    ),
    "a column less": (resampled(lambda table: table.drop_columns(["step"])), "step: there are 0"),
    "no Parquet": (no_parquet, "is no Parquet file, or cut short"),
    "an attack that the record lacks": (
        resampled(renamed_attack),
        "attack: unnamed, which the record does not name",
    ),
    "another entry's": (others_samples, "of FQ is "),
    "better ones": (resampled(one_seed_better), "of FQ is "),
    "fewer items": (resampled(fewer_items), "of FQ is "),
}

FIGURES: dict[str, tuple[Edit, str]] = {
    "a better figure": (value_of("ra", lambda x: x + 0.1), "ra.value of FQ is 0.65"),
    "an interval the wrong way round": (record(reversed_interval), "ra.low of FQ is"),
    "a verification of another attack": (
        record(
            lambda entry: entry["verifications"][0]["run"].update(
                attacks=["x"], protocol={"x": {"use": "finetune"}}
            )
        ),
        "run.attacks: no 'x' in the suite",
    ),
    "scores beyond all numbers": (
        resampled(column("value", lambda old: pc.multiply(old, 1e308))),
        ENTRY,
    ),
    "a suite that asks something else": (
        record(lambda entry: entry["config"]["suite"]["primary_forget"][0].update(scorer="kept")),
        "of FQ is ",
    ),
    "a score less": (
        record(lambda entry: entry["run"]["scores"].pop()),
        "run.scores: method, seed",
    ),
    "a score twice": (
        record(lambda entry: entry["run"]["scores"].append(entry["run"]["scores"][0])),
        "of the same as scores.0",
    ),
    "a seed less": (
        record(
            lambda entry: [
                entry[place].update(seeds=[0, 1]) for place in ("run", "config", "environment")
            ]
        ),
        "seed: 2, which the record does not name",
    ),
    "seen by what it trains on": (
        record(
            lambda entry: (
                entry["config"]["suite"]["attacks"]["core"].update(data={"train": {"path": "x"}})
                or entry.update(trains_on=["text", "core.train"])
            )
        ),
        "run.seen: is 'none', and core by what it trains on",
    ),
}

VERIFIED: dict[str, tuple[Edit, str]] = {
    "a comparison less": (
        record(lambda entry: entry["verifications"][0]["comparisons"].pop()),
        "verifications.0.comparisons: must be of",
    ),
    "the entry's own seeds": (
        record(lambda entry: entry["verifications"][0].update(seeds=[0, 1, 2])),
        "verifications.0.seeds: are not those of its run",
    ),
    "of its own run": (
        record(
            lambda entry: entry["verifications"][0].update(
                run=entry["run"], seeds=entry["run"]["seeds"], samples=entry["samples"]
            )
        ),
        "verifications.0.seeds: are not fresh",
    ),
}

ATTACKED: dict[str, tuple[Edit, str]] = {
    "an entry that is not there": (
        attack(lambda one: one["results"][0].update(entry="nobody-1")),
        "results.0.",
    ),
    "an entry twice": (
        attack(lambda one: one["results"].append(one["results"][0])),
        "an entry is attacked twice",
    ),
    "a lower figure": (
        attack(lambda one: one["results"][0]["run"]["rows"]["FQ"]["ra"].update(value=0.1)),
        "ra.value of FQ is 0.1 by its record",
    ),
    "another method": (
        attack(lambda one: one["results"][0]["run"]["method"].update(use="rmu")),
        "results.0.run.method: is not the entry's",
    ),
    "another version of the suite": (
        attack(lambda one: one.update(suite_version=2)),
        "results.0.run.suite_version: the attack is on version 2",
    ),
    "a name that leads out": (
        attack(lambda one: one["results"][0].update(entry="../../x")),
        "results.0.entry: use lower case letters",
    ),
    "samples of another size": (
        attack(lambda one: one["results"][0]["samples"].update(bytes=3)),
        "the record says 3",
    ),
    "an unknown field": (attack(lambda one: one.update(rank=1)), "rank: unknown field"),
}

REPORTS: dict[str, tuple[Edit, str]] = {
    "no citation": (report(lambda row: row.update(citation=" ")), "citation: is empty"),
    "a figure twice": (
        report(lambda row: row["figures"].append(row["figures"][0])),
        "figures.1: 'm' of 's' stands there twice",
    ),
    "another suite": (report(lambda row: row.update(suite="mini")), "suite: is 'mini', and the"),
    "too large": (report(lambda row: row["figures"][0].update(value=10**30)), "too large for a"),
}

BOARDS: dict[str, tuple[str, Edit, str]] = {
    "another entry's verification": (
        "rmu-1.json",
        others_verification,
        "verifications.0.run.method: is not the entry's",
    ),
    "one run under two names": ("known", same_run_twice, "are the same run"),
    "one run under two ids": ("rmu-1.json", copied, "samples: are those of copied-1.json, too"),
    "one name twice": ("reported/npo-1.json", same_name_twice, "npo-1.json has the same name"),
    "samples that nobody points to": ("other.parquet", left_over, "no record points to it"),
}


def cases() -> list[Any]:
    groups = (FORMS, POINTERS, SAMPLES, FIGURES, VERIFIED)
    found = [pytest.param(*case, id=name) for group in groups for name, case in group.items()]
    return found + [pytest.param(field(path, value), says, id=path) for path, value, says in FIELDS]


def one_line(board: Path, path: Path, says: str) -> None:
    """The check of a path finds one thing, says it in one line, and leaves all as it was."""
    before = everything(board.parents[1])
    found = command("leaderboard", "check", str(path))
    assert found.code == 3
    assert found.err == f"{path}: 1 problem in 1 file; next: mend it, or submit again\n"
    (line,) = found.out.splitlines()
    assert says in line
    assert line.isprintable()
    assert everything(board.parents[1]) == before


# --- tests ---


def test_honest_records_pass(honest: Path) -> None:
    before = everything(honest)
    done = command("leaderboard", "check", str(honest))
    told = f"{honest}: every record holds, and every figure follows from its samples\n"
    assert (done.out, done.err) == ("", told)
    found = command("leaderboard", "check", str(honest / "known" / ENTRY), "--json")
    assert (found.code, found.json) == (0, [])
    assert everything(honest) == before


@pytest.mark.parametrize(("edit", "says"), cases())
def test_a_tampered_entry_is_one_line(edit: Edit, says: str, board: Path) -> None:
    edit(board)
    one_line(board, board / ENTRY, says)


@pytest.mark.parametrize(("name", "edit", "says"), BOARDS.values(), ids=BOARDS)
def test_a_tampered_board_is_one_line(name: str, edit: Edit, says: str, board: Path) -> None:
    edit(board)
    one_line(board, board.parent, says)
    assert f"{name}: " in command("leaderboard", "check", str(board)).out


@pytest.mark.parametrize(("edit", "says"), ATTACKED.values(), ids=ATTACKED)
def test_a_tampered_attack_is_one_line(edit: Edit, says: str, board: Path) -> None:
    edit(board)
    one_line(board, board / "attacks" / "extra.json", says)


@pytest.mark.parametrize(("edit", "says"), REPORTS.values(), ids=REPORTS)
def test_a_tampered_report_is_one_line(edit: Edit, says: str, board: Path) -> None:
    edit(board)
    one_line(board, board / "reported" / "paper.json", says)


def test_honest_attacks_and_reports_pass(board: Path) -> None:
    attacked_board(board.parent)
    reported(board, "paper")
    assert command("leaderboard", "check", str(board)).out == ""


def test_scripts_are_text(board: Path) -> None:
    script = "<script>alert('x')</script> | [a](javascript:b) ${{ c }}"
    for place in ("title", "submission.by", "submission.remarks", "submission.citation"):
        field(place, script)(board)
    assert command("leaderboard", "check", str(board / ENTRY)).code == 0


def test_samples_that_say_they_unpack_to_much(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_EXPANDED", 1000)
    one_line(board, board / ENTRY, "bytes; 1000 are allowed")


def test_each_tampered_entry_has_its_line(board: Path) -> None:
    for name in ("npo-1.json", "rmu-1.json"):
        record(lambda entry: entry.update(title=" "), name)(board)
    found = command("leaderboard", "check", str(board.parent), "--json")
    assert found.code == 3
    assert [Path(one["file"]).name for one in found.json] == ["npo-1.json", "rmu-1.json"]
    assert all("title: is empty" in one["problem"] for one in found.json)


def test_records_deeper_than_a_suite_are_not_passed_over(board: Path) -> None:
    below = board / "a" / "b"
    below.mkdir(parents=True)
    shutil.copyfile(board / ENTRY, below / ENTRY)
    found = command("leaderboard", "check", str(board.parent))
    assert found.code == 3
    assert f"a{os.sep}b" in found.out


def test_unlike_entries_cannot_stand_in_one_table(board: Path) -> None:
    told = replace(TINY["rmu"], noise=9, steps=(10, 20, 30, 40))
    tiny_entry(board.parent, "other", told)
    one_line(board, board, "differ in the scored steps of")


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    found = command("leaderboard", "check", str(tmp_path))
    assert (found.code, found.out) == (3, "")
    assert "no record in it" in found.err
    assert command("leaderboard", "check", str(tmp_path / "x")).code == 3
