"""Files show the figure of the page: the same places, marks, references and front."""

from __future__ import annotations

import io
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from isofire.errors import DataError, OutputError
from isofire.firing.evidence.outcome import Margins
from isofire.report import figures, scatter_figure
from isofire.report.axes import BOTTOM, LEFT, RIGHT, TOP, far_below
from isofire.report.entries import entries_of
from isofire.report.gained import memory_figure
from isofire.report.palette import COLOURS, Palette
from isofire.report.scatter import scatter
from isofire.report.study import Study
from isofire.study import text_table

pytest.importorskip("matplotlib")


@pytest.fixture
def rows(folders):
    return [
        folders.row("a", spec="a", bits=4, emd_layer_mean=0.004, accuracy=0.82),
        folders.row("b", spec="b", bits=2, emd_layer_mean=0.02, accuracy=0.7, mode="qat"),
        folders.row("c", spec="c", bits=2, method="lqnet", emd_layer_mean=0.01, accuracy=0.85),
        folders.control(emd_layer_mean=0.002),
    ]


def points(figure):
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_files_and_page_show_the_same(rows) -> None:
    figure, page = scatter_figure(rows), scatter("", entries_of(rows), Palette(rows))
    axis = figure.axes[0]
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points(figure)] == [(m["x"], m["y"]) for m in page["marks"]]
    assert [text.get_text() for text in axis.get_xticklabels()] == [text for _, text in page["x_ticks"]]
    assert [text.get_text() for text in axis.get_yticklabels()] == [text for _, text in page["y_ticks"]]
    assert (axis.get_xlim(), axis.get_ylim()) == ((LEFT, RIGHT), (BOTTOM, TOP))
    front = next(
        line for line in axis.lines if len(line.get_xdata()) == len(page["front"]) > 1 and line.get_color() == "black"
    )
    assert list(zip(*front.get_data(), strict=True)) == page["front"]
    assert {shade["label"] for shade in page["shades"]} <= {text.get_text() for text in axis.texts}
    assert "spikes per neuron per step" in axis.get_xlabel()
    assert "n = 4,000 test images" in axis.get_title(loc="left")


def test_less_drift_is_left_and_more_accuracy_is_up(rows) -> None:
    places = {mark["cell"]: (mark["x"], mark["y"]) for mark in scatter("", entries_of(rows), Palette(rows))["marks"]}
    assert places["a"][0] < places["c"][0] < places["b"][0]
    assert places["c"][1] < places["a"][1] < places["b"][1]
    # equal factors of drift are equal lengths
    step = (places["b"][0] - places["c"][0]) / math.log(2)
    assert (places["c"][0] - places["a"][0]) / math.log(2.5) == pytest.approx(step, rel=0.01)


def test_mode_bits_and_method_can_be_told_apart(rows) -> None:
    figure = scatter_figure(rows)
    four, trained, other, control = points(figure)
    assert four.get_markerfacecolor() == "none"
    assert trained.get_markerfacecolor() == trained.get_color() == four.get_color() == COLOURS[0]
    assert other.get_color() == COLOURS[1]
    assert four.get_marker() != trained.get_marker() == other.get_marker()
    assert control.get_marker() == "x"
    said = {"2 bit", "4 bit", "open: post-training", "filled: with training", "control: nothing quantized"}
    assert said <= set(labels(figure))


def test_intervals_are_drawn_where_rows_have_them(folders) -> None:
    with_ends = folders.row("a", emd_layer_mean=0.01, emd_low=0.008, emd_high=0.013)
    axis = scatter_figure([with_ends]).axes[0]
    (ends,) = (line.get_segments()[0] for line in axis.collections if hasattr(line, "get_segments"))
    (mark,) = scatter("", entries_of([with_ends]), Palette([with_ends]))["marks"]
    assert ends[:, 0].tolist() == list(mark["ends"])
    assert mark["ends"][0] < mark["x"] < mark["ends"][1]
    without = [with_ends | {"emd_low": None, "emd_high": None}]
    assert scatter("", entries_of(without), Palette(without))["marks"][0]["ends"] is None


def test_no_drift_at_all_is_drawn_at_the_left_edge(folders) -> None:
    found = [folders.row("a", spec="a", emd_layer_mean=0.0), folders.row("b", spec="b", emd_layer_mean=0.01)]
    figure = scatter_figure(found, width=3.4)
    figure.savefig(io.BytesIO(), format="png")
    assert points(figure)[0].get_xdata()[0] == LEFT
    assert "0 at the left edge" in figure.axes[0].get_xlabel()


