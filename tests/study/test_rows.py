from __future__ import annotations

import csv
import io
import json
import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import DataError, OutputError
from isofire.firing.comparison import EMD_NOISE
from isofire.json_text import plain
from isofire.study import known_columns, read_rows, to_csv, to_json, write_rows
from isofire.study.rows import COST, LABELS, VERDICT, columns_of, is_row

TEXT = st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
NUMBER = st.floats(allow_infinity=False)
WHOLE = st.integers(-(2**60), 2**60)
KINDS = {
    "bits": st.integers(1, 32) | st.just(1.585) | st.sampled_from(["4 | 8", None]),
    **dict.fromkeys(("seed", "n_images", "T", "epochs", "calibration_images"), st.none() | WHOLE),
    "seconds": NUMBER,
    **dict.fromkeys(
        (*EMD_NOISE, *COST, *VERDICT, "emd_bias", "emd_over_floor"),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    "within_noise": st.none() | st.booleans(),
    **dict.fromkeys(("images_lost", "images_won"), st.none() | WHOLE),
    **dict.fromkeys(("floor", "reference", "keeps_accuracy", "keeps_firing", "kept"), TEXT),
    "firing_left_out": TEXT,
    "synops_left_out": TEXT,
    "synops_by_input": TEXT,
    "cost_left_out": TEXT,
    **dict.fromkeys(("spec", "forward"), TEXT),
}
ROW = st.fixed_dictionaries({key: KINDS.get(key, TEXT if key in LABELS else NUMBER) for key in known_columns()})


def same(a: dict, b: dict) -> bool:
    def equal(x, y):
        both_nan = isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)
        return both_nan or (type(x) is type(y) and x == y)

    return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, max_size=4))
def test_round_trip_keeps_values_and_types(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    for path in write_rows(folder, rows, {"torch": "2"}):
        found = read_rows(path)
        assert len(found) == len(rows)
        assert all(same(a, b) for a, b in zip(found, rows, strict=True)), path.suffix


def test_csv_is_plain_csv():
    text = to_csv([{"accuracy": 0.1, "method": 'a,"b"', "model": None}])
    assert list(csv.reader(text.splitlines())) == [["model", "method", "accuracy"], ["", 'a,"b"', "0.1"]]


def test_json_has_no_nan_and_carries_the_environment():
    document = json.loads(to_json([{"spearman": math.nan}], {"torch": "2"}), parse_constant=pytest.fail)
    assert document == {"version": 1, "environment": {"torch": "2"}, "rows": [{"spearman": None}]}


def test_own_columns_follow_in_the_order_they_came():
    rows = [{"zeta": 1, "accuracy": 0.5}, {"alpha": "x", "model": "m"}]
    assert columns_of(rows) == ["model", "accuracy", "zeta", "alpha"]
    assert to_csv(rows).splitlines()[2] == "m,,,x"


def test_a_truth_that_is_none_is_told(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("model,within_noise\nm,perhaps\n")
    with pytest.raises(DataError, match=r"within_noise must be True, False or empty, got 'perhaps'.*line 2"):
        read_rows(path)


def test_own_columns_are_read_as_what_they_look_like(tmp_path):
    paths = write_rows(tmp_path, [{"model": "7", "lambda": 0.25, "n": 3, "note": "x", "empty": None}])
    assert read_rows(paths[0]) == [{"model": "7", "lambda": 0.25, "n": 3, "note": "x", "empty": None}]


def test_columns_asked_for_by_the_study_are_there():
    wanted = [
        "model", "data", "target", "method", "bits", "range", "granularity", "placement", "options", "mode", "seed",
        "n_images", "T", "accuracy", "accuracy_fp", "agreement", "mfr", "mfr_fp", "dead_00", "dead_01", "dead_05",
        "emd_weighted", "emd_layer_mean", "emd_pooled", "emd_max", "paired_mae", "shift", "shape", "reshuffle",
        "spearman",
    ]  # fmt: skip
    found = known_columns()
    assert list(found[: len(wanted)]) == wanted
    assert len(set(found)) == len(found)
    assert {"dead_00_fp", *EMD_NOISE, *COST} < set(found)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "model,accuracy\nm,high\n", r"accuracy must be a number, got 'high' .*line 2"),
        ("a.csv", "model,seed\nm,1.5\n", "seed must be a number"),
        ("a.csv", "model,accuracy\nm\n", r"line 2: 2 fields"),
        ("a.csv", "", "no heading"),
        ("a.csv", "model,model\n", "no heading"),
        ("a.json", '{"version": 1, "rows": [{}', "not JSON"),
        ("a.json", '{"version": 2, "rows": []}', "version 1"),
        ("a.json", '{"version": 1, "rows": [3]}', "version 1"),
        ("a.json", "[]", "version 1"),
    ],
)
def test_damaged_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / name)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_rows(tmp_path / "no.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read"):
        read_rows(tmp_path / "b.csv")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_rows(tmp_path / "file" / "x", [{"model": "m"}])


def test_nothing_is_left_of_a_failed_write(tmp_path):
    write_rows(tmp_path, [{"model": "old"}])
    with pytest.raises(TypeError):
        write_rows(tmp_path, [{"model": object()}])
    assert read_rows(tmp_path / "results.json") == read_rows(tmp_path / "results.csv") == [{"model": "old"}]
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "results.json"}


@given(st.recursive(st.floats() | st.text(string.ascii_letters), lambda s: st.lists(s) | st.tuples(s), max_leaves=8))
def test_plain_is_json_without_constants(value):
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''=1", "'quoted", "a=1", "=cmd|' /C calc'!A0"]
)
def test_text_that_a_spreadsheet_would_compute_is_quoted_and_reads_back(tmp_path, text: str) -> None:
    rows = [{"model": text, "bits": 4, "shift": -0.5, "own": text, f"{text}x": 1}]
    write_rows(tmp_path, rows, stem="r")
    cells = next(csv.reader(io.StringIO((tmp_path / "r.csv").read_text().splitlines()[1])))
    assert not any(cell[:1] in "=+-@\t" for cell in cells if cell != "-0.5")
    assert "-0.5" in cells
    assert read_rows(tmp_path / "r.csv") == rows


WHOLE_ROW = {
    "cell": "a", "mode": "ptq", "seed": 0, "n_images": 3, "T": 4, "accuracy": 0.5, "accuracy_fp": 0.5, "mfr": 0.1,
    "mfr_fp": 0.1, "emd_layer_mean": None, "seconds": 1.5, "bits": "4 | 8", "method": None, "target": "none",
    "own": "x", "within_noise": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"accuracy": "high"}, False),
        ({"accuracy": [1]}, False),
        ({"accuracy": True}, False),
        ({"seed": 0.5}, False),
        ({"seed": None}, False),
        ({"mode": None}, False),
        ({"method": 3}, False),
        ({"bits": 4}, True),
        ({"bits": [4]}, False),
        ({"own": {}}, False),
        ({"within_noise": 1}, False),
    ],
)
def test_what_is_a_row(change: dict, fits: bool) -> None:
    assert is_row({**WHOLE_ROW, **change}) is fits
    for missing in ("cell", "mode", "accuracy", "seconds"):
        assert not is_row({key: value for key, value in WHOLE_ROW.items() if key != missing})
    assert not is_row([])
    assert not is_row(None)
