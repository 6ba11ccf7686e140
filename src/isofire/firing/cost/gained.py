"""Two networks' costs side by side: what quantizing gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isofire.errors import ModelError
from isofire.firing.cost.report import Cost
from isofire.text_table import TableShown, TextTable

_KIB = 8 * 1024


@dataclass(frozen=True, kw_only=True)
class CostComparison(TableShown):
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
        """Plain text."""
        before, after = self.baseline, self.quantized
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
        whole = [[name, f"{a:,.{digits}f}", f"{b:,.{digits}f}", _change(a, b)] for name, a, b, digits in rows]
        theirs = {layer.name: layer for layer in before.synapses}
        layers = [
            [
                layer.name,
                f"{(other := theirs.get(layer.name, layer)).synops.mean:,.0f}",
                f"{layer.synops.mean:,.0f}",
                _change(other.synops.mean, layer.synops.mean),
                f"{layer.macs_once:,.0f}",
                f"{before.bits_of(layer.name)} -> {after.bits_of(layer.name)}",
            ]
            for layer in after.synapses
        ]
        tables = (
            TextTable(["", "baseline", "quantized", "change"], whole),
            TextTable(["layer", "SynOps", "quantized", "change", "MACs", "bits"], layers),
        )
        head = f"one inference, T = {after.T}, over {after.n_images:,} images"
        notes = dict.fromkeys((*after.notes(), *before.notes()))
        return "\n".join([head, *(f"\n{table.text()}" for table in tables), *notes])


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
