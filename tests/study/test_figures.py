from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from isofire.errors import DataError, OutputError, SpecError
from isofire.study import scatter_figure
from isofire.study.marks import Marks
from isofire.study.tables import text_table

pytest.importorskip("matplotlib")


def row(**changes):
    base = {
        "model": "m", "data": "digits", "target": "weights", "method": "lsq", "bits": 4, "range": "learned",
        "placement": None, "mode": "ptq", "n_images": 400, "T": 4, "accuracy": 0.8, "accuracy_fp": 0.9,
        "emd_layer_mean": 0.01, "paired_mae": 0.02,
    }  # fmt: skip
    return base | changes


CONTROL = {"target": "none", "method": "continued", "bits": 32, "mode": "qat"}


def points(figure):
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_row_is_a_point_at_its_place():
    rows = [row(), row(bits=2, accuracy=0.5, emd_layer_mean=0.1), row(**CONTROL, emd_layer_mean=0.002, accuracy=0.91)]
    found = {(float(p.get_xdata()[0]), float(p.get_ydata()[0])) for p in points(scatter_figure(rows))}
    assert found == {(0.01, 80.0), (0.1, 50.0), (0.002, 91.0)}


def test_axes_say_what_and_in_which_unit():
    axis = scatter_figure([row()]).axes[0]
    assert "EMD" in axis.get_xlabel()
    assert "spikes per neuron per step" in axis.get_xlabel()
    assert axis.get_ylabel() == "accuracy (%)"
    assert "n = 400 images, T = 4" in axis.get_title(loc="left")
    assert "rate change" in scatter_figure([row()], measure="paired_mae").axes[0].get_xlabel()


def test_mode_and_bits_can_be_told_apart():
    figure = scatter_figure([row(), row(mode="qat"), row(bits=2)])
    open_point, filled, two_bit = points(figure)
    assert open_point.get_markerfacecolor() == "white"
    assert filled.get_markerfacecolor() == filled.get_color() == open_point.get_color()
    assert two_bit.get_marker() != open_point.get_marker()
    assert {"2 bit", "4 bit", "weights: lsq"} <= set(labels(figure))


def test_methods_have_their_own_colours():
    rows = [row(method=f"m{i}") for i in range(10)]
    assert len({point.get_color() for point in points(scatter_figure(rows))}) == 10


def test_controls_and_floors_are_shaded_up_to_the_largest():
    rows = [row(), row(**CONTROL, emd_layer_mean=0.002), row(**CONTROL | {"mode": "ptq"}, emd_layer_mean=0.004)]
    spans = [patch.get_extents().transformed(patch.axes.transData.inverted()) for patch in
             scatter_figure(rows, scale="linear").axes[0].patches]  # fmt: skip
    assert any(np.isclose(span.x1, 0.004) and np.isclose(span.x0, 0) for span in spans)
    assert "noise: controls and floors" in labels(scatter_figure(rows))
    assert "noise: controls and floors" not in labels(scatter_figure([row()]))
    wider = scatter_figure([*rows, row(emd_floor=0.006)], scale="linear").axes[0]
    assert any(np.isclose(wider.transData.inverted().transform((patch.get_extents().x1, 0))[0], 0.006)
               for patch in wider.patches)  # fmt: skip


def test_intervals_are_drawn_where_rows_have_them():
    with_ends = row(emd_low=0.008, emd_high=0.013)
    (ends,) = (line.get_segments()[0] for line in scatter_figure([with_ends]).axes[0].collections)
    assert ends[:, 0].tolist() == [0.008, 0.013]
    assert ends[:, 1].tolist() == [80, 80]
    assert not scatter_figure([row()]).axes[0].collections
    assert not scatter_figure([with_ends], measure="paired_mae").axes[0].collections


def test_baseline_band_is_one_standard_error():
    band = scatter_figure([row()]).axes[0].patches[0].get_extents()
    axis = scatter_figure([row()]).axes[0]
    low, high = (axis.transData.inverted().transform((0, y))[1] for y in (band.y0, band.y1))
    assert (high - low) / 2 == pytest.approx(100 * np.sqrt(0.9 * 0.1 / 400), rel=0.02)


def test_no_drift_at_all_is_drawn_on_a_log_axis():
    figure = scatter_figure([row(emd_layer_mean=0.0), row(emd_layer_mean=0.01)])
    assert min(float(p.get_xdata()[0]) for p in points(figure)) == 0.005
    figure.savefig(io.BytesIO(), format="png")


