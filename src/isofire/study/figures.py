"""The figure of a study: accuracy against drift."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from isofire.errors import DataError, OutputError, SpecError
from isofire.firing.evidence.kept import drift_of, measure_of
from isofire.firing.evidence.outcome import HEADLINE
from isofire.study.cell import is_control
from isofire.study.marks import COLOURS, Marks, tick_text
from isofire.study.reference import controls_of, reference_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEMS = {"emd_layer_mean": "emd", HEADLINE: HEADLINE}
"""Measures whose intervals and floors rows hold -> how the names of those columns begin."""
_GREY, _BAND = "#666666", "#DDDDDD"
_SHAPES = ("v", "s", "o", "D", "^", "P", "X", "p")
_UNIT = "spikes per neuron per step"
EMD_NAMES = {
    "emd_layer_mean": "EMD to the baseline's firing, mean over layers",
    "emd_weighted": "EMD to the baseline's firing, neuron-weighted",
    "emd_pooled": "EMD to the baseline's firing, all neurons pooled",
    "emd_max": "EMD to the baseline's firing, worst layer",
    "paired_mae": "mean absolute rate change of a neuron",
}


def scatter_figure(
    rows: Sequence[Mapping[str, Any]],
    *,
    measure: str | None = None,
    scale: Literal["log", "linear"] = "log",
    title: str | None = None,
    width: float | None = None,
) -> Figure:
    """Accuracy against drift: a point per row, colour by target and method, shape by bits.

    Points of post-training quantization are open, those of quantization-aware training filled. Control rows (nothing
    quantized) are crosses; where a cell went through the same steps, drift below theirs cannot be attributed to
    its quantizer, and the part up to the largest is shaded.
    The dashed line is the baseline's accuracy, in a band of one standard error, sqrt(p (1 - p) / n), to either side.
    The thin steps are the Pareto front: quantized rows of which no other has both more accuracy and less drift.

    Parameters
    ----------
    measure
        A key of `EMD_NAMES`; None: the drift that the rows are judged by.
    scale
        Of the drift axis. On a log axis, a drift of 0 is drawn at the left edge.
    title
        None: model, data, n and T.
    width
        In inches, with the legend below, such as a paper's column; None: a wide figure with the legend at its side.

    Raises
    ------
    DataError
        If there is no row.
    SpecError
        If the measure or the scale is unknown.
    OutputError
        If matplotlib is not installed.
    """
    if not rows:
        raise DataError("a scatter figure needs at least one row, got none")
    measure = measure or measure_of(rows)
    if measure not in EMD_NAMES or scale not in ("log", "linear"):
        raise SpecError(
            f"measure must be one of {', '.join(EMD_NAMES)} and scale log or linear, got {measure!r} and {scale!r}"
        )
    small = width is not None
    figure = _new_figure((width, width) if small else (7.2, 4.4))
    axis = figure.subplots()
    drift = _drift(rows, measure, scale)
    controls = controls_of(rows)
    noise = [found.value for row in rows if (found := reference_of(row, controls, measure)) is not None]
    if noise:
        axis.axvspan(0, max(noise), color=_BAND, alpha=0.55, linewidth=0, zorder=0)
    for value, images in sorted({(row["accuracy_fp"], row["n_images"]) for row in rows}):
        error = math.sqrt(value * (1 - value) / images)
        axis.axhspan(100 * (value - error), 100 * (value + error), color="#BBDDEE", alpha=0.35, linewidth=0, zorder=0)
        axis.axhline(100 * value, color=_GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    marks = Marks(rows)
    has_front = _draw_front(axis, rows, drift)
    shown = list(drift)
    for row, value in zip(rows, drift, strict=True):
        if _has_interval(row, measure):
            found = drift_of(row, measure)
            ends = max(found.low, min(drift) / 2), found.high
            axis.hlines(100 * row["accuracy"], *ends, color=_GREY, linewidth=0.8, zorder=2)
            shown += ends
        _draw_point(axis, row, value, marks)
    _scale_drift(axis, shown, scale)
    between = "\n" if small else " "
    axis.set_xlabel(f"{EMD_NAMES[measure]}{between}({_UNIT})", fontsize=7 if small else 9)
    axis.set_ylabel("accuracy (%)", fontsize=7 if small else 9)
    axis.tick_params(labelsize=6.5 if small else 8)
    axis.grid(color="#EEEEEE", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    heading = _sample(rows) if title is None else title
    if small:
        heading = textwrap.fill(heading, max(20, round(16 * width)))
    axis.set_title(heading, fontsize=7.5 if small else 9.5, loc="left")
    lines: dict[str, Any] = {}
    if noise:
        lines["noise: controls and floors"] = {"linewidth": 6, "color": _BAND, "solid_capstyle": "butt"}
    if any(_has_interval(row, measure) for row in rows):
        lines["95 % interval of EMD"] = {"linewidth": 0.8, "color": _GREY}
    if has_front:
        lines["Pareto front"] = {"linewidth": 0.7, "color": "black"}
    _legend(figure, rows, marks, lines, below=small)
    return figure


def _new_figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise OutputError("a figure needs matplotlib, which is not installed; pip install 'isofire[report]'") from error
    return Figure(figsize=size, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))


def _drift(rows: Sequence[Mapping[str, Any]], measure: str, scale: str) -> list[float]:
    values = [float(row[measure]) for row in rows]
    if scale == "linear":
        return values
    floor = min((value for value in values if value > 0), default=1e-4) / 2
    return [max(value, floor) for value in values]


def _scale_drift(axis: Axes, drift: Sequence[float], scale: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(drift), max(drift)
    if scale == "linear":
        axis.set_xlim(0, 1.05 * high or 1.0)
        return
    axis.set_xscale("log")
    axis.set_xlim(low / 1.4, high * 1.4)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _has_interval(row: Mapping[str, Any], measure: str) -> bool:
    return measure in _STEMS and row.get(f"{_STEMS[measure]}_low") is not None


def _draw_front(axis: Axes, rows: Sequence[Mapping[str, Any]], drift: Sequence[float]) -> bool:
    quantized = [(x, 100 * row["accuracy"]) for x, row in zip(drift, rows, strict=True) if not is_control(dict(row))]
    front: list[tuple[float, float]] = []
    for x, y in sorted(quantized, key=lambda place: (place[0], -place[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    if len(front) > 1:
        axis.step(*zip(*front, strict=True), where="post", color="black", linewidth=0.7, zorder=2)
    return len(front) > 1


def _draw_point(axis: Axes, row: Mapping[str, Any], drift: float, marks: Marks) -> None:
    y = 100 * row["accuracy"]
    number = marks.colour(row)
    if number is None:
        shape = "+" if row["mode"] == "ptq" else "x"
        axis.plot(drift, y, marker=shape, color="black", markersize=8, markeredgewidth=1.4, zorder=4)
        return
    colour = COLOURS[number]
    face = colour if row["mode"] == "qat" else "white"
    axis.plot(
        drift, y, marker=_SHAPES[marks.shape(row, len(_SHAPES))], color=colour, markerfacecolor=face, markersize=6.5,
        markeredgewidth=1.3, linestyle="none", zorder=3,
    )  # fmt: skip


def _legend(
    figure: Figure, rows: Sequence[Mapping[str, Any]], marks: Marks, lines: Mapping[str, Any], below: bool
) -> None:
    """What is quantized by colour, then bits by shape, then what else is drawn."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(shape: str, colour: str = _GREY, face: str = "white") -> Line2D:
        return Line2D(
            [], [], marker=shape, color=colour, markerfacecolor=face, markeredgewidth=1.3, markersize=6.5,
            linestyle="none",
        )  # fmt: skip

    found: dict[str, Any] = {name: Patch(color=COLOURS[i % len(COLOURS)]) for i, name in enumerate(marks.families)}
    found |= {f"{bits} bit": mark(_SHAPES[i % len(_SHAPES)]) for i, bits in enumerate(marks.bits)}
    faces = {"ptq": ("post-training", "white"), "qat": ("with training", _GREY)}
    modes = [mode for mode in faces if any(row["mode"] == mode and not is_control(dict(row)) for row in rows)]
    if modes:
        found[", ".join(faces[mode][0] for mode in modes)] = tuple(mark("o", face=faces[mode][1]) for mode in modes)
    for mode, shape in (("ptq", "+"), ("qat", "x")):
        controls = [row["method"] for row in rows if is_control(dict(row)) and row["mode"] == mode]
        if controls:
            found[f"control: {controls[0]}"] = mark(shape, "black")
    found |= {name: Line2D([], [], **style) for name, style in lines.items()}
    dashes: Any = Line2D([], [], color=_GREY, linewidth=0.9, linestyle=(0, (4, 2)))
    found["baseline ± 1 standard error"] = (Patch(color="#BBDDEE", alpha=0.6), dashes)
    place: dict[str, Any] = {"loc": "outside right upper", "fontsize": 7.5}
    if below:
        place = {"loc": "outside lower center", "fontsize": 6, "ncols": 2, "columnspacing": 1.0}
        figure.set_figheight(0.85 * figure.get_figwidth() + 0.13 * math.ceil(len(found) / 2))
    # the marks of both modes stand side by side; the baseline's line lies on its band
    sides = {
        handle: HandlerTuple(ndivide=None) for name, handle in found.items() if name.startswith(("post-", "with "))
    }
    figure.legend(found.values(), found, frameon=False, handlelength=1.8, handler_map=sides, **place)


def _sample(rows: Sequence[Mapping[str, Any]]) -> str:
    def shared(key: str) -> str:
        return ", ".join(dict.fromkeys(f"{row[key]:,}" if isinstance(row[key], int) else str(row[key]) for row in rows))

    return f"{shared('model')} on {shared('data')}  (n = {shared('n_images')} images, T = {shared('T')})"
