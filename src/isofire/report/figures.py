"""The figures of a page as matplotlib draws them: for files, in a paper's column or wide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isofire.errors import DataError, OutputError
from isofire.firing.evidence.outcome import Margins
from isofire.report.axes import BOTTOM, LEFT, RIGHT, TOP
from isofire.report.entries import Entry, entries_of
from isofire.report.gained import memory_figure
from isofire.report.palette import COLOURS, Palette, Row, Shape
from isofire.report.scatter import scatter
from isofire.report.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FigureFormat = Literal["pdf", "svg", "png"]
COLUMN = 3.4
"""Width of a figure, in inches: a column of two, as IEEE and ACM set them."""
_LONG = 42
"""Characters of an axis' title that fit a column."""
_GREY, _SHADE, _KEPT, _BAND = "#666666", "#BBBBBB", "#009E73", "#BBDDEE"


def write_figures(study: Study, page: Path, form: FigureFormat) -> list[Path]:
    """Accuracy against drift of each baseline, and memory where rows have it, as wide as a column, beside the page.

    Raises
    ------
    OutputError
        If matplotlib is not installed, or a file cannot be written.
    """
    written = []
    for number, name in enumerate(study.baselines):
        found = study.of_baseline(name)
        rows, heading = [row for row in study.rows if row["baseline"] == name], _heading(found)
        drawn = {"scatter": scatter_figure(rows, title=heading, width=COLUMN, margins=found[0].margins)}
        palette = Palette(rows)
        if (memory := memory_figure(name, found, palette)) is not None:
            drawn["memory"] = _memory_figure(memory, palette, heading)
        end = "" if len(study.baselines) == 1 else f"-{number}"
        for what, figure in drawn.items():
            path = page.with_name(f"{page.stem}-{what}{end}.{form}")
            try:
                figure.savefig(path, dpi=300)
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}") from error
            written.append(path)
    return written


def _memory_figure(found: dict[str, Any], palette: Palette, title: str) -> Figure:
    """Memory against drift as the page shows it: see `isofire.report.gained`."""
    figure = _new_figure((COLUMN, COLUMN))
    axis = _axes(figure, found, small=True)
    if len(found["front"]) > 1:
        axis.step(*zip(*found["front"], strict=True), where="post", color="black", linewidth=0.7, zorder=2)
    for mark in found["marks"]:
        _draw_mark(axis, mark)
    base = found["base"]
    axis.plot(base["x"], base["y"], **_BASE, clip_on=False, zorder=4)
    axis.set_title(_wrapped(title, COLUMN), fontsize=7.5, loc="left")
    _legend(figure, palette, found, below=True)
    return figure


