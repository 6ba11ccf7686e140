"""Networks of other libraries as NIR graphs, by the libraries' own writers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nir
from isofire.adapters import Framework, LogitsOf, OverTime, copy_of, find_neurons, framework_of, reset_
from isofire.errors import ModelError
from isofire.neurons import Neuron
from isofire.nir.metadata import CONVENTION, NAMES, SPEC
from isofire.nir.parts import resolved
from isofire.quantization import spec_of
from isofire.running import evaluating


def foreign_graph(model: nn.Module, example: Tensor) -> Any | None:
    """The graph of a converted network whose neurons are all of one other library; None for any other network.

    Weights stand in it as the values of their levels, and the quantization's spec in the graph's metadata under
    `isofire_spec`. What the library's writer makes of resets and thresholds is its own; nothing is checked. What the
    nodes leave open of the neurons, such as their reset, is metadata of the nodes, which `read` follows.

    Parameters
    ----------
    example
        Images [N, ...] as the network takes them.

    Raises
    ------
    ModelError
        If a membrane is quantized, which those writers do not know, or the writer cannot write the network.
    """
    framework = _library(model)
    if framework is None:
        return None
    library, one_image = framework.title, framework.nir_writer_takes_one_image
    writer = _writer(framework)
    inner, prefix = model, ""
    while isinstance(inner, OverTime | LogitsOf):
        inner, prefix = inner.net, f"{prefix}net."
    net = copy_of(inner)
    neurons = find_neurons(net)
    for name, (neuron, adapter) in neurons.items():
        if adapter.membrane(neuron) is not None:
            raise ModelError(
                f"{library}'s own NIR writer knows no membrane quantizer, {name!r} has one; quantize weights alone, or "
                "build the network of isofire's neurons, whose membranes are written as metadata"
            )
    spec = spec_of(model) or spec_of(inner) or resolved(model, lambda name: [name])
    metadata = {} if spec is None else {SPEC: json.dumps(spec.to_dict())}
    with evaluating(net), torch.no_grad():
        try:
            graph = writer(net, example[0] if one_image else example)
            modules = _modules_of(graph.nodes, net)
            for name, node in graph.nodes.items():
                _make_arrays_(node)
                if modules.get(name) in neurons:
                    neuron, _ = neurons[modules[name]]
                    node.metadata[CONVENTION] = json.dumps(framework.nir_convention(neuron))
            metadata[NAMES] = json.dumps({name: prefix + module for name, module in modules.items()})
            # a reader checks shapes too
            found = nir.NIRGraph(nodes=graph.nodes, edges=graph.edges, metadata=metadata)
        except Exception as error:
            # a writer fails however its tracer does
            cure = f"; {framework.nir_writer_needs}" if framework.nir_writer_needs else ""
            raise ModelError(
                f"{library}'s own NIR writer cannot write this network: {type(error).__name__}: {error}{cure}"
            ) from error
    reset_(net)
    return found


def _modules_of(nodes: Iterable[str], net: nn.Module) -> dict[str, str]:
    """Node -> the module that it was made of: nirtorch's have its name, those of torch.fx "_1_0" for "1.0"."""
    names = [name for name, _ in net.named_modules() if name]
    traced: dict[str, list[str]] = {}
    for name in names:
        key = re.sub(r"\W", "_", name).lower()
        traced.setdefault(f"_{key}" if key[0].isdigit() else key, []).append(name)
    found = {}
    for node in nodes:
        meant = [node] if node in names else traced.get(node, [])
        if len(meant) == 1:
            found[node] = meant[0]
    return found


def _make_arrays_(node: Any) -> None:
    for key, value in vars(node).items():
        if isinstance(value, Tensor | np.generic | np.ndarray | float):
            # a file holds no scalars
            setattr(node, key, np.atleast_1d(np.asarray(torch.as_tensor(value).detach().cpu())))


def _library(model: nn.Module) -> Framework | None:
    neurons = [] if isinstance(model, Neuron) else [neuron for neuron, _ in find_neurons(model).values()]
    found = {framework_of(neuron) for neuron in neurons}
    return found.pop() if len(found) == 1 else None


def _writer(framework: Framework) -> Callable[[nn.Module, Tensor], Any]:
    if framework.nir_writer is None:
        raise ModelError(f"isofire knows no NIR writer of {framework.title}'s; write the network with that library")
    module, name = framework.nir_writer
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{framework.title}'s NIR writer {module}.{name} cannot be imported: {error}; install what it needs, or "
            f"another release of {framework.title}"
        ) from error