def test_colours_are_by_method_and_shapes_by_bits_and_controls_have_none(folders) -> None:
    def row(**changes):
        return folders.row("a", **changes)

    states = row(target="membrane", method="uniform", bits=2)
    palette = Palette([row(), states, row(bits="2 | 4"), folders.control()])
    assert palette.families == [f"weights: {row()['method']}", "membrane: uniform"]
    assert palette.bits == ["2", "2 | 4", "4"]
    assert [palette.mark(item)["hue"] for item in (row(), states, folders.control())] == [0, 1, None]
    many = Palette([row(method=f"m{i}") for i in range(10)])
    assert len({many.mark(row(method=f"m{i}"))["colour"] for i in range(10)}) == 10


def test_nothing_to_draw() -> None:
    with pytest.raises(DataError, match="at least one row"):
        scatter_figure([])


def test_without_matplotlib_the_error_names_the_extra(rows, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OutputError, match=r"pip install 'isofire\[report\]'"):
        scatter_figure(rows)


def test_controls_alone_are_drawn(folders) -> None:
    figure = scatter_figure([folders.control()])
    FigureCanvasAgg(figure).draw()
    assert "control: nothing quantized" in labels(figure)
    assert not {"open: post-training", "filled: with training", ""} & set(labels(figure))


def cut(figure):
    """Labels, heading and legend, as far as the figure's edges cut them."""
    FigureCanvasAgg(figure).draw()
    (axis,) = figure.axes
    texts = [axis.xaxis.label, axis.yaxis.label, *figure.legends[0].get_texts(), *axis.findobj(Text)]
    ticks = {*axis.get_xticklabels(which="both"), *axis.get_yticklabels(which="both")}
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text() and text not in ticks}
    return [name for name, box in boxes.items() if min(box.x0, box.y0) < 0 or box.x1 > figure.bbox.x1]


@pytest.mark.parametrize("width", [None, 3.4])
def test_no_text_is_cut_and_all_intervals_end_within_the_axis(folders, width) -> None:
    rows = [
        folders.row("a", bits=bits, method=method, mode=mode, emd_layer_mean=x, emd_low=0.6 * x, emd_high=3 * x)
        for bits in (2, 4) for method in ("lsq", "lqnet") for mode, x in (("ptq", 1e-4), ("qat", 0.01))
    ]  # fmt: skip
    rows.append(folders.control())
    assert cut(scatter_figure(rows, width=width)) == []
    ends = [mark["ends"] for mark in scatter("", entries_of(rows), Palette(rows))["marks"]]
    assert LEFT < min(low for low, _ in ends) < max(high for _, high in ends) < RIGHT


def test_a_few_that_fail_leave_the_others_their_room(folders):
    good = [
        folders.row(str(i), spec=str(i), emd_layer_mean=0.001 * (i + 1), accuracy=0.97 + i / 1000) for i in range(6)
    ]
    base = {"accuracy_fp": 0.975}
    rows = [row | base for row in [*good, folders.row("bad", spec="bad", emd_layer_mean=0.3, accuracy=0.166)]]
    found = scatter("", entries_of(rows), Palette(rows))
    *others, failed = found["marks"]
    assert (failed["y"], failed["below"]) == (BOTTOM - 9, "↓ 16.6 %")
    assert found["below"] == [(failed["x"], failed["y"], "↓ 16.6 %", True)]
    assert all(mark["below"] is None and mark["y"] < BOTTOM - 18 for mark in others)
    assert max(m["y"] for m in others) - min(m["y"] for m in others) > 60
    figure = scatter_figure(rows)
    assert "↓ 16.6 %" in [text.get_text() for text in figure.axes[0].texts]
    assert not any(point.get_clip_on() for point in points(figure))
    # where many fail, or none far, the axis has them all
    many = [row | base | {"accuracy": 0.17 + i / 100} for i, row in enumerate(good)]
    for all_of in (rows[:-1], [*rows, *many]):
        assert scatter("", entries_of(all_of), Palette(all_of))["below"] == []


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(500, 1000))
def test_at_most_a_quarter_lies_below_an_axis(right, base):
    shares, anchors = [n / 1000 for n in right], [base / 1000 - 0.01, base / 1000]
    cut = far_below(shares, anchors, 1000)
    if cut is not None:
        assert 4 * sum(share <= cut for share in shares) <= len(shares)
        assert cut < min(anchors)


def test_the_name_of_a_reference_lies_on_no_mark_where_one_end_is_free(folders):
    floor = {"emd_floor": 0.005, "emd_floor_low": 0.004, "emd_floor_high": 0.006, "floor": "images", "accuracy_fp": 0.9}
    for accuracy, high in ((0.88, True), (0.93, False)):
        shares = {"at": accuracy, "left": 0.88, "right": 0.93}
        drifts = {"at": 0.0099, "left": 0.0005, "right": 0.5}
        rows = [folders.row(k, spec=k, emd_layer_mean=drifts[k], accuracy=shares[k]) | floor for k in shares]
        (shade,) = scatter("", entries_of(rows), Palette(rows))["shades"]
        assert shade["high"] is high