def test_one_row_without_drift_draws_on_both_scales():
    for scale, place in (("log", 5e-5), ("linear", 0.0)):
        figure = scatter_figure([row(emd_layer_mean=0.0)], scale=scale)
        figure.savefig(io.BytesIO(), format="png")
        (point,) = points(figure)
        assert (float(point.get_xdata()[0]), float(point.get_ydata()[0])) == (place, 80.0)
        low, high = figure.axes[0].get_xlim()
        assert low <= place < high


@pytest.mark.parametrize("options", [{"measure": "accuracy"}, {"scale": "square"}])
def test_unknown_axis(options):
    with pytest.raises(SpecError, match="measure must be one of"):
        scatter_figure([row()], **options)


def test_nothing_to_draw():
    with pytest.raises(DataError, match="at least one row"):
        scatter_figure([])


def test_marks_are_by_method_and_bits_and_none_for_controls():
    states = row(target="membrane", method="uniform", range="[0, 1]", bits=2)
    marks = Marks([row(), states, states | {"range": "[-1, 1]"}, row(bits="2 | 4"), row(**CONTROL)])
    assert marks.families == ["weights: lsq", "membrane: uniform"]
    assert marks.bits == ["2", "2 | 4", "4"]
    assert [marks.colour(item) for item in (row(), states, row(**CONTROL))] == [0, 1, None]


def test_controls_alone_are_drawn():
    figure = scatter_figure([row(**CONTROL)])
    FigureCanvasAgg(figure).draw()
    assert "control: continued" in labels(figure)
    assert not {"post-training", "with training", ""} & set(labels(figure))


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OutputError, match=r"pip install 'isofire\[report\]'"):
        scatter_figure([row()])


def cut(figure):
    """Labels, heading and legend, as far as the figure's edges cut them."""
    FigureCanvasAgg(figure).draw()
    (axis,) = figure.axes
    texts = [axis.xaxis.label, axis.yaxis.label, *figure.legends[0].get_texts(), *axis.findobj(Text)]
    ticks = {*axis.get_xticklabels(which="both"), *axis.get_yticklabels(which="both")}
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text() and text not in ticks}
    return [name for name, box in boxes.items() if min(box.x0, box.y0) < 0 or box.x1 > figure.bbox.x1]


@pytest.mark.parametrize("width", [None, 3.4])
def test_no_text_is_cut_and_all_intervals_end_within_the_axis(width):
    rows = [
        row(bits=bits, method=method, mode=mode, emd_layer_mean=x, emd_low=0.6 * x, emd_high=3 * x)
        for bits in (2, 4) for method in ("lsq", "lqnet") for mode, x in (("ptq", 1e-4), ("qat", 0.01))
    ]  # fmt: skip
    figure = scatter_figure([*rows, row(**CONTROL)], width=width)
    assert cut(figure) == []
    low, high = figure.axes[0].get_xlim()
    assert low < 0.6e-4
    assert high > 0.03


def test_ticks_are_plain_decimals():
    figure = scatter_figure([row(emd_layer_mean=0.00004), row(emd_layer_mean=0.0002)])
    FigureCanvasAgg(figure).draw()
    assert "0.00005" in [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_the_pareto_front_goes_through_the_rows_that_no_other_beats():
    rows = [row(emd_layer_mean=x, accuracy=y) for x, y in ((0.1, 0.9), (0.01, 0.5), (0.05, 0.4), (0.03, 0.8))]
    figure = scatter_figure([*rows, row(**CONTROL, emd_layer_mean=0.001, accuracy=1.0)])
    (front,) = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == [(0.01, 50), (0.03, 80), (0.1, 90)]
    assert "Pareto front" in labels(figure)
    assert "Pareto front" not in labels(scatter_figure([row()]))


def test_the_value_of_a_point_is_that_of_the_table():
    rows = [row(emd_weighted=0.0102, emd_layer_mean=0.0061, emd_weighted_low=0.008, emd_weighted_high=0.012)]
    figure = scatter_figure(rows)
    (point,) = points(figure)
    assert float(point.get_xdata()[0]) == 0.0102
    assert "0.0102" in text_table(rows)
    assert "neuron-weighted" in figure.axes[0].get_xlabel()
