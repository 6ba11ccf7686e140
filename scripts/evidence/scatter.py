"""Outcomes against drift measures, one mark a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scripts.findings.figures import plain_log

Row = dict[str, Any]
COLOURS = {"weights": "#0072B2", "membrane": "#D55E00", "both": "#009E73"}
MARKS = {"ptq": "o", "qat": "^"}
ACROSS: dict[str, Callable[[Row], float]] = {
    "|change of the mean rate|": lambda row: abs(row["mfr"] - row["mfr_fp"]),
    "EMD, mean over layers": lambda row: row["emd_layer_mean"],
    "paired drift": lambda row: row["paired_mae"],
}
DOWN: dict[str, Callable[[Row], float]] = {
    "|change of SynOps| (%)": lambda row: 100 * abs(row["synops"] / row["synops_fp"] - 1),
    "images with another class (%)": lambda row: 100 * (1 - row["agreement"]),
    "|change of decisions that\nstand noise| (points)": lambda row: 100 * abs(row["noise_kept"] - row["noise_kept_fp"]),
}


def write_scatter(path: Path, rows: Sequence[Row]) -> None:
    """Three outcomes against three measures, all in spikes per neuron per step, into a PNG file."""
    figure = Figure(figsize=(10, 8.4), facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    figure.suptitle(
        f"SEW-ResNet-8 on CIFAR-10: {len(rows)} quantized cells of one baseline, T = {rows[0]['T']}", fontsize=10
    )
    axes = figure.subplots(len(DOWN), len(ACROSS), squeeze=False, sharey="row", sharex="col").tolist()
    for line, (outcome, y) in zip(axes, DOWN.items(), strict=True):
        for axis, x in zip(line, ACROSS.values(), strict=True):
            for target, colour in COLOURS.items():
                for mode, mark in MARKS.items():
                    found = [row for row in rows if (row["target"], row["mode"]) == (target, mode)]
                    axis.plot([x(row) for row in found], [y(row) for row in found], mark, color=colour, markersize=4.5,
                              markerfacecolor="white" if mode == "ptq" else colour,
                              label=f"{target}, {mode}")  # fmt: skip
            axis.set_xscale("log")
            plain_log(axis, "x")
            axis.grid(color="#EEEEEE", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
        line[0].set_ylabel(outcome, fontsize=9)
    for axis, name in zip(axes[-1], ACROSS, strict=True):
        axis.set_xlabel(f"{name}\n(spikes per neuron per step)", fontsize=9)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130, format="png", metadata={"Software": None})
