"""Result rows: their columns, and CSV and JSON files of them that read back to the same values."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isofire.errors import DataError
from isofire.files import read_file, write_text
from isofire.firing import measures
from isofire.firing.comparison import EMD_NOISE
from isofire.firing.evidence import kept
from isofire.json_text import to_json_text
from isofire.toml_json import MOST_JSON, parse_json

Row = dict[str, Any]

LABELS = ("model", "data", "target", "method", "bits", "range", "granularity", "placement", "options", "mode", "seed")
SCORES = ("n_images", "T", "accuracy", "accuracy_fp", "agreement")
_INFERENCE = ("synops_p50", "synops_p99", "macs", "weight_kib", "state_kib", "energy_uj")
COST = (
    "synops", "synops_fp", "synops_bound", "synops_left_out", "synops_by_input", *_INFERENCE,
    *(f"{name}_fp" for name in _INFERENCE), "cost_left_out",
)  # fmt: skip
PROVENANCE = ("epochs", "calibration_images", "seconds", "spec", "forward")
_WHOLE = {"seed", "n_images", "T", "epochs", "calibration_images", "images_lost", "images_won"}
_EARLIER = ("emd_bias", "emd_over_floor", "within_noise")
"""Columns that rows of earlier versions have."""
VERDICT = (*kept.COLUMNS, "firing_left_out", "reference")
_WORDS = {"floor", "reference", "keeps_accuracy", "keeps_firing", "kept"}
_TEXT = {
    *LABELS,
    *_WORDS,
    "spec",
    "forward",
    "cell",
    "baseline",
    "firing_left_out",
    "synops_left_out",
    "synops_by_input",
    "cost_left_out",
} - {"bits", "seed"}
_TRUTH = {"within_noise"}
_EMPTY = {"bits", "method", "target"}
"""Columns that a control leaves empty."""
_NEEDED = _EMPTY | {
    "cell", "mode", "seed", "n_images", "T", "accuracy", "accuracy_fp", "mfr", "mfr_fp", "emd_layer_mean", "seconds",
}  # fmt: skip
_VERSION = 1
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def known_columns() -> tuple[str, ...]:
    """The order in files: what was done, every registered measure, how sure that is, how it was made; others follow."""
    return (*LABELS, *SCORES, *measures.columns(), *VERDICT, *EMD_NOISE, *_EARLIER, *COST, *PROVENANCE)


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """`known_columns` that occur in any row, in their order, then the others as they first appear.

    Examples
    --------
    >>> columns_of([{"note": "a", "bits": 4}, {"model": "m", "other": 1}])
    ['model', 'bits', 'note', 'other']
    """
    found = dict.fromkeys(key for row in rows for key in row)
    known = known_columns()
    return [key for key in known if key in found] + [key for key in found if key not in known]


def write_rows(
    folder: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any] | None = None,
    *,
    stem: str = "results",
) -> tuple[Path, Path]:
    """Write `<stem>.csv` and `<stem>.json` (with the environment) whole, each in one stroke.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    texts = to_csv(rows), to_json(rows, environment)
    names = f"{stem}.csv", f"{stem}.json"
    first, second = (write_text(Path(folder) / name, text) for name, text in zip(names, texts, strict=True))
    return first, second


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A heading and a line per row; None is an empty field, NaN is `nan`, floats read back to the same bits."""
    stream = io.StringIO()
    columns = columns_of(rows)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_to_field(name) for name in columns])
    writer.writerows([_to_field(row.get(key)) for key in columns] for row in rows)
    return stream.getvalue()


def to_json(rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any] | None = None) -> str:
    """`{"version": 1, "environment": {...}, "rows": [...]}`; NaN is null, as JSON has none."""
    document = {"version": _VERSION, "environment": dict(environment or {}), "rows": [dict(row) for row in rows]}
    return to_json_text(document)


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of a file that `write_rows` wrote, with the types they had; `.csv` or `.json`.

    In columns that are not in `known_columns`, a CSV field that looks like a number becomes one.

    Raises
    ------
    DataError
        If the file is missing, of another form, or a value is not of its column's type; says where.
    """
    file = Path(path)
    try:
        text = read_file(file, MOST_JSON).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read rows from {file}: {told}; name a file that isofire wrote") from error
    return _from_json(text, file) if file.suffix == ".json" else _from_csv(text, file)


