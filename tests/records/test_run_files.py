"""A stranger's folder: whatever its files say, a reader refuses it and names file and field."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from finished_runs import Told, edit_record, edit_samples, write_run
from runs import command

from ilubench.errors import DataError
from ilubench.records import scores
from ilubench.records.finished import read_run
from ilubench.records.keys import file_sha256
from ilubench.records.run_files import read_run_samples
from ilubench.records.scores import SCHEMA, lines_by, plain_samples
from ilubench.records.store import write_json
from ilubench.records.verified import seal
from ilubench.reports.ranking import rank_runs

Edit = Callable[[Path], object]


def record_with(**changes: Any) -> Edit:
    return lambda folder: edit_record(folder, **changes)


def row_with(change: Callable[[dict[str, Any]], object]) -> Edit:
    """The row changed in place, and no samples that would tell."""

    def edit(folder: Path) -> None:
        record = json.loads((folder / "results.json").read_text())
        change(record["rows"]["FQ"])
        edit_record(folder, rows=record["rows"])
        (folder / "samples.parquet").unlink()

    return edit


def samples_with(change: Callable[[pa.Table], pa.Table]) -> Edit:
    return lambda folder: edit_samples(folder, change)


def column(name: str, make: Callable[[pa.ChunkedArray], Any]) -> Edit:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, make(table[name]))

    return samples_with(change)


def text(name: str, content: str) -> Edit:
    return lambda folder: (folder / name).write_text(content)


def first_is(value: object) -> Callable[[pa.ChunkedArray], pa.Array]:
    return lambda old: pa.array([value, *old.to_pylist()[1:]], old.type)


DEEP = "[" * 100_000 + "]" * 100_000
NESTED = '{"a":' * 400 + "1" + "}" * 400

RECORDS: dict[str, tuple[Edit, str]] = {
    "no method": (record_with(method={}), "method.use: a method's name, not None"),
    "use is a list": (
        record_with(method={"use": ["a"], "settings": {}}),
        "method.use: a method's name, not ['a']",
    ),
    "use is null": (record_with(method={"use": None, "settings": {}}), "method.use"),
    "settings are null": (record_with(method={"use": "a", "settings": None}), "method.settings"),
    "settings are text": (record_with(method={"use": "a", "settings": "b"}), "method.settings"),
    "settings are nested": (
        record_with(method={"use": "a", "settings": json.loads(NESTED)}),
        "results.json: its values are nested deeper",
    ),
    "attacks are null": (record_with(attacks=None), "attacks: "),
    "an attack twice": (record_with(attacks=["core", "seen", "core"]), "attacks: one is named tw"),
    "an attack is left out": (record_with(attacks=["core"]), "rows.FQ.attacks: seen, core, of a"),
    "a row is null": (record_with(rows={"FQ": None}), "FQ: "),
    "of the future": (record_with(schema_version=9), "schema version 9"),
    "deep": (text("results.json", DEEP), "nested deeper than 64"),
    "a huge number": (
        text("results.json", '{"run": ' + "1" * 5000 + "}"),
        "is too large for a whole number",
    ),
    "a list": (text("results.json", "[1]"), "is no run's record"),
    "a figure beside its interval": (
        row_with(lambda row: row["worst_case"].update(value=99.0)),
        "worst_case: 99 lies outside its own interval",
    ),
    "no utility": (row_with(lambda row: row["utility"].update(kept=[])), "rows.FQ.utility: "),
    "a utility more": (
        row_with(lambda row: row["utility"]["original"].append(row["ra"])),
        "rows.FQ.utility: ",
    ),
    "worst": (
        row_with(lambda row: row["utility"].update(worst=7)),
        "rows.FQ.utility.worst: 7 is the place of none of 1 metrics",
    ),
    "no attacks": (row_with(lambda row: row.update(attacks=[])), "rows.FQ.attacks: none, of a"),
    "RA over others": (row_with(lambda row: row.update(ra_attacks=["core"])), "FQ.ra_attacks: "),
    "a core attack that is none": (
        row_with(lambda row: row.update(ra_core_attacks=["x"])),
        "rows.FQ.ra_core_attacks: ",
    ),
    "core without a figure": (row_with(lambda row: row.update(ra_core=None)), "rows.FQ.ra_core: "),
    "no steps": (
        row_with(lambda row: row["attacks"][0].update(steps=[])),
        "rows.FQ.attacks.seen.steps: must ascend from 0",
    ),
    "a step's utility": (
        row_with(lambda row: row["attacks"][1]["steps"][2].update(utility=[])),
        "rows.FQ.attacks.core.steps: need 1 utility figures each",
    ),
    "not a number": (
        row_with(lambda row: row["ra"].update(value="nan")),
        "rows.FQ.ra.value: nan is no figure",
    ),
    "infinite": (
        row_with(lambda row: row["recovery"].update(high=math.inf)),
        "Infinity is no figure",
    ),
}

SAMPLES: dict[str, tuple[Edit, str]] = {
    "no Parquet": (text("samples.parquet", "hello"), "is no Parquet file, or cut short"),
    "a column is missing": (
        samples_with(lambda table: table.drop_columns(["item"])),
        "item: there are 0 columns of that name, not 1",
    ),
    "a column is there twice": (
        samples_with(lambda table: table.append_column("step", table["step"])),
        "step: there are 2 columns",
    ),
    "seeds are text": (
        column("seed", lambda old: pc.cast(old, pa.string())),
        "seed: its values are string, not int64",
    ),
    "scores are text": (
        column("value", lambda old: pc.cast(old, pa.string())),
        "value: its values are string, not double",
    ),
    "a score is missing": (column("value", first_is(None)), "value: 1 values are missing"),
    "an item is missing": (column("item", first_is(None)), "item: 1 values are missing"),
    "a score is no number": (column("value", first_is(math.nan)), "value: a score is not finite"),
    "a step below 0": (column("step", first_is(-1)), "step: a step is below 0"),
    "a step of no attack": (column("step", first_is(25)), "step: a step without an attack"),
    "another attack": (column("attack", first_is("x")), "attack: x, which the record does not"),
}

CONFIGS: dict[str, tuple[Edit, str]] = {
    "no YAML": (text("config.yaml", "a: ["), "not valid YAML"),
    "a list": (text("config.yaml", "- 1"), "must be a mapping"),
    "no date": (text("config.yaml", "a: !!timestamp 2001-99-99"), "not valid YAML"),
    "deep": (text("config.yaml", "a: " + DEEP), "nested too deeply"),
    "in itself": (text("config.yaml", "suite: &a [*a]"), "an alias names what it stands in"),
    "attacks are numbers": (text("config.yaml", "attacks: {core: 3}"), "core: "),
}


def cases() -> list[Any]:
    """(file, how it is changed, what the error says) of every way to break a folder."""
    return [
        pytest.param(file, *case, id=f"{file}: {name}")
        for file, group in (
            ("results.json", RECORDS),
            ("samples.parquet", SAMPLES),
            ("config.yaml", CONFIGS),
        )
        for name, case in group.items()
    ]


@pytest.mark.parametrize(("file", "edit", "says"), cases())
def test_tampered_folders_are_refused(file: str, edit: Edit, says: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told("none", seeds=(0, 1)))
    edit(folder)
    with pytest.raises(DataError) as caught:
        read_run(folder)
    assert str(folder / file) in str(caught.value)
    assert says in str(caught.value)


LATER: dict[str, tuple[Edit, str]] = {
    "an item twice": (
        samples_with(lambda table: pa.concat_tables([table, table.slice(0, 1)])),
        "reference, no attack, seed 0, step 0, asked.acc: item 'i00' stands there twice",
    ),
    "a metric is missing": (
        samples_with(lambda table: table.filter(pc.not_equal(table["scorer"], "kept"))),
        "samples.parquet lacks ('kept', 'acc')",
    ),
    "nothing": (samples_with(lambda table: table.slice(0, 0)), "samples.parquet: no seed"),
    "an item less": (
        samples_with(lambda table: table.slice(1)),
        "samples.parquet",
    ),
    "a metric that is none": (
        lambda folder: edit_record(
            folder, rows={"F": json.loads((folder / "results.json").read_text())["rows"]["FQ"]}
        ),
        "its suite has no forget metric 'F'",
    ),
}


@pytest.mark.parametrize(("edit", "says"), LATER.values(), ids=LATER)
def test_samples_that_do_not_fit_are_refused(edit: Edit, says: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told("none", seeds=(0, 1)))
    edit(folder)
    with pytest.raises(DataError) as caught:
        rank_runs([read_run(folder)])
    assert str(folder) in str(caught.value)
    assert says in str(caught.value)


def test_the_commands_leave_with_the_code_of_data(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told("none", seeds=(0, 1)))
    edit_record(folder, method={"use": 3, "settings": {}})
    for words in (["table"], ["gates"], ["matched", f"a={folder},{folder}"]):
        last = f"b={folder}" if words[0] == "matched" else str(folder)
        assert command(*words, last).code == 3


def test_columns_of_their_own_are_left_aside(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told("none", seeds=(0, 1)))
    plain = rank_runs([read_run(folder)])
    edit_samples(folder, lambda table: table.append_column("x", table["step"]))
    assert (
        rank_runs([read_run(folder)]).tables[0].rows[0].figures == plain.tables[0].rows[0].figures
    )


def test_what_millions_of_lines_share_is_in_memory_once(tmp_path: Path) -> None:
    """A hundred thousand lines whose names have 300 letters each are 200 MB when spelt out."""
    lines, names = 100_000, [column.name for column in SCHEMA if column.type == pa.string()]
    texts = {name: [f"{name} " * 60] * lines for name in names} | {"attack": [""] * lines}
    figures = {"seed": [0] * lines, "step": [0] * lines, "value": [1.0] * lines}
    table = pa.table(texts | figures).select(SCHEMA.names).cast(SCHEMA)
    file = tmp_path / "samples.parquet"
    pq.write_table(table, file)
    found = read_run_samples(file)
    assert found.nbytes < 70 * lines < table.nbytes / 10
    assert plain_samples(found).equals(table)


def test_samples_of_more_cells_than_any_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory of its own, and a stranger's file may give every line another."""
    table = pa.table({"step": list(range(20)), "seed": [2**40 * n for n in range(20)]})
    assert [line for line, _ in lines_by(table, ("step", "seed"))] == [
        (n, 2**40 * n) for n in range(20)
    ]
    monkeypatch.setattr(scores, "MAX_CELLS", 19)
    with pytest.raises(DataError, match="step: 20 different values; 19 are allowed"):
        list(lines_by(table, ("step", "seed")))
    few = pa.table({"step": [n % 5 for n in range(20)], "seed": [n // 5 for n in range(20)]})
    with pytest.raises(DataError, match="20 combinations of step, seed; 19 are allowed"):
        list(lines_by(few, ("step", "seed")))


def test_columns_of_millions_of_values_do_not_overflow() -> None:
    """The combinations of six columns of 3,000 values are more than a number of 64 bits."""
    values = np.random.default_rng(0).permutation(3000)
    table = pa.table({f"c{n}": np.roll(values, n) for n in range(6)})
    found = {line: places.tolist() for line, places in lines_by(table, table.column_names)}
    expected = list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    assert list(found) == sorted(expected)
    assert all(expected[place] == line for line, (place,) in found.items())


# --------------------------------------------------------------------------- the run's own files


@pytest.mark.parametrize("name", ["results.json", "samples.parquet", "config.yaml", "env.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "deleted"])
def test_a_file_that_is_not_as_the_run_left_it(name: str, damage: str, tmp_path: Path) -> None:
    """The manifest is compared first: whatever a file says, it is named."""
    folder = write_run(tmp_path / "run", Told())
    (folder / "env.json").write_text("{}")
    write_json(
        folder / "DONE", seal({"files": {one: file_sha256(folder / one) for one in LEFT_HERE}})
    )
    assert read_run(folder).rows
    if damage == "changed":
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    elif damage == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    else:
        (folder / name).unlink()
    says = rf"{name} is (damaged|missing); the run's command makes it anew"
    with pytest.raises(DataError, match=says):
        read_run(folder)


LEFT_HERE = ("results.json", "samples.parquet", "config.yaml", "env.json")


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"files": {"results.json": "a"}}', "", '{"sha256": "x", "files": 3}']
)
def test_a_damaged_manifest_is_named(content: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told())
    (folder / "DONE").write_text(content)
    with pytest.raises(DataError, match="DONE is damaged"):
        read_run(folder)


@pytest.mark.parametrize("files", [3, {"../x": "a"}, {"results.json": 5}, ["results.json"]])
def test_a_stranger_s_manifest_names_nothing_else(files: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told())
    write_json(folder / "DONE", seal({"files": files}))
    if isinstance(files, dict) and "results.json" in files:
        with pytest.raises(DataError, match=r"results\.json is damaged"):
            read_run(folder)
    else:
        assert read_run(folder).rows


def test_a_file_too_large_for_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", Told())
    write_json(folder / "DONE", seal({"files": {"config.yaml": "a"}}))
    monkeypatch.setattr("ilubench.records.run_files.MAX_LEFT", 9)
    with pytest.raises(DataError, match=r"results\.json: more than 9 bytes"):
        read_run(folder)


def test_a_device_in_the_place_of_the_manifest(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told())
    (folder / "DONE").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="DONE is damaged"):
        read_run(folder)


@pytest.mark.parametrize(("field", "value"), [("value", 0.5), ("se", 0.0), ("n", 99)])
def test_scores_before_any_attack_follow_from_the_samples(
    field: str, value: float, tmp_path: Path
) -> None:
    """`show` and the page have them, and no row says them."""
    folder = write_run(tmp_path / "run", Told(seeds=(0,)))
    values = [
        line["value"]
        for line in pq.read_table(folder / "samples.parquet").to_pylist()
        if (line["who"], line["attack"], line["scorer"]) == ("method", "", "asked")
    ]
    told = {"estimator": {"kind": "mean"}, "value": np.mean(values), "n": len(values)}
    told |= {"se": np.std(values, ddof=1) / len(values) ** 0.5, "most_chosen": None}
    told |= {"scorer": "asked", "metric": "acc", "who": "method", "seed": 0}
    record = json.loads((folder / "results.json").read_text())
    for changed, says in ((told, "is missing"), (told | {field: value}, f"scores.0.{field}: is")):
        record["scores"] = [changed]
        (folder / "results.json").write_text(json.dumps(record))
        with pytest.raises(DataError, match=says):
            read_run(folder).check_scores()
        for words in (("show",), ("show", "--json"), ("report",)):
            done = command(*words, str(folder))
            assert (done.code, done.out) == (3, "")
