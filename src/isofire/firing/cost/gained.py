"""Two networks' costs side by side: what quantizing gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isofire.errors import ModelError
from isofire.firing.cost.report import Cost

_KIB = 8 * 1024


@dataclass(frozen=True, kw_only=True)
class CostComparison:
    """Costs of a baseline and of its quantized version on the same images.

    Raises
    ------
    ModelError
        If their layers of neurons, T or numbers of images differ.
    """

    baseline: Cost
    quantized: Cost

    def __post_init__(self) -> None:
        first, second = (self._frame(cost) for cost in (self.baseline, self.quantized))
        if first != second:
            raise ModelError(
                f"costs can be compared of the same neurons, steps and images, got (T, images, neurons) {first} and "
                f"{second}; measure both networks on the same images"
            )

    @staticmethod
    def _frame(cost: Cost) -> tuple[Any, ...]:
        return cost.T, cost.n_images, tuple((layer.name, layer.neurons) for layer in cost.neurons)

    def row(self) -> dict[str, float | str | None]:
        """Flat values for a table of results; those of the baseline end in `_fp`.

        `synops_p50` and `synops_p99` over images, `macs`, `weight_kib`, `state_kib`, `energy_uj` (estimated at 45 nm),
        and `cost_left_out`, which names what is in none of them.
        """
        found: dict[str, float | str | None] = {}
        for end, cost in (("", self.quantized), ("_fp", self.baseline)):
            found |= {f"{name}{end}": value for name, value in _numbers(cost).items()}
        left = dict.fromkeys(map(str, (*self.baseline.left_out, *self.quantized.left_out)))
        return {**found, "cost_left_out": "; ".join(left) or None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"baseline": self.baseline.to_dict(), "quantized": self.quantized.to_dict(), "row": self.row()}

    def table(self) -> str:
        """Plain text of at most 100 columns."""
        before, after = self.baseline, self.quantized
        head = f"{'':<34} {'baseline':>16} {'quantized':>16} {'change':>9}"
        lines = [f"one inference, T = {after.T}, over {after.n_images:,} images", "", head, "-" * len(head)]
        rows: Sequence[tuple[str, float, float, int]] = (
            ("SynOps, mean", before.synops.mean, after.synops.mean, 0),
            ("SynOps, p50", before.synops.p50, after.synops.p50, 0),
            ("SynOps, p99", before.synops.p99, after.synops.p99, 0),
            ("SynOps over non-zero weights, mean", _nonzero(before), _nonzero(after), 0),
            ("MACs (static input once)", before.macs(), after.macs(), 0),
            ("spikes, mean", before.spikes.mean, after.spikes.mean, 0),
            ("spikes, p99", before.spikes.p99, after.spikes.p99, 0),
            ("address events (AER), bits", before.aer_bits, after.aer_bits, 0),
            ("weights, KiB", before.memory.weight_bits / _KIB, after.memory.weight_bits / _KIB, 1),
            ("states, KiB", before.memory.state_bits / _KIB, after.memory.state_bits / _KIB, 1),
            ("energy, uJ (estimated at 45 nm)", before.energy().total / 1e6, after.energy().total / 1e6, 3),
        )
        lines += [f"{name:<34} {a:>16,.{digits}f} {b:>16,.{digits}f} {_change(a, b):>9}" for name, a, b, digits in rows]
        head = f"{'layer':<30} {'SynOps':>13} {'quantized':>13} {'change':>9} {'MACs':>13} {'bits':>9}"
        lines += ["", head, "-" * len(head)]
        theirs = {layer.name: layer for layer in before.synapses}
        for layer in after.synapses:
            other = theirs.get(layer.name, layer)
            bits = f"{before.bits_of(layer.name)} -> {after.bits_of(layer.name)}"
            lines.append(
                f"{layer.name[-30:]:<30} {other.synops.mean:>13,.0f} {layer.synops.mean:>13,.0f} "
                f"{_change(other.synops.mean, layer.synops.mean):>9} {layer.macs_once:>13,.0f} {bits:>9}"
            )
        return "\n".join([*lines, *after.notes()])


def _numbers(cost: Cost) -> dict[str, float]:
    return {
        "synops_p50": cost.synops.p50,
        "synops_p99": cost.synops.p99,
        "macs": float(cost.macs()),
        "weight_kib": cost.memory.weight_bits / _KIB,
        "state_kib": cost.memory.state_bits / _KIB,
        "energy_uj": cost.energy().total / 1e6,
    }


def _nonzero(cost: Cost) -> float:
    return sum(layer.synops_nonzero.mean for layer in cost.synapses)


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else ""
