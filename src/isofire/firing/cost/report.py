"""What one inference costs: operations, events, memory and energy, layer by layer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from isofire.conversion import convert
from isofire.firing.cost.energy import At, Energy, EnergyConstants, LayerWork, NeuronWork, estimate
from isofire.firing.cost.following.inside import RECURRENCE
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.cost.memory import FLOAT_BITS, Memory, StateMemory
from isofire.firing.cost.percentiles import Percentiles
from isofire.text_table import TableShown, TextTable

FirstLayer = Literal["once", "every_step"]


@dataclass(frozen=True, kw_only=True)
class SynapseCost:
    """One weighted layer, for one inference (T steps).

    A layer is event-driven if what arrives is a sum of spikes or of other whole numbers >= 0. Each event costs an
    accumulate for each of its synapses: `synops`. A sum of v spikes (SEW's ADD) is v events, an average of spikes is as
    many as spikes come to it. Any other layer (pixels, currents) multiplies: every input costs a multiply-accumulate
    for each of its synapses, `macs`, whether it is 0 or not.

    Parameters
    ----------
    name, event_driven
        The layer, and its kind.
    synops, synops_nonzero
        Accumulates, over all synapses and over those whose weight is not 0.
    macs_once, macs_every_step
        Multiply-accumulates, where a static input is worked on once and reused, and where it is at every step. Equal
        for a layer whose inputs change with the step.
    events
        Non-zero inputs, whatever their value.
    events_per_step
        The same for each step; one entry if the layer sees its input once, or its steps are not known.
    density
        Share of inputs that are not 0.
    effective
        Share of synapses and steps with a non-zero input and a non-zero weight; what is left is effective sparsity.
    fan_in
        Synapses that end in one output.
    weights
        Numbers that it reads as weights: those that are stored, or that are made of what is stored; 0 for products of
        activations.
    through
        Operations between neurons and here that are not linear, such as maximum pooling: what they give is counted,
        value by value, so the operations depend on which spikes coincide.
    """

    name: str
    event_driven: bool
    synops: Percentiles
    synops_nonzero: Percentiles
    macs_once: float
    macs_every_step: float
    events: Percentiles
    events_per_step: tuple[Percentiles, ...]
    density: float
    effective: float
    fan_in: int
    weights: int = 0
    through: tuple[str, ...] = ()

    @property
    def effective_sparsity(self) -> float:
        """Share of synapses and steps at which either the input or the weight is 0."""
        return 1 - self.effective

    def macs(self, first_layer: FirstLayer) -> float:
        """Multiply-accumulates under either reading of direct coding; SpecError for any other."""
        convert(first_layer, FirstLayer, "first_layer")
        return self.macs_once if first_layer == "once" else self.macs_every_step


@dataclass(frozen=True, kw_only=True)
class NeuronCost:
    """One layer of neurons, for one inference.

    Parameters
    ----------
    name, neurons
        The layer and its number of neurons.
    spikes
        Spikes of an image.
    spikes_per_step
        Spikes of an image in each step: what a queue must hold.
    """

    name: str
    neurons: int
    spikes: Percentiles
    spikes_per_step: tuple[Percentiles, ...]

    @property
    def address_bits(self) -> int:
        """Bits that tell a layer's neurons apart."""
        return math.ceil(math.log2(self.neurons)) if self.neurons > 1 else 0

    @property
    def aer_bits(self) -> float:
        """Mean bits of address events (AER) of an inference: an address a spike, time implied by the step."""
        return self.spikes.mean * self.address_bits


@dataclass(frozen=True, kw_only=True)
class Cost(TableShown):
    """One network's cost of an inference, see `isofire.firing.cost.measure_cost`.

    Parameters
    ----------
    synapses, neurons
        Layers with weights, and layers of neurons.
    synops, spikes
        Over all layers: of an image, so its largest value is that of one image.
    memory
        Bits of weights and states.
    n_images, T
        Images behind the numbers, and steps of each.
    left_out
        What the numbers do not contain: operations, states, and spikes of what isofire does not know as neurons.
    """

    synapses: tuple[SynapseCost, ...]
    neurons: tuple[NeuronCost, ...]
    synops: Percentiles
    spikes: Percentiles
    memory: Memory
    n_images: int
    T: int
    left_out: tuple[LeftOut, ...] = ()

    @property
    def aer_bits(self) -> float:
        """Mean bits of address events of an inference."""
        return sum(layer.aer_bits for layer in self.neurons)

    def macs(self, first_layer: FirstLayer = "once") -> float:
        """Multiply-accumulates of an inference, with a static input multiplied "once" or at "every_step"."""
        return sum(layer.macs(first_layer) for layer in self.synapses)

    def energy(
        self,
        *,
        at: At = "real",
        first_layer: FirstLayer = "once",
        skip_zero_weights: bool = False,
        constants: EnergyConstants | None = None,
    ) -> Energy:
        """Estimated energy of an inference, in pJ; see `isofire.firing.cost.energy` for what is in it.

        Parameters
        ----------
        at
            "real": with the bits of weights and states; "float": the same activity at 32 bits.
        first_layer
            Whether a static input is multiplied once and reused, or at every step.
        skip_zero_weights
            Whether synapses of weight 0 cost nothing.
        constants
            Others than the default.

        Raises
        ------
        SpecError
            If `at` or `first_layer` is none of these.
        """
        layers = [
            LayerWork(
                accumulates=(item.synops_nonzero if skip_zero_weights else item.synops).mean,
                macs=item.macs(first_layer),
                weights=max(item.weights, self._stored(item.name)[0]),
                bits=self.bits_of(item.name),
                fan_in=item.fan_in,
            )
            for item in self.synapses
        ]
        neurons = [
            NeuronWork(neurons=held.neurons, steps=self.T, bits=held.bits, others=held.others)
            for held in self.memory.states.values()
        ]
        return estimate(layers, neurons, at, constants)

    def _stored(self, name: str) -> tuple[int, int]:
        """Weights that are stored under a place's name and bits of each; what is made of others, and products of
        activations, are as wide as floats."""
        held = self.memory.weights.get(name)
        return (0, FLOAT_BITS) if held is None else (held.weights, held.bits)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the energy at the real bits and at float."""
        return {
            **asdict(self),
            "aer_bits": self.aer_bits,
            "macs": {"once": self.macs("once"), "every_step": self.macs("every_step")},
            "weight_bits": self.memory.weight_bits,
            "state_bits": self.memory.state_bits,
            "energy_pj": {at: _energy(self.energy(at=at)) for at in get_args(At)},
        }

    def table(self) -> str:
        """Plain text."""
        head = f"one inference, T = {self.T}, over {self.n_images:,} images"
        lines = [head, "", self._places().text(), "", self._spiking().text()]
        real, floating = self.energy(), self.energy(at="float")
        return "\n".join(
            [
                *lines,
                "",
                f"SynOps {self.synops.mean:,.0f} (p50 {self.synops.p50:,.0f}, p99 {self.synops.p99:,.0f}, max "
                f"{self.synops.max:,.0f}), MACs {self.macs():,.0f} (static input once; every step "
                f"{self.macs('every_step'):,.0f})",
                f"weights {self.memory.weight_bits / 8192:,.1f} KiB, states {self.memory.state_bits / 8192:,.1f} KiB, "
                f"AER {self.aer_bits:,.0f} bits",
                f"energy, estimated at 45 nm: {real.total / 1e6:.3f} uJ, at 32 bits {floating.total / 1e6:.3f} uJ",
                *self.notes(),
            ]
        )

    def _places(self) -> TextTable:
        rows = []
        for layer in self.synapses:
            counted = layer.event_driven or layer.synops.max > 0
            rows.append(
                [
                    layer.name,
                    f"{layer.synops.mean:,.0f}" if counted else "",
                    f"{layer.synops.p99:,.0f}" if counted else "",
                    "" if layer.event_driven else f"{layer.macs_once:,.0f}",
                    f"{layer.events.mean:,.0f}",
                    f"{100 * layer.density:.1f}",
                    f"{100 * layer.effective:.2f}",
                    str(self.bits_of(layer.name)),
                ]
            )
        return TextTable(["layer", "SynOps", "p99", "MACs", "events", "dense %", "eff. %", "bits"], rows)

    def _spiking(self) -> TextTable:
        rows = [
            [
                layer.name,
                *(
                    f"{number:,.0f}"
                    for number in (
                        layer.neurons,
                        layer.spikes.mean,
                        layer.spikes.p50,
                        layer.spikes.p99,
                        layer.spikes.max,
                        max(step.max for step in layer.spikes_per_step),
                    )
                ),
                _bits(self.memory.states[layer.name]),
            ]
            for layer in self.neurons
        ]
        spiking = {layer.name for layer in self.neurons}
        rows += [
            [name, f"{held.neurons:,}", "none", *[""] * 4, _bits(held)]
            for name, held in self.memory.states.items()
            if name not in spiking
        ]
        return TextTable(["neurons", "number", "spikes", "p50", "p99", "max", "step max", "bits"], rows)

    def bits_of(self, name: str) -> int:
        """Bits of a weight of a place."""
        return self._stored(name)[1]

    def notes(self) -> list[str]:
        """What the numbers do not say by themselves."""
        notes = [
            f"{layer.name}: behind {', '.join(layer.through)}, whose output is counted value by value"
            for layer in self.synapses
            if layer.event_driven and set(layer.through) - {RECURRENCE}
        ]
        return [*notes, *(f"NOT COUNTED: {item}" for item in self.left_out)]


def _bits(held: StateMemory) -> str:
    """Bits of a neuron's states, such as 4+32 for a membrane of 4 bits and a synaptic current."""
    return "+".join([str(held.bits), *[str(FLOAT_BITS)] * held.others])


def _energy(found: Energy) -> dict[str, float]:
    return {**asdict(found), "total": found.total}
