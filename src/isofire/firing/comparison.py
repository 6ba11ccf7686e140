"""The result of a comparison: per-layer and overall drift, with its table, JSON, CSV row and figure."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from isofire.errors import SpecError
from isofire.files import write_text
from isofire.firing.aggregate import overall_drift
from isofire.firing.counts import SpikeCounts
from isofire.firing.drift import LayerDrift, check_match, layer_drift
from isofire.firing.table import layer_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Comparison:
    """Accuracy and firing of a quantized network against its baseline (`_fp`) on the same images.

    Parameters
    ----------
    accuracy, accuracy_fp
        Shares of images classified correctly, 0 to 1.
    agreement
        Share of images that both networks put in the same class.
    baseline, quantized
        The counted spikes.
    layers
        Drift of each layer, in the model's order.
    overall
        Drift of the network: accuracy, accuracy_fp, agreement, and what `overall_drift` explains key by key.
    """

    accuracy: float
    accuracy_fp: float
    agreement: float
    baseline: SpikeCounts
    quantized: SpikeCounts
    layers: tuple[LayerDrift, ...]
    overall: dict[str, float | int]

    @classmethod
    def of(
        cls, baseline: SpikeCounts, quantized: SpikeCounts, *, accuracy: float, accuracy_fp: float, agreement: float
    ) -> Comparison:
        """Compare two recordings of the same images.

        Raises
        ------
        ModelError
            If their layers, neuron shapes, T or number of images differ.
        """
        check_match(baseline, quantized)
        layers = tuple(layer_drift(baseline, quantized, layer) for layer in baseline.layers)
        scores = {"accuracy": accuracy, "accuracy_fp": accuracy_fp, "agreement": agreement}
        overall = {**scores, **overall_drift(layers, baseline, quantized)}
        return cls(**scores, baseline=baseline, quantized=quantized, layers=layers, overall=overall)

    @property
    def n_images(self) -> int:
        """Number of images compared."""
        return self.baseline.n_images

    @property
    def T(self) -> int:
        """Time steps per image."""
        return self.baseline.steps

    def table(self) -> str:
        """Plain text of at most 100 columns: the scores, a line per layer, and the overall line."""
        return layer_table(self.layers, self.overall)

    def to_dict(self) -> dict[str, Any]:
        """`{"overall": {...}, "layers": [{...}, ...]}` of plain numbers; values that do not exist are NaN."""
        layers = [{**asdict(layer), "transitions": layer.transitions._asdict()} for layer in self.layers]
        return {"overall": dict(self.overall), "layers": layers}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`to_dict` as JSON text, NaN as null; with `path` also written there.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        text = json.dumps(_without_nan(self.to_dict()), indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_text(path, text)
        return text

    def row(self, **labels: str | float | int | bool | None) -> dict[str, Any]:
        """One flat row for a table of results: the labels given, then the overall values.

        Raises
        ------
        SpecError
            If a label has the name of a value.
        """
        if taken := sorted(set(labels) & set(self.overall)):
            raise SpecError(f"a label must not have the name of a value, got {taken[0]!r}; rename the label")
        return {**labels, **self.overall}

    def figure(self) -> Figure:
        """Distribution of rates per layer for both networks, and each layer's EMD split in shift and shape.

        Raises
        ------
        OutputError
            If matplotlib is not installed.
        """
        from isofire.firing.figure import drift_figure

        return drift_figure(self.baseline, self.quantized, self.layers)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