def test_controls_lie_on_top_and_legend_shows_no_shape_twice(folders):
    settings = [folders.row("a", spec="a", bits=4), folders.row("b", spec="b", bits=2)]
    rows = [folders.control(emd_layer_mean=0.01), *settings]
    palette = Palette(rows)
    assert scatter("", entries_of(rows), palette)["marks"][-1]["kind"] == "cross"
    *_, control = points(scatter_figure(rows))
    assert (control.get_marker(), control.get_color()) == ("x", "black")
    legend = palette.legend()
    assert legend["any"].path not in [shape.path for _, shape in legend["bits"]]


@pytest.mark.parametrize(("firing", "told"), [(2.0, "1 of 2 settings keeps"), (9.0, "2 of 2 settings keep ")])
def test_a_file_says_the_answer_by_the_margins_of_its_report(folders, tmp_path, monkeypatch, firing, told):
    rows = [folders.control(), folders.row("a", spec="a", emd_layer_mean=0.004), folders.row("b", spec="b", bits=2)]
    study = Study.of(folders.MadeView(rows), Margins(firing=firing))
    drawn = {}
    monkeypatch.setattr(figures, "scatter_figure", lambda *a, **k: drawn.update(k) or scatter_figure(*a, **k))
    figures.write_figures(study, tmp_path / "report.html", "png")
    assert told in drawn["title"]
    assert "sew_resnet8 on digits" in drawn["title"]
    assert drawn["margins"] == Margins(firing=firing)


def test_memory_is_a_file_too_where_rows_have_it(folders, tmp_path):
    known = {"state_kib": 10.0, "weight_kib_fp": 300.0, "state_kib_fp": 100.0}
    places = ((20.0, 0.02, 2), (40.0, 0.005, 4), (50.0, 0.03, 8))
    rows = [folders.row(str(b), spec=str(b), bits=b, weight_kib=k, emd_layer_mean=x, **known) for k, x, b in places]
    study = Study.of(folders.MadeView([folders.control(), *rows]))
    written = figures.write_figures(study, tmp_path / "report.html", "svg")
    assert [path.name for path in written] == ["report-scatter.svg", "report-memory.svg"]
    found = memory_figure("base", study.entries, Palette(study.rows))
    assert found is not None
    figure = figures._memory_figure(found, Palette(study.rows), "title")
    base = [found["base"][axis] for axis in "xy"]
    marks = [[mark["x"], mark["y"]] for mark in found["marks"]]
    assert [[line.get_xdata()[0], line.get_ydata()[0]] for line in points(figure)] == [*marks, base]
    assert "the baseline: 400 KiB, no drift" in labels(figure)
    assert not any("standard error" in text for text in labels(figure))


def test_ticks_are_plain_decimals(folders) -> None:
    rows = [folders.row("a", spec=str(x), emd_layer_mean=x, emd_low=None, emd_high=None) for x in (4e-5, 2e-4)]
    assert "0.00005" in [label.get_text() for label in scatter_figure(rows).axes[0].get_xticklabels()]


def test_the_front_goes_through_the_settings_that_no_other_beats(folders) -> None:
    places = ((0.1, 0.9), (0.01, 0.5), (0.05, 0.4), (0.03, 0.8))
    rows = [folders.row("a", spec=str(x), options=str(x), emd_layer_mean=x, accuracy=y) for x, y in places]
    rows.append(folders.control(emd_layer_mean=0.001, accuracy=1.0))
    found = scatter("", entries_of(rows), Palette(rows))
    assert found["front"] == [(found["marks"][i]["x"], found["marks"][i]["y"]) for i in (1, 3, 0)]
    assert "Pareto front" in labels(scatter_figure(rows))
    assert "Pareto front" not in labels(scatter_figure(rows[:1]))


def test_the_value_of_a_point_is_that_of_the_table(folders) -> None:
    row = folders.row("a", emd_weighted=0.0102, emd_layer_mean=0.0061)
    row |= {"emd_weighted_low": 0.008, "emd_weighted_high": 0.012}
    figure, page = scatter_figure([row]), scatter("", entries_of([row]), Palette([row]))
    assert "EMD 0.0102" in page["marks"][0]["text"]
    assert "0.0102" in text_table([row])
    assert "weighted by neurons" in figure.axes[0].get_xlabel()
