"""Which change of a chip moved a layer's firing, or silenced it, and which way of lowering mends that: measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from isofire.batches import Data
from isofire.errors import SpecError
from isofire.firing import Comparison
from isofire.firing.compare import observe_together
from isofire.integer.hardware import HardwareSpec
from isofire.integer.lowering import lower
from isofire.integer.network import IntegerNetwork
from isofire.integer.steps import STATES, Steps

_MOVED = 0.1
"""A layer whose rate changes by less, relatively, is left alone."""
_WAYS: tuple[dict[str, str], ...] = (
    {"shift_by": "factor"},
    {"gain": "l2"},
    {"shift_by": "factor", "gain": "l2"},
)
"""Other ways of lowering that are tried."""


@dataclass(frozen=True)
class Cure:
    """Another way of lowering: its options, the layer's rate, drift (EMD as mean over layers), accuracy."""

    options: dict[str, str]
    rate: float
    emd: float
    accuracy: float

    def __str__(self) -> str:
        named = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.options.items())
        return f"{named}: rate {self.rate:.4f}, EMD (layer mean) {self.emd:.5f}, accuracy {self.accuracy:.4f}"


@dataclass(frozen=True)
class Finding:
    """The first layer whose firing the chip changes most.

    Parameters
    ----------
    layer
        Of neurons.
    float_rate, chip_rate
        Spikes a neuron and step.
    cause
        The change that alone moves it farthest the same way: a name of `APPROXIMATIONS`.
    cause_rate
        The layer's rate with that change alone; None for the states, which are measured on top of all others.
    says
        What the change was, as the chip's refusals say it.
    advice
        What they give as the cure.
    cures
        Other ways of lowering that bring the network nearer, the best first.
    """

    layer: str
    float_rate: float
    chip_rate: float
    cause: str
    cause_rate: float | None
    says: tuple[str, ...]
    advice: tuple[str, ...]
    cures: tuple[Cure, ...]

    @property
    def is_silent(self) -> bool:
        """Whether a layer that fires no longer does."""
        return self.chip_rate == 0.0 < self.float_rate

    def __str__(self) -> str:
        what = "falls silent" if self.is_silent else "fires otherwise"
        alone = "" if self.cause_rate is None else f" (alone: {self.cause_rate:.4f})"
        lines = [
            f"layer {self.layer!r} {what}: {self.float_rate:.4f} -> {self.chip_rate:.4f}, by its {self.cause}{alone}"
        ]
        lines += [f"  why   {text}" for text in self.says]
        lines += [f"  mend  {cure}" for cure in self.cures]
        lines += [f"  else  {text}" for text in self.advice]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layer": self.layer, "silent": self.is_silent, "float_rate": self.float_rate, "chip_rate": self.chip_rate,
            "cause": self.cause, "cause_rate": self.cause_rate, "says": list(self.says), "advice": list(self.advice),
            "cures": [asdict(cure) for cure in self.cures],
        }  # fmt: skip


def diagnose(
    model: nn.Module,
    network: IntegerNetwork,
    steps: Steps,
    example: Tensor,
    data: Data,
    *,
    options: dict[str, str],
    batch_size: int = 64,
) -> Finding | None:
    """Find what a chip does to the firing and what mends it; None if no layer's rate changes by a tenth.

    Of layers that fall silent the first counts, since what follows gets nothing; else the one that changes most.

    Parameters
    ----------
    model, network, steps
        The float network, what was lowered from it, and what `steps_of` found.
    example, data, batch_size
        As in `lower` and `steps_of`.
    options
        With which `network` was lowered: shift_by and gain.
    """
    if network.mapping is None:
        raise SpecError("only a network that was lowered onto a chip is diagnosed; give lower() hardware=")
    rates = steps.rates()
    moved = {name: _moved(row["float"], row["chip"]) for name, row in rates.items()}
    silent = [name for name, row in rates.items() if row["chip"] == 0.0 < row["float"]]
    layer = silent[0] if silent else max(moved, key=lambda name: abs(moved[name]))
    if abs(moved[layer]) < _MOVED:
        return None
    row = rates[layer]
    cause = _cause(row, steps, layer)
    named = (layer, next(item.stage.layer_name for item in network.mapping.layers if item.name == layer))
    about = [refusal for refusal in network.mapping.refusals if refusal.rule == cause]
    here = [refusal for refusal in about if refusal.layer in named] or about
    cures = _cures(model, network.mapping.spec, steps, layer, example, data, options, batch_size)
    return Finding(
        layer, row["float"], row["chip"], cause, row.get(cause),
        tuple(dict.fromkeys(refusal.says for refusal in here)),
        tuple(dict.fromkeys(refusal.cure for refusal in here)), cures,
    )  # fmt: skip


def _moved(before: float, after: float) -> float:
    return after / before - 1 if before else float(after > 0)


def _cause(row: dict[str, float], steps: Steps, layer: str) -> str:
    """The change that moves the layer farthest in the direction in which the chip moved it."""
    sign = 1 if row["chip"] > row["float"] else -1
    alone = {name: sign * (row[name] - row["float"]) for name in steps.alone}
    place = [item.layer for item in steps.states.layers].index(layer)
    for name, found in ((STATES, steps.states), ("biases", steps.early), ("spikes", steps.several)):
        if found is not None:
            by = sign * (found.layers[place].mfr - found.layers[place].mfr_fp)
            alone[name] = max(by, alone.get(name, by))
    return max(alone, key=lambda name: alone[name])


def _cures(
    model: nn.Module, spec: HardwareSpec, steps: Steps, layer: str, example: Tensor, data: Data,
    options: dict[str, str], batch_size: int,
) -> tuple[Cure, ...]:  # fmt: skip
    """Other ways that lower the drift, measured in one pass."""
    ways = {tuple({**options, **way}.items()): {**options, **way} for way in _WAYS}
    ways.pop(tuple(options.items()), None)
    made = [lower(model, example, hardware=spec, approximate=True, **way) for way in ways.values()]  # type: ignore[arg-type]
    seen = observe_together([model, *made], data, batch_size=batch_size)
    found = [Comparison.observed(seen[0], observed) for observed in seen[1:]]
    place = [item.layer for item in steps.everything.layers].index(layer)
    cures = [
        Cure(way, comparison.layers[place].mfr, float(comparison.overall["emd_layer_mean"]), comparison.accuracy)
        for way, comparison in zip(ways.values(), found, strict=True)
    ]
    better = [cure for cure in cures if cure.emd < steps.everything.overall["emd_layer_mean"]]
    return tuple(sorted(better, key=lambda cure: cure.emd))
