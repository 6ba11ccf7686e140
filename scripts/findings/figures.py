"""Figures of the first look: PNG files beside the stored run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from scripts.evidence.interval import interval_of
from scripts.findings.cells import MEMBRANES, MODES, WEIGHTS, Cells, Row, Setting, emd
from scripts.findings.levels import GridUse
from scripts.findings.noise import Floors
from scripts.findings.tables import MODE_NAMES

from isofire.report.axes import tick_text

# the last is as dark as no other, since no colour of the palette is left that is not like one of these
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
UNIT = "EMD, mean over layers\n(spikes per neuron per step)"


def write_figures(folder: Path, cells: Cells, floors: Floors, uses: Sequence[GridUse], sample: str) -> None:
    """All figures of the page."""
    made = {
        "weights.png": by_bits(cells, floors, WEIGHTS, f"Weights quantized: {sample}"),
        "membranes.png": by_bits(cells, floors, MEMBRANES, f"Membranes quantized: {sample}"),
        "step-or-clip.png": step_or_clip(cells, floors, uses, sample),
        "dead-share.png": dead_share(cells, sample),
    }
    for name, figure in made.items():
        figure.savefig(folder / name, dpi=150, format="png", metadata={"Software": None})


def by_bits(cells: Cells, floors: Floors, settings: Sequence[Setting], title: str) -> Figure:
    """Accuracy (above) and EMD (below) against bits, a column a mode, with the noise floors."""
    figure, axes = _panels(2, len(MODES), (9.2, 6.2), title)
    for column, mode in enumerate(MODES):
        upper, lower = axes[0][column], axes[1][column]
        control = cells.control(mode)
        upper.axhline(100 * control["accuracy_fp"], color="#666666", linewidth=0.9, linestyle=":", label="baseline")
        # post-training quantization of membranes changes nothing else, so it has no control
        controlled = (mode, settings[0].target) != ("ptq", "membrane")
        if controlled:
            upper.axhline(100 * control["accuracy"], color="black", linewidth=0.9, linestyle="--", label="control")
        _draw_floors(lower, floors, mode if controlled else None)
        for colour, mark, setting in zip(COLOURS, MARKS, settings, strict=False):
            found = cells.of(setting, mode)
            style: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 5.5, "linewidth": 1.3}
            upper.plot(list(found), [100 * row["accuracy"] for row in found.values()], label=setting.name, **style)
            values = [emd(row) for row in found.values()]
            lower.errorbar(list(found), values, _bars(found.values()), capsize=2.5, elinewidth=0.9, **style)
        what = f"; control: {control['method']}" if controlled else ""
        upper.set_title(f"{MODE_NAMES[mode]} ({mode}){what}", fontsize=9, loc="left")
        lower.set_xlabel("bits", fontsize=9)
        lower.set_yscale("log")
        for axis in (upper, lower):
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_locator(_ticks((2, 3, 4, 6, 8)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
        plain_log(lower)
    _show(axes[1], [emd(row) for mode in MODES for item in settings for row in cells.of(item, mode).values()], floors)
    axes[0][0].set_ylabel("accuracy (%)", fontsize=9)
    axes[1][0].set_ylabel(UNIT, fontsize=9)
    found = [axis.get_legend_handles_labels() for axis in (axes[0][-1], axes[1][-1])]
    handles, names = ([item for part in found for item in part[i]] for i in (0, 1))
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _draw_floors(axis: Axes, floors: Floors, mode: str | None) -> None:
    """Image floor as a band, seed floor as a dotted line, the mode's control with its interval."""
    images, seeds = floors.value("images"), floors.value("seeds")
    control = None if mode is None else floors.value(mode)
    if control is not None:
        axis.axhline(control.value, color="black", linewidth=0.9, linestyle="--")
        axis.axhspan(
            control.low, control.high, color="#E69F00", alpha=0.25, linewidth=0,
            label=f"control, where one more run lies ({floors.runs} runs)",
        )  # fmt: skip
    if images is not None:
        axis.axhspan(0, images.value, color="#DDDDDD", linewidth=0, label="below the floor of other images")
    if seeds is not None:
        label = f"another seed ({1000 * seeds.low:.1f} to {1000 * seeds.high:.1f} × 10⁻³)"
        axis.axhline(seeds.value, color="#AA3377", linewidth=1.1, linestyle=":", label=label)


def _bars(rows: Iterable[Row]) -> list[list[float]]:
    """95 % intervals of the EMD over images, as distances from it."""
    found = [interval_of(row) for row in rows]
    return [[item.estimate - item.low for item in found], [item.high - item.estimate for item in found]]


