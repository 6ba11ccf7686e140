"""What each approximation of a chip does to the firing, alone: the float network with one change at a time."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import msgspec
from torch import nn

from isofire.batches import Data
from isofire.errors import SpecError
from isofire.firing import Comparison
from isofire.firing.compare import observe_together
from isofire.integer.mapping import ChipMapping
from isofire.integer.network import IntegerNetwork
from isofire.integer.twin import FLOAT_STEPS, plain, with_changes
from isofire.text_table import TableShown, TextTable

EARLY = "biases, early"
"""What biases do while the first spikes are on their way to a layer."""
STATES = "states"
SEVERAL = "spikes, several"
"""What spikes beside the first do that a neuron fires in a step before it is reset to 0, which no float one does."""


@dataclass(frozen=True)
class Steps(TableShown):
    """From the float network to the chip.

    Parameters
    ----------
    alone
        Change -> the float network with nothing else changed, against the float network.
    states
        The chip against the float network with all of those changes: what its rounded and saturating states do. Its
        layers rest until the first spikes can reach them.
    early
        The chip as it runs, its biases acting from the first step on, against the chip whose layers rest; None where
        that is the same.
    several
        The chip, whose neurons may fire several times before they are reset to 0, against the chip whose neurons fire
        once; None where they do, or subtract.
    everything
        The chip against the float network.
    mapping
        What was changed.
    """

    alone: dict[str, Comparison]
    states: Comparison
    early: Comparison | None
    several: Comparison | None
    everything: Comparison
    mapping: ChipMapping

    def rates(self) -> dict[str, dict[str, float]]:
        """Layer -> spikes a neuron and step of "float", of each change alone, and of the "chip"."""
        found: dict[str, dict[str, float]] = {}
        for place, layer in enumerate(self.everything.layers):
            row = {"float": layer.mfr_fp}
            row |= {name: comparison.layers[place].mfr for name, comparison in self.alone.items()}
            found[layer.layer] = row | {"chip": layer.mfr}
        return found

    def changes(self) -> dict[str, Comparison]:
        """Change -> comparison: each alone, what no float network does, each on top of all before, and "all"."""
        on_top = {STATES: self.states, EARLY: self.early, SEVERAL: self.several}
        found = {name: comparison for name, comparison in on_top.items() if comparison is not None}
        return {**self.alone, **found, "all": self.everything}

    def table(self) -> str:
        """A line a change: drift, accuracy, and every layer's rate against that of the float network."""
        names = [layer.layer for layer in self.everything.layers]
        rows = [_row(f"{name} alone", found) for name, found in self.alone.items()]
        rows.append(_row("states, on top of all these", self.states))
        rows += [] if self.early is None else [_row("biases before spikes arrive, on top", self.early)]
        rows += [] if self.several is None else [_row("several spikes before a reset to 0, on top", self.several)]
        rows.append(_row("all (the chip)", self.everything))
        titles = ("change", "EMD, layer mean", "accuracy", "agree %", *names)
        first = (
            "float",
            "",
            f"{self.everything.accuracy_fp:.4f}",
            "",
            *(f"{x.mfr_fp:.4f}" for x in self.everything.layers),
        )
        return TextTable(titles, [first, *rows], texts=frozenset({0}), rules=frozenset({1, len(rows)})).text()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.everything.n_images,
            "steps": {name: dict(found.overall) for name, found in self.changes().items()},
            "rates": self.rates(),
        }


def _row(name: str, found: Comparison) -> tuple[str, ...]:
    moved = [_change(layer.mfr_fp, layer.mfr) for layer in found.layers]
    return (
        name,
        f"{found.overall['emd_layer_mean']:.5f}",
        f"{found.accuracy:.4f}",
        f"{100 * found.agreement:.1f}",
        *moved,
    )


def _change(before: float, after: float) -> str:
    if before == after:
        return "="
    if after == 0:
        return "silent"
    return f"{100 * (after / before - 1):+.1f} %" if before else f"{after:.4f}"


def steps_of(
    model: nn.Module, network: IntegerNetwork, data: Data, *, max_images: int | None = None, batch_size: int = 64
) -> Steps:
    """Measure what each change of a lowered network does alone, in one pass over the data.

    Parameters
    ----------
    model
        The float network that was lowered.
    network
        What `lower(model, ..., hardware=...)` gave.
    data, max_images, batch_size
        As in `isofire.compare`.

    Raises
    ------
    SpecError
        If the network was not lowered onto a chip.
    """
    if network.mapping is None:
        raise SpecError("steps are measured of a network that was lowered onto a chip; give lower() hardware=")
    mapping = network.mapping
    names = [name for name in FLOAT_STEPS if name in mapping.rules]
    twins = [with_changes(model, mapping, {name}) for name in names]
    together, single = with_changes(model, mapping, names), firing_once(network)
    rested = resting(single or network)
    models = [plain(model), *twins, together, *(found for found in (rested, single) if found is not None), network]
    seen = observe_together(models, data, max_images=max_images, batch_size=batch_size)
    alone = {name: Comparison.observed(seen[0], found) for name, found in zip(names, seen[1:], strict=False)}
    changed = len(names) + 1
    states = Comparison.observed(seen[changed], seen[changed + 1])
    early = None if rested is None else Comparison.observed(seen[changed + 1], seen[changed + 2])
    several = None if single is None else Comparison.observed(seen[-2], seen[-1])
    return Steps(alone, states, early, several, Comparison.observed(seen[0], seen[-1]), mapping)


def firing_once(network: IntegerNetwork) -> IntegerNetwork | None:
    """A network whose neurons fire once a step before they are reset to 0; None where they do already."""
    twin = copy.deepcopy(network)
    many = [part for part in twin.populations.values() if part.reset_to == "zero" and part.most_spikes != 1]
    for part in many:
        part.rules = msgspec.structs.replace(part.rules, spikes=1, output_spikes=1)
    return twin if many else None


def resting(network: IntegerNetwork) -> IntegerNetwork | None:
    """A chip's network whose layers rest until the first spikes can reach them; None where that is the same."""
    layers = () if network.mapping is None else network.mapping.layers
    rest = {layer.name: layer.latency + layer.neuron.early for layer in layers}
    if not any(rest[layer.name] > 0 and bool((layer.biases != 0).any()) for layer in layers):
        return None
    twin = copy.deepcopy(network)
    twin.rest = rest
    return twin
