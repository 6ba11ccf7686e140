"""A graph, or its file, as a network that runs."""

from __future__ import annotations

import json
import os
import re
import warnings
from typing import Any

import torch
from torch import nn

import nir
from isofire.errors import CheckpointError, ModelError
from isofire.hdf5_check import check_hdf5
from isofire.neurons import MembraneQuantizer, Neuron, Recurrent
from isofire.nir.circles import flat, recurrent_pairs
from isofire.nir.convention import Convention
from isofire.nir.golden import check_golden
from isofire.nir.graph import INPUT, GraphNet, Scale, layers_of
from isofire.nir.metadata import CONVENTION, KEY, MEMBRANE, NAMES, intact
from isofire.nir.nodes import gain_of, module_of
from isofire.quantization import restore_
from isofire.spec import QuantSpec

_RESERVED = frozenset((*dir(nn.Module()), "sources", "outputs", "steps"))


def read(source: str | os.PathLike[str] | Any, convention: Convention | None = None) -> GraphNet:
    """The network of a NIR file or graph, in eval mode; quantized as it was, if isofire wrote it.

    Layers have the names that they had in the network which isofire wrote, so that the two can be compared; elsewhere
    those of the nodes, with "_" for characters that a module's name cannot have. Where a neuron's
    input is multiplied by a resistance, a `Scale` stands before it under the neuron's name with "_r". Golden vectors,
    where isofire wrote some (`write(..., golden=2)`), are run and compared.

    Parameters
    ----------
    source
        A path, or a `nir.NIRGraph`.
    convention
        How to run it in steps. Neurons that isofire wrote have brought theirs. None takes what isofire found in the
        network of another library that it had written by that library's writer, and for any other graph NIR's own
        equations, with a warning: which reset its tool means does not stand in a graph.

    Raises
    ------
    CheckpointError
        If the file cannot be read, isofire's metadata in it are damaged, or it does not give its golden vectors.
    ModelError
        If the graph has no single input and output, runs in a circle, a node has no counterpart here, or a neuron was
        seen to do what no convention does and none is given.

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
    graph = flattened(graph)
    if is_own(graph):
        _require_own(graph)
    places = _places(graph)
    if convention is None:
        _tell_open(graph)
    net = _build(graph, places, convention, steps)
    if spec is not None:
        restore_(net, spec, converted=True)
        _fill_membranes(net, graph, places)
    check_golden(graph, net, places)
    return net.eval()


def is_own(graph: Any) -> bool:
    """Whether isofire wrote a graph, rather than another tool or another library's writer."""
    return KEY in graph.metadata


def _require_own(graph: Any) -> None:
    """In a graph of isofire's every neuron says how it resets and fires; without that it would run by NIR's rules."""
    for name, node in graph.nodes.items():
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
            with intact(f"node {name!r}"):
                node.metadata[KEY]


def module_name(node: str) -> str:
    """A node's name as a module can have it."""
    parts = [re.sub(r"\W", "_", part) or "_" for part in node.split(".")]
    name = ".".join(f"{part}_" if part in _RESERVED else part for part in parts)
    return f"{name}_" if name in (INPUT, "output") else name


def _places(graph: Any) -> dict[str, str]:
    """Node -> the name of its module; one that would lie inside another node's module gets "_" for its dots."""
    with intact("the graph"):
        told = json.loads(graph.metadata.get(NAMES, "{}"))
        names = {node: module_name(str(told.get(node, node))) for node in graph.nodes}
    taken = set(names.values())
    for node, name in names.items():
        parts = name.split(".")
        if any(".".join(parts[:i]) in taken for i in range(1, len(parts))):
            names[node] = "_".join(parts)
    return names