def _axes(figure: Figure, found: dict[str, Any], *, small: bool) -> Axes:
    """The field of a figure, with ticks and titles of its axes."""
    axis = figure.subplots()
    axis.set_xlim(LEFT, RIGHT)
    axis.set_ylim(BOTTOM, TOP)
    for set_ticks, ticks in ((axis.set_xticks, found["x_ticks"]), (axis.set_yticks, found["y_ticks"])):
        set_ticks([place for place, _ in ticks], [text for _, text in ticks])
    axis.tick_params(labelsize=6.5 if small else 8)
    for set_label, text in ((axis.set_xlabel, found["x_label"]), (axis.set_ylabel, found["y_label"])):
        # a column is too narrow for a title and its unit in one line
        lines = text.replace(" (", "\n(") if small and len(text) > _LONG else text
        set_label(lines, fontsize=7 if small else 9)
    axis.grid(color="#EEEEEE", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def _wrapped(title: str, width: float) -> str:
    return textwrap.fill(title, max(20, round(16 * width)))


def scatter_figure(
    rows: Sequence[Row], *, title: str | None = None, width: float | None = None, margins: Margins | None = None
) -> Figure:
    """Accuracy against drift of a baseline's rows, as the page shows it: see `isofire.report.scatter`.

    Colour by target and method, shape by bits. Points of post-training quantization are open, those of
    quantization-aware training filled, controls (nothing quantized) crosses; a few that lie far below all others stand
    at the lower end with their accuracy; the 95 % interval of drift is a line
    through the point. Drift below a noise floor or a control is shaded up to the margin, green where accuracy is kept
    too. The dashed line is the baseline's accuracy, in a band of one standard error, sqrt(p (1 - p) / n).

    Parameters
    ----------
    title
        None: model, data, images, steps and seeds.
    width
        In inches, with the legend below, such as a paper's column; None: a wide figure with the legend at its side.
    margins
        What is shaded as kept; by default that of `Margins`.

    Raises
    ------
    DataError
        If there is no row.
    OutputError
        If matplotlib is not installed.
    """
    if not rows:
        raise DataError("a scatter figure needs at least one row, got none")
    palette, small = Palette(rows), width is not None
    found = scatter("", entries_of(rows, margins), palette)
    figure = _new_figure((7.2, 4.4) if width is None else (width, width))
    axis = _axes(figure, found, small=small)
    _draw_references(axis, found, 6 if small else 7.5)
    if len(found["front"]) > 1:
        axis.step(*zip(*found["front"], strict=True), where="post", color="black", linewidth=0.7, zorder=2)
    for mark in found["marks"]:
        _draw_mark(axis, mark)
    _draw_below(axis, found["below"], 6 if small else 7.5)
    models = ", ".join(dict.fromkeys(f"{row['model']} on {row['data']}" for row in rows))
    heading = f"{models}\n{found['sample']}" if title is None else title
    if width is not None:
        heading = _wrapped(heading, width)
    axis.set_title(heading, fontsize=7.5 if small else 9.5, loc="left")
    _legend(figure, palette, found, below=small)
    return figure


def _heading(entries: Sequence[Entry]) -> str:
    """What the figure shows, and the answer."""
    settings = [entry for entry in entries if not entry.is_control]
    keep = sum(entry.outcome == "keeps" for entry in settings)
    of = f"{entries[0].label('model')} on {entries[0].label('data')}"
    return f"{of}: {keep or 'none'} of {len(settings)} settings keep{'' if keep > 1 else 's'} accuracy and firing"


def _new_figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise OutputError("a figure needs matplotlib, which is not installed; pip install 'isofire[report]'") from error
    return Figure(figsize=size, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))


