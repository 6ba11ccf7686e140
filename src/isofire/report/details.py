"""What the page shows of a chosen cell: drift per layer, distributions of rates, quantizers and their levels."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from isofire.firing import SpikeCounts
from isofire.firing.evidence.kept import drift_of
from isofire.firing.measures import BUILT_IN, Measure, shown_in
from isofire.firing.rates import PAPER_CUT
from isofire.report import rates as drawing
from isofire.report.entries import Row, title_of
from isofire.report.levels import levels_panel
from isofire.report.numbers import fixed, percent, points, significant, times, whole
from isofire.report.source import ResultsView
from isofire.study.reference import Reference

_BAR = 120


class Details:
    """Details of cells, with what cells share (their baselines' paths) drawn and kept once.

    Short keys, since a page holds thousands of them: see `_layer` and `levels_panel`.
    """

    def __init__(self, view: ResultsView) -> None:
        self._view = view
        self.baselines: list[list[dict[str, Any]]] = []
        self._known: dict[str, int] = {}
        self._ends: list[list[float]] = []

    def of(
        self, row: Row, measure: str, reference: Reference | None, spec: Mapping[str, Any] | None, baseline: str
    ) -> dict[str, Any]:
        """JSON values of one cell; `base` points into `baselines`, which has one of each key `baseline`."""
        key = str(row["cell"])
        layers, counts = self._view.layers(key), self._view.counts(key)
        base = self._base(baseline, key)
        drift = significant(row[measure])
        # drifts and floors on one axis, so that both are seen whichever is larger
        largest = max((float(layer.get(key) or 0.0) for layer in layers for key in ("emd", "emd_floor")), default=0.0)
        ends = drift_of(row, measure)
        span = [] if math.isnan(ends.low) else [f"95 %: {significant(ends.low)} to {significant(ends.high)}"]
        return {
            "title": f"{title_of(row)}, seed {row.get('seed')}",
            "about": f"{row.get('baseline')}: {row.get('model')} on {row.get('data')}",
            "facts": [
                ["accuracy", f"{percent(row['accuracy'])} %", f"{points(row['accuracy'] - row['accuracy_fp'])} points"],
                ["EMD", drift, ", ".join([*span, *([_multiple(row[measure], reference)] if reference else [])])],
                ["mean rate", significant(row["mfr"]), f"baseline {significant(row['mfr_fp'])}"],
                ["dead, rate < 0.05", f"{percent(row['dead_05'], 1)} %", f"baseline {percent(row['dead_05_fp'], 1)} %"],
                ["same class", f"{percent(row['agreement'], 1)} %", "as the baseline"],
            ],
            "base": base,
            "layers": [
                self._layer(layer, base, counts.layers.index(layer["layer"]), counts, largest) for layer in layers
            ],
            "values": [levels_panel(found) for found in self._view.distributions(key)],
            "spec": json.dumps(spec, indent=1) if spec is not None else "nothing is quantized",
        }

    def _base(self, baseline: str, key: str) -> int:
        if baseline in self._known:
            return self._known[baseline]
        counts = self._view.baseline_counts(key)
        found, ends = [], []
        for layer in counts.layers:
            rates = counts.rates(layer).numpy()
            end = drawing.end_of(rates)
            shares = drawing.histogram_shares(rates, end)
            ends.append(end)
            found.append(
                {
                    "f": drawing.function_path(rates, end),
                    "h": drawing.bars_path(shares, max(shares)),
                    "x": [significant(end / 2, 2), significant(end, 2)],
                    "d": min(drawing.WIDTH, round(PAPER_CUT / end * drawing.WIDTH)),
                    "p": max(shares),
                }
            )
        self._known[baseline] = len(self.baselines)
        self.baselines.append(found)
        self._ends.append(ends)
        return self._known[baseline]

    def _layer(
        self, layer: Mapping[str, Any], base: int, number: int, counts: SpikeCounts, largest: float
    ) -> dict[str, Any]:
        rates = counts.rates(layer["layer"]).numpy()
        end, top = self._ends[base][number], self.baselines[base][number]["p"]
        shares = drawing.histogram_shares(rates, end)
        beyond = drawing.share_beyond(rates, end)
        scale = _BAR / largest if largest else 0.0
        floor = layer.get("emd_floor")
        return {
            "m": layer["layer"],
            "n": whole(layer["neurons"]),
            "r": [significant(layer["mfr_fp"]), significant(layer["mfr"])],
            "q": [percent(layer["dead_05_fp"], 1), percent(layer["dead_05"], 1)],
            "e": significant(layer["emd"]),
            # as text, so that script and template write the same
            "b": [f"{scale * layer[part]:.4g}" for part in ("shift", "shape")],
            "t": f"M{scale * floor:.4g},0V14" if floor else "",
            "g": times(layer["emd"] / floor if floor else None),
            "u": significant(layer["paired_mae"]),
            "s": fixed(layer["spearman"]),
            "x": [measure.text(layer.get(measure.name)) for measure in more_of_layers()],
            "f": drawing.function_path(rates, end),
            # bars that are higher than the baseline's highest are cut off at the top of the figure
            "h": drawing.bars_path([min(share, top) for share in shares], top),
            "o": f", {percent(beyond, 1)} % beyond" if beyond > 0.0005 else "",
        }


def more_of_layers() -> list[Measure]:
    """The measures of layers beside isofire's own, which have their places."""
    return [measure for measure in shown_in("layers") if measure not in BUILT_IN]


def _multiple(drift: float, reference: Reference) -> str:
    unit = reference.floor.unit
    ends = "" if math.isnan(unit.low) else f" ({significant(unit.low)} to {significant(unit.high)})"
    return f"{times(reference.multiple(drift))} {reference.kind} of {significant(unit.value)}{ends}"