def _tell_open(graph: Any) -> None:
    """Say it where neither the graph nor the caller tells what a neuron does at a spike."""
    silent = [
        name
        for name, node in graph.nodes.items()
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF) and not node.metadata.keys() & {KEY, CONVENTION}
    ]
    if silent:
        warnings.warn(
            f"the graph leaves open what a spike of {', '.join(silent)} does to the membrane; they are run by NIR's "
            "equations in steps of 0.1 ms, with a reset to v_reset and one spike a step. If its tool does otherwise "
            '(Sinabs subtracts and fires several), give convention=Convention(reset="subtract", ...); '
            "Convention() says that this is meant",
            stacklevel=3,
        )


def _convention_of(name: str, node: Any, given: Convention | None) -> Convention:
    """The one that is given, else what the writer knew of the neuron, else NIR's equations."""
    if given is not None or CONVENTION not in node.metadata:
        return given or Convention()
    with intact(f"node {name!r}"):
        told = json.loads(node.metadata[CONVENTION])
        if not isinstance(told, str):
            return Convention(**told)
    raise ModelError(
        f"node {name!r} does not run here as in the network that was written: {told}; give a Convention to run it by "
        "that nevertheless"
    )


def _open(path: Any) -> Any:
    check_hdf5(path)
    try:
        # nir's own check takes every kernel for a square of one group, and is not asked
        return nir.read(path, type_check=False)
    except Exception as error:
        # h5py and nir raise whatever a damaged file leads them to
        raise CheckpointError(f"{path} cannot be read as a NIR graph: {error}") from error


def _build(graph: Any, places: dict[str, str], given: Convention | None, steps: int | None) -> GraphNet:
    start, end = (_only(graph, kind) for kind in ("Input", "Output"))
    edges = list(dict.fromkeys((str(source), str(target)) for source, target in graph.edges))
    back = recurrent_pairs(graph.nodes, edges)
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes if name not in back.values()}
    for source, target in edges:
        if source not in back.values() and target not in back.values():
            sources[target].append(source)
    layers: dict[str, nn.Module] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    named = {start: INPUT}
    for name in _sorted(sources, start, end):
        convention = _convention_of(name, graph.nodes[name], given)
        module = module_of(name, graph.nodes[name], convention)
        place, come = places[name], tuple(named[source] for source in sorted(sources[name]))
        if (gain := gain_of(graph.nodes[name], convention)) is not None:
            layers[f"{place}_r"], inputs[f"{place}_r"], come = Scale(gain), come, (f"{place}_r",)
        if name in back:
            module = Recurrent(module, module_of(back[name], graph.nodes[back[name]], convention))  # type: ignore[arg-type]
            if (gain := gain_of(graph.nodes[name], convention)) is not None:
                with torch.no_grad():
                    # what multiplies the neurons' input multiplies what comes back to them too
                    module.weight.weight.mul_(gain.reshape(-1, 1))  # type: ignore[union-attr, operator]
                    if module.weight.bias is not None:
                        module.weight.bias.mul_(gain.reshape(-1))  # type: ignore[union-attr, operator]
        if place in layers:
            raise ModelError(f"two nodes would be called {place!r}, one of them {name!r}; rename it")
        layers[place], inputs[place], named[name] = module, come, place
    return GraphNet(layers, inputs, tuple(named[source] for source in sorted(sources[end])), steps)


def flattened(graph: Any) -> Any:
    """The graph without graphs inside; itself, if there are none."""
    if not any(isinstance(node, nir.NIRGraph) for node in graph.nodes.values()):
        return graph
    nodes, edges = flat(graph)
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=graph.metadata, type_check=False)


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
            raise ModelError(
                f"the graph cannot be run layer by layer: {why}; of circles isofire runs neurons that one layer of "
                "weights feeds back"
            )
        done.update(ready)
        order += ready
        waiting = [name for name in waiting if name not in done]
    return order


def _fill_membranes(net: GraphNet, graph: Any, places: dict[str, str]) -> None:
    layers = layers_of(net)
    for name, node in graph.nodes.items():
        layer = layers.get(places[name])
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
