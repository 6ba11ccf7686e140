"""The result of a comparison: per-layer and overall drift, with its table, JSON, CSV row and figure."""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from isofire.errors import SpecError
from isofire.files import write_text
from isofire.firing.aggregate import overall_drift
from isofire.firing.cost.bound import SynOpsDrifts, synops_drift
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.firing.counts import SpikeCounts
from isofire.firing.drift import LayerDrift, check_match, layer_drift
from isofire.firing.evidence.decisions import Decisions
from isofire.firing.evidence.noise_floor import NoiseFloor
from isofire.firing.evidence.summary import Evidence, evidence_or_reason
from isofire.firing.observation import Observation, require_same_images
from isofire.firing.table import drift_table, evidence_table, layer_table, noise_table, synops_lines
from isofire.json_text import to_json_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
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
    floor
        What drift is shown beside; None takes the baseline on other images, see `isofire.firing.evidence.noise_floor`.
    reached
        Synaptic operations that a spike of each neuron causes, see `isofire.firing.cost.synops_per_spike`; None if
        unknown.
    decisions
        On how many images the classes changed, with intervals; None if only the scores are known.
    """

    accuracy: float
    accuracy_fp: float
    agreement: float
    baseline: SpikeCounts
    quantized: SpikeCounts
    layers: tuple[LayerDrift, ...]
    overall: dict[str, float | int]
    floor: NoiseFloor | None = None
    reached: SynopsPerSpike | None = None
    decisions: Decisions | None = None

    @classmethod
    def observed(
        cls,
        before: Observation,
        after: Observation,
        *,
        floor: NoiseFloor | None = None,
        reached: SynopsPerSpike | None = None,
    ) -> Comparison:
        """Compare what two networks did on the same images.

        Raises
        ------
        DataError
            If they saw other images, or in another order.
        ModelError
            As `of`.
        """
        require_same_images(before, after)
        found = Decisions.of(before.predictions, after.predictions, after.labels)
        return cls.of(
            before.counts,
            after.counts,
            accuracy=after.accuracy,
            accuracy_fp=before.accuracy,
            agreement=found.agreeing / found.images,
            floor=floor,
            reached=reached,
            decisions=found,
        )

    @classmethod
    def of(
        cls,
        baseline: SpikeCounts,
        quantized: SpikeCounts,
        *,
        accuracy: float,
        accuracy_fp: float,
        agreement: float,
        floor: NoiseFloor | None = None,
        reached: SynopsPerSpike | None = None,
        decisions: Decisions | None = None,
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
        return cls(
            **scores,
            baseline=baseline,
            quantized=quantized,
            layers=layers,
            overall=overall,
            floor=floor,
            reached=reached,
            decisions=decisions,
        )

    @property
    def n_images(self) -> int:
        """Number of images compared."""
        return self.baseline.n_images

    @property
    def T(self) -> int:
        """Time steps per image."""
        return self.baseline.steps

    @property
    def evidence(self) -> Evidence | None:
        """Intervals and floors of every measure; None where the images fill fewer than 5 blocks. Computed once."""
        return self._evidence[0]

    @cached_property
    def _evidence(self) -> tuple[Evidence | None, str]:
        return evidence_or_reason(self.baseline, self.quantized, self.floor)

    @cached_property
    def synops(self) -> SynOpsDrifts | None:
        """Synaptic operations of both networks, and how far drift could have moved them; None without `reached`."""
        return None if self.reached is None else synops_drift(self.baseline, self.quantized, self.reached)

    def __repr__(self) -> str:
        drift = f"EMD {self.overall['emd_layer_mean']:.5f} over {len(self.layers)} layers"
        return (
            f"Comparison(accuracy {self.accuracy:.4f} (fp {self.accuracy_fp:.4f}), {drift}, {self.n_images:,} images)"
        )

    def _repr_html_(self) -> str:
        noise = "" if self.evidence is None else noise_table(self.evidence, self.layers).html()
        return f"<p>{escape(repr(self))}</p>{drift_table(self.layers, self.overall).html()}{noise}"

    def table(self, width: int | None = None) -> str:
        """Plain text: scores, a line per layer, the overall line; EMD and its noise; SynOps.

        Tables are as wide as the screen, or at most 100 columns in a file or pipe, unless `width` says otherwise.
        """
        found, reason = self._evidence
        drift = layer_table(self.layers, self.overall, self.decisions, width)
        noise = (
            evidence_table(found, self.layers, width)
            if found is not None
            else textwrap.fill(f"no intervals: {reason}", 100)
        )
        parts = [drift, noise]
        if self.synops is not None:
            parts.append(synops_lines(self.synops))
        elif self.decisions is not None:
            # `compare` looked for the synapses; two bare recordings have none
            parts.append("SynOps: not known, spikes could not be followed to synapses (isofire.firing.cost)")
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: "overall", "layers", "evidence", "decisions", "synops"; what does not exist is NaN or None."""
        layers = [layer.to_dict() for layer in self.layers]
        noise = None if self.evidence is None else self.evidence.to_dict()
        cost = None if self.synops is None else self.synops.to_dict()
        votes = None if self.decisions is None else self.decisions.to_dict()
        overall = dict(self.overall)
        return {"overall": overall, "layers": layers, "evidence": noise, "decisions": votes, "synops": cost}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`to_dict` as JSON text, NaN as null; with `path` also written there.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        text = to_json_text(self.to_dict())
        if path is not None:
            write_text(path, text)
        return text

    def row(self, **labels: str | float | int | bool | None) -> dict[str, Any]:
        """One flat row for a table of results: the labels given, the overall values, and EMD's noise.

        The last are `emd_low` and `emd_high` (95 % interval of `emd_layer_mean` on so many images), `emd_noise`
        (what unchanged rates would show), `emd_true_low` and `emd_true_high` (range for true rates), `emd_floor`,
        `emd_over_floor`, `within_noise`, and `floor`, which says of what kind it is; then `synops`, `synops_fp` and
        `synops_bound`, the most that they can differ by, and `synops_left_out`. None where there is no `evidence`, or
        no `synops`; the numbers of SynOps are None too where something is left out of them, which is named then.

        Raises
        ------
        SpecError
            If a label has the name of a value.
        """
        values = {**self.overall, **self._noise(), **self._cost()}
        if taken := sorted(set(labels) & set(values)):
            raise SpecError(f"a label must not have the name of a value, got {taken[0]!r}; rename the label")
        return {**labels, **values}

    def _noise(self) -> dict[str, float | str | None]:
        if self.evidence is None:
            return dict.fromkeys(EMD_NOISE)
        found = self.evidence.against()
        return {
            "emd_low": found.interval.low,
            "emd_high": found.interval.high,
            "emd_noise": found.interval.noise,
            "emd_true_low": found.interval.true_low,
            "emd_true_high": found.interval.true_high,
            "emd_floor": None if found.floor is None else found.floor.value,
            "emd_over_floor": found.ratio if math.isfinite(found.ratio) else None,
            "within_noise": found.within_noise,
            "floor": self.evidence.floor.kind,
        }

    def _cost(self) -> dict[str, float | str | None]:
        missing = () if self.synops is None else self.synops.left_out
        total = None if self.synops is None or missing else self.synops.overall
        return {
            "synops": None if total is None else total.quantized,
            "synops_fp": None if total is None else total.baseline,
            "synops_bound": None if total is None else total.bound,
            "synops_left_out": "; ".join(map(str, missing)) or None,
        }

    def figure(self) -> Figure:
        """Distribution of rates per layer for both networks, and each layer's EMD split in shift and shape, with its
        interval and floor where there is `evidence`.

        Raises
        ------
        OutputError
            If matplotlib is not installed.
        """
        from isofire.firing.figure import drift_figure

        return drift_figure(self.baseline, self.quantized, self.layers, self.evidence)


EMD_NOISE = (
    "emd_low", "emd_high", "emd_noise", "emd_true_low", "emd_true_high", "emd_floor", "emd_over_floor", "within_noise",
    "floor",
)  # fmt: skip
"""Columns of a row that say how sure EMD is."""
