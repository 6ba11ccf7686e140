from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import DataError
from isofire.study import markdown_table, text_table

ROW = {
    "model": "sew_resnet8", "data": "cifar10", "target": "weights", "method": "uniform", "bits": 4,
    "range": "[-10, 10]", "granularity": "tensor", "placement": None, "mode": "ptq", "seed": 0, "n_images": 10_000,
    "T": 4, "accuracy": 0.12345, "accuracy_fp": 0.75, "agreement": 0.9, "mfr": 0.08, "mfr_fp": 0.0854, "dead_05": 0.414,
    "emd_layer_mean": 0.00216, "paired_mae": 0.0123, "spearman": math.nan,
}  # fmt: skip
OTHER = ROW | {
    "target": "membrane", "granularity": "layer", "placement": "post_reset", "mode": "qat", "bits": 1.585,
    "method": "BN re-estimated", "range": "[-1, 1]",
}  # fmt: skip


def test_shared_labels_move_to_the_heading():
    text = text_table([ROW, OTHER])
    head = text.split("\n\n")[0].replace("\n", " ")
    for phrase in ("model sew_resnet8", "data cifar10", "images 10,000", "T 4", "accuracy 75.00 %", "rate 0.0854"):
        assert phrase in head
    assert "cifar10" not in text.split("\n\n")[1]


def test_values_and_units():
    lines = text_table([ROW, OTHER], width=200).splitlines()
    first = next(line for line in lines if line.startswith("weights"))
    assert " ".join(first.split()).endswith("12.35 90.0 0.0800 41.4 0.00216 0.0123 -")
    second = next(line for line in lines if line.startswith("membrane"))
    assert "post_reset" in second
    assert "1.585" in second
    assert "BN re-estimated" in second


def test_width_is_kept_by_leaving_out_the_least_first():
    full = text_table([ROW, OTHER], width=200)
    assert "rank r" in full
    assert "agree %" in full
    narrow = text_table([ROW, OTHER])
    assert "rank r" not in narrow
    assert max(map(len, narrow.splitlines())) <= 100


NAME = st.text("abcdefgh ", max_size=60)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(("model", "method", "range", "data"), NAME)), min_size=1, max_size=5)
)
def test_never_wider_than_100_columns(labels):
    assert max(map(len, text_table([ROW | label for label in labels]).splitlines())) <= 100


def test_missing_values_are_dashes():
    text = markdown_table([ROW | {"emd_layer_mean": None}, OTHER])
    row = next(line for line in text.splitlines() if "uniform" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    head = next(line for line in text.splitlines() if line.startswith("| target"))
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    assert len(cells) == len(titles)
    assert dict(zip(titles, cells, strict=True)) | {"EMD": "-", "rank r": "-", "placement": "-"} == dict(
        zip(titles, cells, strict=True)
    )


def test_markdown_is_rectangular_even_with_bars_in_labels():
    lines = markdown_table([ROW | {"bits": "4 | 8"}, OTHER]).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 4


def test_no_rows():
    for table in (text_table, markdown_table):
        with pytest.raises(DataError, match="at least one row"):
            table([])


def test_drift_over_its_floor_stands_beside_it():
    floor = {"emd_floor": 0.001, "emd_floor_low": 0.0009, "emd_floor_high": 0.0011, "floor": "images"}
    far = {"emd_layer_mean": 0.012, "emd_low": 0.0118, "emd_high": 0.0122, **floor}
    near = {"emd_layer_mean": 0.001, "emd_low": 0.0009, "emd_high": 0.0011, "accuracy": 0.75, **floor}
    text = text_table([ROW | far, OTHER | near], width=200)
    assert "floor image floor" in text.split("\n\n")[0].replace("\n", " ")
    lines = text.splitlines()
    assert "12.0 (10.9-13.3)" in next(line for line in lines if line.startswith("weights"))
    assert next(line for line in lines if line.startswith("weights")).endswith("✗ fails")
    assert next(line for line in lines if line.startswith("membrane")).endswith("✓ keeps")
    assert "✓ within the margins, ✗ beyond them" in text.replace("\n", " ")
    assert max(map(len, text_table([ROW | far, OTHER | near]).splitlines())) <= 100
    assert "| 12.0 (10.9-13.3) |" in markdown_table([ROW | far, OTHER | near])
    # of rows without a floor nothing is known of firing
    assert "? undecided" in text_table([ROW | {"accuracy": 0.75}, OTHER | {"accuracy": 0.75}])
    assert "÷floor" not in text_table([ROW, OTHER])


@pytest.mark.parametrize("width", [60, 72, 80, 100, 200])
def test_no_word_is_cut_and_rows_that_differ_in_an_option_can_be_told(width):
    rows = [ROW | {"method": "gptq", "granularity": "channel", "options": option} for option in (None, "correct=bias")]
    rows += [OTHER, ROW | {"target": "none", "method": "continued", "bits": 32, "mode": "qat"}]
    text = text_table(rows, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for phrase in ("correct=bias", "BN re-estimated", "post_reset", "continued", "12.35", "0.00216", "✗ fails"):
        assert phrase in text


def test_the_setting_stands_above_its_numbers_where_a_line_is_too_short():
    lines = text_table([ROW, OTHER, ROW | {"target": "none", "method": "continued", "bits": 32}], 72).splitlines()
    place = lines.index("membrane BN re-estimated 1.585 bits [-1, 1] per layer post_reset qat")
    assert lines[place + 1].split()[0] == "12.35"
    assert any(line.startswith("continued [-10, 10]") for line in lines), "a control has no bits"