def restored(row: Mapping[str, Any]) -> Row:
    """A row from JSON, where a measure that is null was NaN.

    Examples
    --------
    >>> restored({"spearman": None, "range": None})
    {'spearman': nan, 'range': None}
    """
    numbers = _numbers()
    return {key: math.nan if item is None and key in numbers else item for key, item in row.items()}


def is_row(value: Any) -> bool:
    """Whether values from a file are a finished cell's row: what every reader needs is there, and of its column's type.

    Examples
    --------
    >>> is_row({"cell": "a", "accuracy": "high"})
    False
    """
    return isinstance(value, dict) and value.keys() >= _NEEDED and all(map(_fits, value.keys(), value.values()))


def _fits(column: str, value: Any) -> bool:
    if value is None:
        # a measure that is null was NaN
        return column not in _NEEDED - _EMPTY or column in _numbers()
    if column in _TRUTH:
        return isinstance(value, bool)
    kind: Any = int | float | str
    if column in _TEXT:
        kind = str
    elif column in _WHOLE:
        kind = int
    elif column in {*_numbers(), *EMD_NOISE, *_EARLIER, *VERDICT, *COST}:
        kind = int | float
    return isinstance(value, kind) and not (isinstance(value, bool) and kind != int | float | str)


def _numbers() -> set[str]:
    """Columns of numbers that are NaN, not None, where they do not exist."""
    return {*SCORES, *measures.columns(), "seconds"} - _WHOLE


def _to_field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value)
    # a spreadsheet would take such text for a formula and compute it, whoever named the network so
    return f"'{value}" if str(value).lstrip("'").startswith(_FORMULA) else str(value)


def _text(field: str) -> str:
    return field[1:] if field.startswith("'") and field.lstrip("'").startswith(_FORMULA) else field


def _from_csv(text: str, file: Path) -> list[Row]:
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise DataError(f"{file} is not CSV: {error}; it was cut off or edited") from error
    if not lines or len(set(lines[0])) != len(lines[0]):
        raise DataError(f"{file} has no heading with one name a column; write it with isofire.study.write_rows")
    head = [_text(name) for name in lines[0]]
    if wrong := [number for number, line in enumerate(lines, 1) if len(line) != len(head)]:
        raise DataError(f"{file}, line {wrong[0]}: {len(head)} fields are needed, got {len(lines[wrong[0] - 1])}")
    return [
        {key: _parse(key, field, f"{file}, line {number}") for key, field in zip(head, line, strict=True)}
        for number, line in enumerate(lines[1:], 2)
    ]


def _from_json(text: str, file: Path) -> list[Row]:
    try:
        document = parse_json(text)
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}; it was cut off or edited") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION or not _are_rows(document.get("rows")):
        raise DataError(f"{file} holds no rows of version {_VERSION}; read it with the isofire that wrote it")
    return [restored(row) for row in document["rows"]]


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _parse(column: str, field: str, place: str) -> Any:
    if column in _TEXT:
        return _text(field) or None
    if column in _TRUTH:
        return _truth(field, column, place)
    readers: tuple[Callable[[str], Any], ...] = (int, float, _text)
    if column in _WHOLE:
        readers = (int,)
    elif column in _numbers():
        return _read(float, field or "nan", column, place)
    if field == "":
        return None
    for reader in readers[:-1]:
        try:
            return reader(field)
        except ValueError:
            continue
    return _read(readers[-1], field, column, place)


def _truth(field: str, column: str, place: str) -> bool | None:
    known = {"": None, "True": True, "False": False}
    if field not in known:
        raise DataError(f"{column} must be True, False or empty, got {field!r} ({place})")
    return known[field]


def _read(reader: Callable[[str], Any], field: str, column: str, place: str) -> Any:
    try:
        return reader(field)
    except ValueError as error:
        raise DataError(f"{column} must be a number, got {field!r} ({place})") from error
