"""A graph, or its file, as a network that runs."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import torch
from torch import nn

import nir
from isofire.errors import CheckpointError, ModelError
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.nir.convention import Convention
from isofire.nir.graph import INPUT, GraphNet, Scale
from isofire.nir.hdf5_check import check_hdf5
from isofire.nir.metadata import KEY, MEMBRANE, intact
from isofire.nir.nodes import gain_of, module_of
from isofire.quantization import restore_
from isofire.spec import QuantSpec

_RESERVED = frozenset((*dir(nn.Module()), INPUT, "output"))


def read(source: str | os.PathLike[str] | Any, convention: Convention | None = None) -> GraphNet:
    """The network of a NIR file or graph, in eval mode; quantized as it was, if isofire wrote it.

    Nodes become modules of their names, with "_" for characters that a module's name cannot have. Where a neuron's
    input is multiplied by a resistance, a `Scale` stands before it under the neuron's name with "_r".

    Parameters
    ----------
    source
        A path, or a `nir.NIRGraph`.
    convention
        How to run it in steps; None takes the defaults. Neurons that isofire wrote have brought theirs.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or isofire's metadata in it are damaged.
    ModelError
        If the graph has no single input and output, runs in a circle, or a node has no counterpart here.

    Examples
    --------
    >>> convention = Convention(reset="subtract", several=True, v_floor=-1.0)
    >>> read("nir_paper_cnn_sinabs.nir", convention)  # doctest: +SKIP
    """
    graph = source if isinstance(source, nir.NIRGraph) else _open(source)
    with intact("the graph"):
        about = json.loads(graph.metadata.get(KEY, "{}"))
        steps = None if about.get("steps") is None else int(about["steps"])
        spec = None if about.get("quantization") is None else QuantSpec.from_dict(about["quantization"])
    if is_own(graph):
        _require_own(graph)
    net = _build(graph, convention or Convention(), steps)
    if spec is not None:
        restore_(net, spec, converted=True)
        _fill_membranes(net, graph)
    return net.eval()


def is_own(graph: Any) -> bool:
    """Whether isofire wrote a graph, rather than another tool or another library's writer."""
    return KEY in graph.metadata


def _require_own(graph: Any) -> None:
    """In a graph of isofire's every neuron says how it resets and fires; without that it would run by NIR's rules."""
    for name, node in graph.nodes.items():
        if isinstance(node, nir.IF | nir.LIF):
            with intact(f"node {name!r}"):
                node.metadata[KEY]


def module_name(node: str) -> str:
    """A node's name as a module can have it."""
    name = re.sub(r"\W", "_", node)
    return f"{name}_" if name in _RESERVED else name


def _open(path: Any) -> Any:
    check_hdf5(path)
    try:
        return nir.read(path)
    except Exception as error:
        # h5py and nir raise whatever a damaged file leads them to
        raise CheckpointError(f"{path} cannot be read as a NIR graph: {error}") from error


def _build(graph: Any, convention: Convention, steps: int | None) -> GraphNet:
    start, end = (_only(graph, kind) for kind in ("Input", "Output"))
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in dict.fromkeys(map(tuple, graph.edges)):
        sources[target].append(source)
    layers: dict[str, nn.Module] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    named = {start: INPUT}
    for name in _sorted(sources, start, end):
        module = module_of(name, graph.nodes[name], convention)
        place, come = module_name(name), tuple(named[source] for source in sorted(sources[name]))
        if (gain := gain_of(graph.nodes[name], convention)) is not None:
            layers[f"{place}_r"], inputs[f"{place}_r"], come = Scale(gain), come, (f"{place}_r",)
        if place in layers:
            raise ModelError(f"two nodes would be called {place!r}, one of them {name!r}; rename it")
        layers[place], inputs[place], named[name] = module, come, place
    return GraphNet(layers, inputs, tuple(named[source] for source in sorted(sources[end])), steps)


def _only(graph: Any, kind: str) -> str:
    found = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
    if len(found) != 1:
        raise ModelError(f"a graph must have one {kind} node, got {len(found)} ({', '.join(found) or 'none'})")
    return found[0]


def _sorted(sources: dict[str, list[str]], start: str, end: str) -> list[str]:
    """The nodes between, each after its sources, along the graph's edges."""
    if not sources[end]:
        raise ModelError(f"nothing leads to the Output node {end!r}")
    done, order = {start}, []
    waiting = [name for name in sources if name not in (start, end)]
    while waiting:
        ready = [name for name in waiting if sources[name] and done.issuperset(sources[name])]
        if not ready:
            silent = [name for name in waiting if not sources[name]]
            why = f"nothing leads to {silent[0]!r}" if silent else f"{waiting[0]!r} is part of a circle or follows one"
            raise ModelError(f"the graph cannot be run layer by layer: {why}; isofire runs no recurrent connections")
        done.update(ready)
        order += ready
        waiting = [name for name in waiting if name not in done]
    return order


def _fill_membranes(net: GraphNet, graph: Any) -> None:
    for name, node in graph.nodes.items():
        layer = net._modules.get(module_name(name))
        if isinstance(layer, Neuron) and layer.membrane is not None:
            with intact(f"node {name!r}"):
                _fill(layer.membrane, json.loads(node.metadata[MEMBRANE]))


def _fill(membrane: MembraneQuantizer, state: dict[str, Any]) -> None:
    if strange := membrane.state_dict().keys() ^ state.keys():
        raise KeyError(sorted(strange)[0])
    tensors = {
        key: torch.tensor(value, dtype=getattr(torch, kind)).view(shape) for key, (kind, shape, value) in state.items()
    }
    membrane.load_state_dict(tensors)