def step_or_clip(cells: Cells, floors: Floors, uses: Sequence[GridUse], sample: str) -> Figure:
    """EMD of the two end-point ranges against their step: one curve if the step decides, two if the clip does."""
    figure, axes = _panels(1, len(MODES), (9.2, 4.2), f"Uniform end-point grids: {sample}")
    step = {(use.clip, use.bits): use.step for use in uses}
    drifts: list[float] = []
    for axis, mode in zip(axes[0], MODES, strict=True):
        _draw_floors(axis, floors, mode)
        for i, (clip, setting) in enumerate(zip((1.0, 10.0), WEIGHTS[:2], strict=True)):
            found = cells.of(setting, mode)
            across = [step[clip, int(bits)] for bits in found]
            values = [emd(row) for row in found.values()]
            axis.plot(across, values, color=COLOURS[i], marker=MARKS[i], linewidth=1.3, label=f"clip ±{clip:g}")
            # one range's numbers stand above its marks, the other's below, each in the colour of its curve
            for x, y, bits in zip(across, values, found, strict=True):
                axis.annotate(
                    f"{bits:g}", (x, y), textcoords="offset points", xytext=(0, (7, -14)[i]), ha="center",
                    fontsize=7.5, color=COLOURS[i],
                )  # fmt: skip
            drifts += values
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain_log(axis)
        plain_log(axis, "x")
        axis.set_xlabel("step between levels (units of the weights); numbers: bits", fontsize=9)
        axis.set_title(f"{MODE_NAMES[mode]} ({mode})", fontsize=9, loc="left")
    _show(axes[0], drifts, floors)
    axes[0][0].set_ylabel(UNIT, fontsize=9)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def dead_share(cells: Cells, sample: str) -> Figure:
    """Change of the dead share against EMD at the three cuts, one mark a cell."""
    figure, axes = _panels(1, 3, (10.2, 3.7), f"Dead share against EMD, all cells: {sample}", sharey=False)
    kinds = [("weights", "ptq", "o", "white"), ("weights", "qat", "o", COLOURS[0]),
             ("membrane", "ptq", "s", "white"), ("membrane", "qat", "s", COLOURS[1]),
             ("both", "ptq", "D", "white"), ("both", "qat", "D", COLOURS[2])]  # fmt: skip
    colours = {"weights": COLOURS[0], "membrane": COLOURS[1], "both": COLOURS[2]}
    for axis, (cut, name) in zip(axes[0], (("00", "0"), ("01", "0.01"), ("05", "0.05")), strict=True):
        axis.axhline(0, color="#666666", linewidth=0.8)
        for target, mode, mark, face in kinds:
            rows = cells.quantized(mode, target)
            axis.plot(
                [emd(row) for row in rows], [_dead_change(row, cut) for row in rows], mark, color=colours[target],
                markerfacecolor=face, markersize=5, label=f"{target}, {mode}",
            )  # fmt: skip
        axis.set_xscale("log")
        plain_log(axis, "x")
        axis.set_xlabel(UNIT.replace("\n", " "), fontsize=8)
        axis.set_title(f"rate {'of 0' if cut == '00' else f'below {name}'}", fontsize=9, loc="left")
    axes[0][0].set_ylabel("change of dead share (points)", fontsize=9)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def _dead_change(row: Row, cut: str) -> float:
    return 100 * (row[f"dead_{cut}"] - row[f"dead_{cut}_fp"])


def _panels(
    rows: int, columns: int, size: tuple[float, float], title: str, sharey: Literal["row"] | bool = "row"
) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=size, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).tolist()
    for row in axes:
        for axis in row:
            axis.tick_params(labelsize=8)
            axis.grid(color="#EEEEEE", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _ticks(values: Sequence[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(list(values))


def _show(axes: Sequence[Axes], values: Sequence[float], floors: Floors) -> None:
    """What is drawn and little more: a band that begins at 0 has no lower end on a logarithmic axis."""
    found = [floor.value for name in ("images", "seeds") if (floor := floors.value(name)) is not None]
    for axis in axes:
        axis.set_ylim(0.6 * min([*values, *found]), 1.5 * max([*values, *found]))


def plain_log(axis: Axes, which: Literal["x", "y"] = "y") -> None:
    """Ticks at 1, 2 and 5 times powers of ten where these are few, as plain decimals."""
    from matplotlib.ticker import LogLocator

    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    side = axis.xaxis if which == "x" else axis.yaxis
    side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if which == "y" and high < 1000 * low else (1.0,)))
    side.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
    side.set_minor_formatter(NullFormatter())
