"""Rows as a Parquet file, which pandas, polars and R read with its types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isofire.errors import DataError, OutputError
from isofire.files import write_atomic
from isofire.study.rows import columns_of

Column = list[Any]


def typed_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Columns of one type each, None where a row has no value: booleans, whole numbers, numbers, else texts.

    Examples
    --------
    >>> typed_columns([{"bits": 4, "seed": 0}, {"bits": "4 | 2"}])
    {'bits': ['4', '4 | 2'], 'seed': [0, None]}
    """
    return {name: _of_one_type([row.get(name) for row in rows]) for name in columns_of(rows)}


def write_parquet(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows by pyarrow, or polars where that is installed instead.

    Raises
    ------
    DataError
        If there is no row.
    OutputError
        If neither package is installed, or the file cannot be written.
    """
    if not rows:
        raise DataError("a Parquet file needs at least one row, got none")
    columns = typed_columns(rows)
    if find_spec("pyarrow") is not None:
        table = import_module("pyarrow").table(columns)
        return write_atomic(path, lambda place: import_module("pyarrow.parquet").write_table(table, place))
    if find_spec("polars") is not None:
        frame = import_module("polars").DataFrame(columns, infer_schema_length=None)
        return write_atomic(path, lambda place: frame.write_parquet(place))
    raise OutputError(
        f"writing {path} needs pyarrow or polars, and neither is installed; pip install 'isofire[parquet]'"
    )


def _of_one_type(values: Column) -> Column:
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return values
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if numbers and all(isinstance(value, int) for value in known):
        return values
    convert = float if numbers else str
    return [None if value is None else convert(value) for value in values]
