"""What was found in each layer of neurons of a network, as a table and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isofire.quantization.diagnosis.fault import Fault
from isofire.text_table import TableShown, TextTable


@dataclass(frozen=True, kw_only=True)
class LayerDiagnosis:
    """One layer of neurons.

    Parameters
    ----------
    layer
        Its name.
    placement
        Where its membrane is quantized, "pre_fire" or "post_reset"; None where it is not.
    threshold
        The firing threshold; lowest and highest, where neurons differ. None for neurons that have none.
    fires_from
        The potential above which a neuron does fire, since a level is compared in its place; lowest and highest over
        channels. inf: never. The threshold itself at post_reset and in full precision. None without one.
    levels, levels_used
        How many levels the membrane has, and how many any state took: the mean over channels where each has its own.
        None without a quantizer; `levels_used` without data.
    below, above
        Shares of the states, as the network itself evokes them, that lie below the lowest level and above the highest.
    neurons
        Their number; None without data.
    rate, dead
        Spikes per neuron per step, and share of neurons without any; None without data.
    rate_baseline, dead_baseline
        The same in full precision; None without a baseline.
    silent_channels
        Channels without a spike that made at least 10 in full precision; None without a baseline.
    faults
        What is wrong with it.
    """

    layer: str
    placement: str | None
    threshold: tuple[float, float] | None = None
    fires_from: tuple[float, float] | None = None
    levels: int | None = None
    levels_used: float | None = None
    below: float | None = None
    above: float | None = None
    neurons: int | None = None
    rate: float | None = None
    rate_baseline: float | None = None
    dead: float | None = None
    dead_baseline: float | None = None
    silent_channels: int | None = None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Diagnosis(TableShown):
    """All layers of neurons of a network, in the order of the model.

    Parameters
    ----------
    layers
        One each.
    n_images, T
        How many images were shown, and steps each; 0 without data.
    """

    layers: tuple[LayerDiagnosis, ...]
    n_images: int
    T: int

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Of all layers."""
        return tuple(fault for layer in self.layers for fault in layer.faults)

    @property
    def healthy(self) -> bool:
        """Whether no layer is broken; notes do not count."""
        return not any(fault.state == "broken" for fault in self.faults)

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int | None = None) -> str:
        """Plain text: a line a layer, then what is wrong, with its cure."""
        columns = _columns(self.layers)
        rows = [[cells[i] for cells in columns.values()] for i in range(len(self.layers))]
        shown = f"n = {self.n_images:,} images, T = {self.T}" if self.n_images else "no data: firing was not looked at"
        shown += "; dead: neurons without a spike on them" if "dead %" in columns else ""
        lines = [TextTable(list(columns), rows).text(width), "", shown, *([""] if self.faults else [])]
        for place, fault in enumerate(self.faults):
            lines += [f"{fault.state:<7} {fault.layer}: {fault.found}"]
            # what helps many layers is said once
            after = self.faults[place + 1] if place + 1 < len(self.faults) else None
            if after is None or (after.state, after.cure) != (fault.state, fault.cure):
                lines += [f"{'':7} -> {fault.cure}"]
        broken = sum(fault.state == "broken" for fault in self.faults)
        return "\n".join([*lines, "", f"{broken} broken" if broken else "no layer is broken"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values: "healthy", "n_images", "T", "layers", "faults"."""
        layers = [{key: value for key, value in asdict(layer).items() if key != "faults"} for layer in self.layers]
        faults = [asdict(fault) for fault in self.faults]
        return {
            "healthy": self.healthy, "n_images": self.n_images, "T": self.T, "layers": layers, "faults": faults,
        }  # fmt: skip


def span(values: tuple[float, float]) -> str:
    """A lowest and a highest value; one, where they are equal as printed."""
    low, high = values
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g}..{high:.3g}"


def _columns(layers: Sequence[LayerDiagnosis]) -> dict[str, list[str]]:
    """Title -> its cells; columns without anything are left out."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}"

    def rate(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    columns = {
        "layer": [layer.layer for layer in layers],
        "neurons": ["" if layer.neurons is None else f"{layer.neurons:,}" for layer in layers],
        "V_th": ["" if layer.threshold is None else span(layer.threshold) for layer in layers],
        "fires from": ["" if layer.fires_from is None else span(layer.fires_from) for layer in layers],
        "levels": ["" if layer.levels is None else f"{layer.levels}" for layer in layers],
        "used": ["" if layer.levels_used is None else f"{layer.levels_used:.4g}" for layer in layers],
        "below %": [share(layer.below) for layer in layers],
        "above %": [share(layer.above) for layer in layers],
        "rate": [rate(layer.rate) for layer in layers],
        "rate fp": [rate(layer.rate_baseline) for layer in layers],
        "dead %": [share(layer.dead) for layer in layers],
        "dead fp %": [share(layer.dead_baseline) for layer in layers],
    }
    return {title: cells for title, cells in columns.items() if any(cells)}