def _draw_references(axis: Axes, found: dict[str, Any], size: float) -> None:
    """What is within the margins, and the baseline's accuracy."""
    for shade in found["shades"]:
        axis.axvspan(LEFT, shade["edge"], color=_SHADE, alpha=0.25, linewidth=0, zorder=0)
        top, kept = TOP, TOP + found["kept"]["height"]
        axis.fill_between([LEFT, shade["edge"]], top, kept, color=_KEPT, alpha=0.12, linewidth=0, zorder=0)
        axis.axvline(shade["edge"], color=_GREY, linewidth=0.7, linestyle=":", zorder=1)
        end, va = (TOP, "top") if shade["high"] else (BOTTOM, "bottom")
        axis.annotate(
            shade["label"], (shade["edge"], end), (-2, -3 if shade["high"] else 3), textcoords="offset points",
            rotation=90, ha="right", va=va, fontsize=size, color=_GREY,
        )  # fmt: skip
    band = found["band"]
    axis.axhspan(band["y"], band["y"] + band["height"], color=_BAND, alpha=0.35, linewidth=0, zorder=0)
    axis.axhline(band["line"], color=_GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    axis.annotate(
        found["base"], (RIGHT, band["line"]), (-2, 2), textcoords="offset points", ha="right", va="bottom",
        fontsize=size, color=_GREY,
    )  # fmt: skip


def _draw_mark(axis: Axes, mark: dict[str, Any]) -> None:
    if mark["ends"] is not None:
        axis.hlines(mark["y"], *mark["ends"], color=_GREY, linewidth=0.8, zorder=2)
    colour = _GREY if mark["hue"] is None else COLOURS[mark["hue"]]
    style = _style(mark["marker"], colour, mark["kind"] != "open")
    if mark["kind"] == "cross":
        style |= _CONTROL
    axis.plot(mark["x"], mark["y"], **style, zorder=4 if mark["kind"] == "cross" else 3, clip_on=False)


def _draw_below(axis: Axes, texts: Sequence[tuple[float, float, str, bool]], size: float) -> None:
    """How far below the axis the marks at its foot lie."""
    for x, y, text, left in texts:
        axis.annotate(
            text, (x, y), (-6 if left else 6, 0), textcoords="offset points", ha="right" if left else "left",
            va="center", fontsize=size, color="black",
        )  # fmt: skip


_BASE: dict[str, Any] = {"marker": "*", "color": "black", "markersize": 9, "linestyle": "none"}
_CONTROL: dict[str, Any] = {"color": "black", "markeredgewidth": 1.8}


def _style(marker: str, colour: str, filled: bool) -> dict[str, Any]:
    face = colour if filled else "none"
    return {"marker": marker, "color": colour, "markerfacecolor": face, "markersize": 6.5, "markeredgewidth": 1.3,
            "linestyle": "none"}  # fmt: skip


def _legend(figure: Figure, palette: Palette, found: dict[str, Any], below: bool) -> None:
    """What is quantized by colour, then bits by shape, then what else is drawn."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(shape: Shape, filled: bool = False) -> Line2D:
        return Line2D([], [], **_style(shape.marker, _GREY, filled))

    names, kinds = palette.legend(), {item["kind"] for item in found["marks"]}
    shown: dict[str, Any] = {name: Patch(color=COLOURS[number]) for name, number in names["families"]}
    shown |= {f"{bits} bit": mark(shape) for bits, shape in names["bits"]}
    if "open" in kinds:
        shown["open: post-training"] = Patch(facecolor="white", edgecolor=_GREY)
    if "full" in kinds:
        shown["filled: with training"] = Patch(facecolor=_GREY, edgecolor=_GREY)
    if "cross" in kinds:
        cross = _style(names["control"].marker, _GREY, True) | _CONTROL
        shown["control: nothing quantized"] = Line2D([], [], **cross)
    if any(item["ends"] for item in found["marks"]):
        shown["95 % interval of EMD"] = Line2D([], [], color=_GREY, linewidth=0.8)
    if len(found["front"]) > 1:
        shown["Pareto front"] = Line2D([], [], color="black", linewidth=0.7)
    if found["shades"]:
        shown["drift within the margin"] = Patch(color=_SHADE, alpha=0.4, linewidth=0)
        shown["accuracy too"] = Patch(color=_KEPT, alpha=0.3, linewidth=0)
    if "band" not in found:
        shown[f"the baseline: {found['base']['text']}, no drift"] = Line2D([], [], **_BASE)
        return _place(figure, shown, below)
    dashes: Any = Line2D([], [], color=_GREY, linewidth=0.9, linestyle=(0, (4, 2)))
    shown["baseline ± 1 standard error"] = (Patch(color=_BAND, alpha=0.6), dashes)
    return _place(figure, shown, below)


def _place(figure: Figure, shown: dict[str, Any], below: bool) -> None:
    place: dict[str, Any] = {"loc": "outside right upper", "fontsize": 7.5}
    if below:
        place = {"loc": "outside lower center", "fontsize": 6, "ncols": 2, "columnspacing": 1.0}
        figure.set_figheight(0.85 * figure.get_figwidth() + 0.13 * math.ceil(len(shown) / 2))
    figure.legend(shown.values(), shown, frameon=False, handlelength=1.8, **place)
