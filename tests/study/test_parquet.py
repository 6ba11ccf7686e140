"""Parquet: types that survive, by either package, and the cure where neither is there."""

from __future__ import annotations

import importlib.util

import pytest

from isofire.errors import DataError, OutputError
from isofire.study import write_parquet
from isofire.study.parquet import typed_columns

ROWS = [
    {"method": "lsq", "bits": 4, "accuracy": 0.5, "seed": 0, "kept": None, "flag": True},
    {"method": "gptq", "bits": "4 | 2", "accuracy": 1, "seed": 1, "kept": None, "flag": None},
]


def test_each_column_has_one_type():
    assert typed_columns(ROWS) == {
        "method": ["lsq", "gptq"], "bits": ["4", "4 | 2"], "accuracy": [0.5, 1.0], "seed": [0, 1],
        "kept": [None, None], "flag": [True, None],
    }  # fmt: skip
    assert [type(value) for value in typed_columns(ROWS)["accuracy"]] == [float, float]


@pytest.mark.parametrize("package", ["pyarrow", "polars"])
def test_what_is_written_is_read_again(tmp_path, monkeypatch, package):
    reader = pytest.importorskip("pyarrow.parquet" if package == "pyarrow" else "polars")
    known = importlib.util.find_spec
    monkeypatch.setattr("isofire.study.parquet.find_spec", lambda name: known(name) if name == package else None)
    path = write_parquet(tmp_path / "rows.parquet", ROWS)
    if package == "pyarrow":
        found = reader.read_table(path).to_pydict()
    else:
        found = reader.read_parquet(path).to_dict(as_series=False)
    assert found == typed_columns(ROWS)


def test_without_either_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("isofire.study.parquet.find_spec", lambda _: None)
    with pytest.raises(OutputError, match=r"pip install 'isofire\[parquet\]'"):
        write_parquet(tmp_path / "rows.parquet", ROWS)
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="at least one row"):
        write_parquet(tmp_path / "rows.parquet", [])
