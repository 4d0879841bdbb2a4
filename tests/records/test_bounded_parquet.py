"""Tables of strangers, looked at before they are unpacked."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilubench.errors import DataError
from ilubench.records import bounded_parquet
from ilubench.records.bounded_parquet import check_bounds
from ilubench.records.run_files import read_run_samples


def write(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def test_bounds_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, item=["ab" * 40] * 1000, value=[1.0] * 1000)
    assert check_bounds(file, 80).names == ["item", "value"]
    with pytest.raises(DataError, match="item: a text of 80 bytes; 79 are allowed"):
        check_bounds(file, 79)
    with pytest.raises(DataError, match="has 1000 lines; 999 are allowed"):
        check_bounds(file, 80, rows=999)
    with pytest.raises(DataError, match="would unpack to more than 79999 characters"):
        check_bounds(file, 80, texts=79_999)
    file = tmp_path / "named.parquet"
    pq.write_table(pa.table({"item": [*"abcdabcd"]}), file, row_group_size=4)
    assert check_bounds(file, 80, names=8).names == ["item"]
    with pytest.raises(DataError, match="item: more than 7 different texts"):
        check_bounds(file, 80, names=7)
    monkeypatch.setattr(bounded_parquet, "MAX_EXPANDED", 10)
    with pytest.raises(DataError, match="bytes; 10 are allowed"):
        check_bounds(file, 80)
    with pytest.raises(DataError, match="a column of 3000 values; 100 are allowed"):
        check_bounds(write(tmp_path, lists=[[0] * 300] * 10), 80, rows=10)


def test_samples_of_a_run_are_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_parquet, "MAX_EXPANDED", 10)
    with pytest.raises(DataError, match="bytes; 10 are allowed"):
        read_run_samples(write(tmp_path, item=["a"]))


def test_a_device_is_no_table() -> None:
    with pytest.raises(DataError, match="is no regular file"):
        check_bounds(Path(os.devnull), 80)
