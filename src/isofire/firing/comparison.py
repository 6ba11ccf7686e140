"""The result of a comparison: per-layer and overall drift, with its table, JSON, CSV row and figure."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from isofire.errors import SpecError
from isofire.files import write_text
from isofire.firing.aggregate import overall_drift
from isofire.firing.cost.bound import SynOpsDrifts, synops_drift
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.firing.cost.unreached import Unreached
from isofire.firing.counts import SpikeCounts
from isofire.firing.drift import LayerDrift, check_match, layer_drift
from isofire.firing.evidence.chance import Chance
from isofire.firing.evidence.decisions import Decisions
from isofire.firing.evidence.kept import Kept, kept, own_floor
from isofire.firing.evidence.noise_floor import NoiseFloor
from isofire.firing.evidence.outcome import HEADLINE, Margins
from isofire.firing.evidence.summary import Evidence, evidence_or_reason
from isofire.firing.observation import Observation, require_same_images
from isofire.firing.table import drift_table, evidence_table, kept_lines, layer_table, noise_table, synops_lines
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
    reached, reached_fp
        Synaptic operations that a spike of each neuron causes in each network, see
        `isofire.firing.cost.synops_per_spike`, or why they are not known; None where they were not looked for.
    decisions
        On how many images the classes changed, with intervals; None if only the scores are known.
    chance
        The baseline's accuracy beside guessing; None if only the scores are known.
    """

    accuracy: float
    accuracy_fp: float
    agreement: float
    baseline: SpikeCounts
    quantized: SpikeCounts
    layers: tuple[LayerDrift, ...]
    overall: dict[str, float | int]
    floor: NoiseFloor | None = None
    reached: SynopsPerSpike | Unreached | None = None
    reached_fp: SynopsPerSpike | Unreached | None = None
    decisions: Decisions | None = None
    chance: Chance | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.floor, NoiseFloor | None):
            raise SpecError(
                f"floor must be a NoiseFloor (isofire.firing.evidence.noise_floor) or None, got {self.floor!r}; None "
                "takes the baseline on other images"
            )

    @classmethod
    def observed(cls, before: Observation, after: Observation, *, floor: NoiseFloor | None = None) -> Comparison:
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
            reached=after.reached,
            reached_fp=before.reached,
            decisions=found,
            chance=before.chance,
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
        reached: SynopsPerSpike | Unreached | None = None,
        reached_fp: SynopsPerSpike | Unreached | None = None,
        decisions: Decisions | None = None,
        chance: Chance | None = None,
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
            reached_fp=reached_fp,
            decisions=decisions,
            chance=chance,
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
    def doubt(self) -> str | None:
        """Why the baseline is no reference, see `Chance.doubt`; None if it is one, or that is not known."""
        return None if self.chance is None else self.chance.doubt

    @property
    def evidence(self) -> Evidence | None:
        """Intervals and floors of every measure; None where the images fill fewer than 5 blocks. Computed once."""
        return self._evidence[0]

    @cached_property
    def _evidence(self) -> tuple[Evidence | None, str]:
        return evidence_or_reason(self.baseline, self.quantized, self.floor)

    @cached_property
    def synops(self) -> SynOpsDrifts | None:
        """Synaptic operations of both networks, and how far drift could have moved them; None where they are not known
        of both."""
        if not (isinstance(self.reached, SynopsPerSpike) and isinstance(self.reached_fp, SynopsPerSpike)):
            return None
        return synops_drift(self.baseline, self.quantized, self.reached_fp, self.reached)

    @property
    def unknown_neurons(self) -> tuple[LeftOut, ...]:
        """What gives spikes in either network and is in no rate, since isofire does not know it as neurons."""
        known = [item for item in (self.reached_fp, self.reached) if item is not None]
        return tuple({item.name: item for found in known for item in found.unknown_neurons}.values())

    @property
    def unknown_synops(self) -> str | None:
        """Why there are no `synops`; None where there are, or nobody looked for them."""
        found = {"the quantized network": self.reached, "the baseline": self.reached_fp}
        told = {network: reached.reason for network, reached in found.items() if isinstance(reached, Unreached)}
        if len(told) == 1 or len(set(told.values())) > 1:
            return "; ".join(f"of {network}, {why}" for network, why in told.items())
        if told:
            return next(iter(told.values()))
        missing = [network for network, reached in found.items() if reached is None]
        return None if len(missing) != 1 else f"what a spike costs in {missing[0]} was not found; observe it anew"

    def __repr__(self) -> str:
        drift = f"EMD {self.overall[HEADLINE]:.5f} over {len(self.layers)} layers"
        return (
            f"Comparison(accuracy {self.accuracy:.4f} (fp {self.accuracy_fp:.4f}), {drift}, {self.n_images:,} images)"
        )

    def _repr_html_(self) -> str:
        noise = "" if self.evidence is None else noise_table(self.evidence, self.layers).html()
        said = escape("; ".join(kept_lines(self.kept(), Margins(), self.doubt, self.unknown_neurons)))
        return f"<p>{escape(repr(self))}<br>{said}</p>{drift_table(self.layers, self.overall).html()}{noise}"

    def table(self, width: int | None = None, margins: Margins | None = None) -> str:
        """Plain text: what is kept, scores, a line per layer, the overall line; EMD and its noise; SynOps.

        Tables are as wide as the screen, or at most 100 columns in a file or pipe, unless `width` says otherwise.
        """
        found, reason = self._evidence
        drift = layer_table(self.layers, self.overall, self.decisions, width)
        noise = (
            evidence_table(found, self.layers, width)
            if found is not None
            else textwrap.fill(f"no intervals: {reason}", 100)
        )
        allowed = margins or Margins()
        verdict = kept_lines(self.kept(allowed), allowed, self.doubt, self.unknown_neurons)
        parts = ["\n".join(verdict), drift, noise]
        if self.synops is not None:
            parts.append(synops_lines(self.synops))
        elif self.unknown_synops is not None:
            parts.append(textwrap.fill(f"SynOps: not known, {self.unknown_synops}", 100))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: "overall", "layers", "evidence", "decisions", "chance", "synops" and "left_out", spikes that
        are in no rate; what does not exist is NaN or None.
        """
        layers = [layer.to_dict() for layer in self.layers]
        noise = None if self.evidence is None else self.evidence.to_dict()
        cost = None if self.synops is None else self.synops.to_dict()
        votes = None if self.decisions is None else self.decisions.to_dict()
        chance = None if self.chance is None else self.chance.to_dict()
        found = {"overall": dict(self.overall), "layers": layers, "evidence": noise, "decisions": votes}
        return {**found, "chance": chance, "synops": cost, "left_out": [asdict(item) for item in self.unknown_neurons]}

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

    def row(self, margins: Margins | None = None, /, **labels: str | float | int | bool | None) -> dict[str, Any]:
        """One flat row for a table of results: the labels given, the overall values, and EMD's noise.

        The last are, for the headline `emd_weighted` and for the mean over layers (`emd`), the 95 % interval
        (`emd_weighted_low`, `emd_low`, ...), what unchanged rates would show (`_noise`), the range for true rates
        (`_true_low`, `_true_high`) and the noise floor as a unit with its interval (`_floor`, `_floor_low`,
        `_floor_high`), then `floor`, its kind; `images_lost` and `images_won`; `accuracy_chance`, what guessing as the
        baseline does is right on; the verdict by `margins`
        (None: the default), see `isofire.firing.evidence.kept`; `firing_left_out`, what gives spikes that are in no
        rate; then `synops`, `synops_fp` and `synops_bound`, the most
        that they can differ by, `synops_left_out` and `synops_by_input`. None where there is no `evidence`, or no
        `synops`; the numbers of SynOps are None too where something is left out of them, which is named then. Layers
        that the inputs' own events drive are in none of them and named in the last; both networks have the same there.

        Raises
        ------
        SpecError
            If a label has the name of a value.
        """
        values = {**self.overall, **self._noise()}
        values |= {**self.kept(margins, row=values).columns(), **self._cost()}
        if taken := sorted(set(labels) & set(values)):
            raise SpecError(f"a label must not have the name of a value, got {taken[0]!r}; rename the label")
        return {**labels, **values}

    def kept(self, margins: Margins | None = None, *, row: Mapping[str, Any] | None = None) -> Kept:
        """Whether accuracy and firing are kept; `row` saves making it again."""
        found = {**self.overall, **self._noise()} if row is None else row
        return kept([found], [own_floor(found, HEADLINE)], margins, HEADLINE)

    def _noise(self) -> dict[str, Any]:
        votes, chance = self.decisions, self.chance
        found: dict[str, Any] = dict.fromkeys(EMD_NOISE)
        found["firing_left_out"] = "; ".join(map(str, self.unknown_neurons)) or None
        if votes is not None:
            found |= {"images_lost": votes.lost, "images_won": votes.won}
        if chance is not None:
            found |= {"accuracy_chance": chance.guessing}
        if self.evidence is None:
            return found
        for stem, measure in (("emd", "emd_layer_mean"), (HEADLINE, HEADLINE)):
            against = self.evidence.against(measure)
            found |= {f"{stem}_{key}": getattr(against.interval, key) for key in _OF_INTERVAL}
            if (floor := against.floor) is not None:
                unit = floor.unit
                found |= {f"{stem}_floor": unit.value}
                if not math.isnan(unit.low):
                    found |= {f"{stem}_floor_low": unit.low, f"{stem}_floor_high": unit.high}
        return {**found, "floor": self.evidence.floor.kind}

    def _cost(self) -> dict[str, float | str | None]:
        missing = () if self.synops is None else self.synops.left_out
        total = None if self.synops is None or missing else self.synops.overall
        return {
            "synops": None if total is None else total.quantized,
            "synops_fp": None if total is None else total.baseline,
            "synops_bound": None if total is None else total.bound,
            "synops_left_out": "; ".join(map(str, missing)) or self.unknown_synops,
            "synops_by_input": None if self.synops is None else "; ".join(map(str, self.synops.by_input)) or None,
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


_OF_INTERVAL = ("low", "high", "noise", "true_low", "true_high")
EMD_NOISE = (
    *(f"{stem}_{key}" for stem in (HEADLINE, "emd") for key in (*_OF_INTERVAL, "floor", "floor_low", "floor_high")),
    "floor", "images_lost", "images_won", "accuracy_chance",
)  # fmt: skip
"""Columns of a row that say how sure EMD and accuracy are."""
