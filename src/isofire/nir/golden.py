"""Golden vectors of a graph: inputs, every layer's spikes and states of each step that they lead to, and outputs.

They are metadata, arrays [T, N, ...]: `isofire_golden_inputs` ([N, ...] where the graph's images are presented at every
step) and `isofire_golden_outputs` of the graph; `golden_spikes`, `golden_membranes` and, of current-based neurons,
`golden_currents` of a node, states as they are after each step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isofire.errors import CheckpointError
from isofire.neurons import Neuron
from isofire.nir.graph import GraphNet, layers_of
from isofire.nir.metadata import KEY, intact
from isofire.running import hooked

INPUTS, OUTPUTS = f"{KEY}_golden_inputs", f"{KEY}_golden_outputs"
SPIKES = "golden_spikes"
_STATES = ("golden_membranes", "golden_currents")
_CLOSE = 1e-4
"""How far float32's sums on another machine may move a number, as a share of the largest of its layer."""
_MOVED = 1e-3
"""The share of a layer's neurons, one at least, that such sums may move over a threshold or a level's edge."""


@torch.no_grad()
def note_golden_(graph: Any, net: GraphNet, nodes: Mapping[str, str], inputs: Tensor) -> None:
    """Add what `net`, in eval mode, makes of inputs to the graph of it; `nodes`: layer -> node."""

    def note(name: str, spikes: Tensor, states: tuple[Tensor, ...]) -> Tensor:
        kind = np.uint8 if float(spikes.max()) < 256 else np.int64
        metadata = graph.nodes[nodes[name]].metadata
        metadata[SPIKES] = spikes.cpu().numpy().astype(kind)
        metadata.update((key, values.cpu().numpy()) for key, values in zip(_STATES, states, strict=False))
        return spikes

    outputs = _run(net, inputs, note)
    graph.metadata |= {INPUTS: inputs.cpu().numpy(), OUTPUTS: outputs.cpu().numpy()}


@torch.no_grad()
def check_golden(graph: Any, net: GraphNet, places: Mapping[str, str]) -> None:
    """Run the network on a graph's golden inputs, where it has some; `places`: node -> layer.

    Every layer is given the golden spikes of those before it. Numbers that differ in no more neurons than float32's
    sums on another machine may move are told by a warning.

    Raises
    ------
    CheckpointError
        If a layer's spikes or states, or the outputs, are others.
    """
    if INPUTS not in graph.metadata:
        return
    nodes = {place: node for node, place in places.items()}
    moved: dict[str, int] = {}

    def compare(name: str, spikes: Tensor, states: tuple[Tensor, ...]) -> Tensor:
        metadata = graph.nodes[nodes[name]].metadata
        golden = _array(metadata[SPIKES], spikes)
        pairs = [(golden, spikes)]
        pairs += [(_array(metadata[key], found), found) for key, found in zip(_STATES, states, strict=False)]
        apart = torch.stack([_apart(*pair).any(0) for pair in pairs]).any(0)
        if count := int(apart.sum()):
            moved[name] = count
        if count > max(1, int(_MOVED * apart.numel())):
            raise CheckpointError(
                f"the graph does not give its golden vectors: {count:,} of {apart.numel():,} neurons of {name!r} "
                "(images times neurons) have other spikes or states, although layers before it hand on the golden "
                "ones; its numbers were changed or damaged, write it anew"
            )
        return golden

    with intact("the golden vectors"):
        inputs = torch.from_numpy(np.asarray(graph.metadata[INPUTS]))
        outputs = _run(net.eval(), inputs, compare)
        if _apart(_array(graph.metadata[OUTPUTS], outputs), outputs).any():
            raise CheckpointError(
                "the graph does not give its golden outputs, although its neurons give the golden spikes; its numbers "
                "were changed or damaged, write it anew"
            )
    if moved:
        told = ", ".join(f"{count} of {name!r}" for name, count in moved.items())
        warnings.warn(
            f"of the graph's golden vectors these neurons differ, by no more than float32's sums on another machine "
            f"may move: {told} (images times neurons)",
            stacklevel=3,
        )


def _run(net: GraphNet, inputs: Tensor, take: Callable[[str, Tensor, tuple[Tensor, ...]], Tensor]) -> Tensor:
    """The network's outputs where each layer of neurons hands on what `take` makes of its spikes and states."""

    def listen(name: str) -> Callable[..., Tensor]:
        def hook(neuron: nn.Module, given: tuple[Tensor, ...], spikes: Tensor) -> Tensor:
            assert isinstance(neuron, Neuron)
            return take(name, spikes, neuron.states(given[0]))

        return hook

    neurons = [(name, layer) for name, layer in layers_of(net).items() if isinstance(layer, Neuron)]
    with hooked(neuron.register_forward_hook(listen(name)) for name, neuron in neurons):
        return net(inputs)


def _array(values: Any, like: Tensor) -> Tensor:
    found = torch.from_numpy(np.asarray(values)).to(like)
    if found.shape != like.shape:
        raise ValueError(f"golden vectors of shape {list(found.shape)} where the network gives {list(like.shape)}")
    return found


def _apart(golden: Tensor, found: Tensor) -> Tensor:
    """Where two numbers differ by more than rounding; NaN is never the same."""
    return ~((golden - found).abs() <= _CLOSE * golden.abs().max())
