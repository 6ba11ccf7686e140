"""A network as a NIR graph: floats that any reader runs, and in its metadata what isofire needs to have it back."""

from __future__ import annotations

import copy
import io
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nir
from isofire.conversion import shown
from isofire.errors import DataError, ModelError
from isofire.files import write_atomic
from isofire.models import SEWResNet
from isofire.neurons import MembraneQuantizer, Neuron, PerStep, Recurrent, Repeat
from isofire.neurons.fold import StepLayer
from isofire.nir.codes import note_codes_
from isofire.nir.foreign import foreign_graph
from isofire.nir.golden import note_golden_
from isofire.nir.graph import INPUT, GraphNet, layers_of
from isofire.nir.metadata import KEY, MEMBRANE, NAMES
from isofire.nir.node_writing import node_of, writer_of
from isofire.nir.parts import converted, resolved
from isofire.nir.reading import module_name
from isofire.nir.residual import residual_graph
from isofire.quantization import weight_quantizers
from isofire.running import evaluating, hooked, refuse_own_code, require_finite

VERSION = 1


def write(
    path: str | os.PathLike[str], model: nn.Module, example: Tensor, *, dt: float = 1e-4, golden: int = 0
) -> Path:
    """Write a network, quantized or not; one of isofire's neurons so that `read` gives it back bit by bit.

    Weights stand in the graph as floats, quantized ones as the values of their levels; a prepared model is converted
    first, and then its layers' levels are added as metadata `levels`. A membrane's quantizer is metadata alone, and so
    is a soft reset: a tool that ignores them runs the network with float membranes and a reset to `v_reset`. A batch
    norm is written as a convolution 1x1 (or linear layer) with a diagonal weight.

    Parameters
    ----------
    model
        A `GraphNet`, a `SEWResNet` with connect="add", or an `nn.Sequential` (with `PerStep`, nested or not) of layers
        that NIR knows, isofire's neurons, and possibly `Repeat` at its beginning. A network of SpikingJelly's,
        snnTorch's, Norse's or Sinabs' neurons is written by its library's own writer, see `isofire.nir.foreign`.
    example
        Inputs as the model takes them, for shapes: frames [T, N, ...], or [N, ...] with `Repeat`.
    dt
        Seconds a step, for the time constants in the file.
    golden
        Of so many images of the example, inputs, spikes and states of each step and outputs go into the metadata, see
        `isofire.nir.golden`, and `read` checks them. Not of networks of other libraries.

    Raises
    ------
    ModelError
        If a module has no NIR node, or the graph would not compute what the model does.
    DataError
        If the example is no tensor.
    OutputError
        If the file cannot be written.
    """
    return write_graph(path, to_graph(model, example, dt=dt, golden=golden))


def write_graph(path: str | os.PathLike[str], graph: Any) -> Path:
    """Write a `nir.NIRGraph`: whole, or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    # HDF5 crashes on a disk that fills up
    stream = io.BytesIO()
    nir.write(stream, graph)  # pyright: ignore[reportArgumentType]

    def write_bytes(part: Path) -> None:
        part.write_bytes(stream.getbuffer())

    return write_atomic(Path(path), write_bytes)


def to_graph(model: nn.Module, example: Tensor, *, dt: float = 1e-4, golden: int = 0) -> Any:
    """The `nir.NIRGraph` that `write` writes."""
    if not isinstance(example, Tensor):
        raise DataError(f"a graph's shapes are those of an example, inputs as a tensor; got {shown(example)}")
    require_finite(model)
    levels = {}
    if (values := converted(model)) is not model:
        levels = {name: quantizer.levels() for name, quantizer in weight_quantizers(model)}
        model = values
    if (graph := foreign_graph(model, example)) is not None:
        return graph
    refuse_own_code(model, (PerStep,), "a graph")
    names: dict[str, str] = {}
    net = _as_graph(model, names, example)
    layers = layers_of(net)
    for module, place in list(names.items()):
        if isinstance(layers[place], Recurrent):
            names[f"{module}.weight"] = f"{place}.weight"
    for name, layer in layers.items():
        # a layer that cannot be written need not take a step's inputs either
        writer_of(name, layer.cell if isinstance(layer, Recurrent) else layer)
    shapes = _shapes(net, model, example)
    called = _node_names([*layers, *(f"{name}.weight" for name, x in layers.items() if isinstance(x, Recurrent))])
    circles: list[tuple[str, str]] = []
    nodes: dict[str, Any] = {INPUT: nir.Input(input_type={"input": np.array(shapes[INPUT])})}
    for name, layer in layers.items():
        cell = layer.cell if isinstance(layer, Recurrent) else layer
        node = nodes[called[name]] = _fitting(name, cell, node_of(name, cell, shapes[name], dt), shapes[name])
        if isinstance(layer, Recurrent):
            back = called[f"{name}.weight"]
            nodes[back] = node_of(f"{name}.weight", layer.weight, shapes[name], dt)
            circles += [(called[name], back), (back, called[name])]
        if isinstance(layer, Neuron) and layer.membrane is not None:
            node.metadata[MEMBRANE] = json.dumps(_state(layer.membrane))
    for name, table in levels.items():
        for place in _places(model, names, name):
            nodes[called[place]].metadata["levels"] = table.cpu().numpy()
    nodes["output"] = nir.Output(output_type={"output": np.array(shapes["output"])})
    edges = [(called[source], called[name]) for name in net.sources for source in net.sources[name]]
    edges += [(called[source], "output") for source in net.outputs] + circles
    spec = resolved(model, lambda name: _places(model, names, name))
    quantization = None if spec is None else spec.to_dict()
    if spec is not None:
        for name, layer in layers.items():
            place, module = (f"{name}.weight", layer.weight) if isinstance(layer, Recurrent) else (name, layer)
            note_codes_(nodes[called[place]], module)
    about = {"version": VERSION, "dt": dt, "steps": net.steps, "quantization": quantization}
    renamed = {node: name for name, node in called.items() if node != name}
    metadata = {KEY: json.dumps(about), NAMES: json.dumps(renamed)}
    try:
        graph = nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata)
    except ValueError as error:
        raise ModelError(
            f"nir's own check of shapes refuses the graph: {error}; a file of it could not be read"
        ) from error
    if golden:
        with evaluating(net):
            note_golden_(graph, net, called, example[:, :golden] if net.steps is None else example[:golden])
    return graph


def _fitting(name: str, layer: nn.Module, node: Any, shape: tuple[int, ...]) -> Any:
    """The node, if it takes inputs of the shape that the layer sees."""
    if not shape:
        raise ModelError(
            f"{name!r} sees single numbers beside T and N, for which NIR has no nodes; give it inputs [T, N, 1]"
        )
    weight = None if isinstance(layer, Neuron) else getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.dtype != torch.float32:
        raise ModelError(
            f"NIR's readers run float32, the weights of {name!r} are {str(weight.dtype).removeprefix('torch.')}, in "
            "which the network fires otherwise; write it in float32 (model.float())"
        )
    taken = node.input_type["input"]
    if taken is not None and tuple(int(size) for size in taken) != shape:
        raise ModelError(
            f"{name!r} ({type(layer).__name__}) sees inputs {list(shape)} beside T and N, where NIR's "
            f"{type(node).__name__} takes {[int(size) for size in taken]}; flatten all axes before it (nn.Flatten()), "
            "or use a convolution"
        )
    return node


def _node_names(layers: Iterable[str]) -> dict[str, str]:
    """Layer -> its node; without dots, which the readers of other tools cannot take as a module's name."""
    found = {INPUT: INPUT}
    for name in layers:
        node = name.replace(".", "_")
        if node in found.values():
            raise ModelError(f"{name!r} and another module would both be called {node!r} in the graph; rename one")
        found[name] = node
    return found


def _as_graph(model: nn.Module, names: dict[str, str], example: Tensor) -> GraphNet:
    """The model as a graph of its own modules; `names` maps their names in the model to those in the graph."""
    if isinstance(model, GraphNet):
        layers = layers_of(model)
        names.update((name, name) for name in layers)
        if len(set(layers.values())) == len(layers):
            return model
        apart: dict[str, nn.Module] = {}
        for name, layer in layers.items():
            apart[name] = _apart(layer, apart)
        graph = GraphNet(apart, model.sources, model.outputs, model.steps)
        graph.training = model.training
        return graph
    if isinstance(model, SEWResNet):
        height, width = example.shape[-2:]
        return residual_graph(model, names, (height, width), frames=example.ndim == 5)
    layers: dict[str, nn.Module] = {}
    steps = _collect("", model, layers, names, None)
    chain = (INPUT, *layers)
    sources = {name: (before,) for name, before in zip(layers, chain, strict=False)}
    graph = GraphNet(layers, sources, (chain[-1],), steps)
    graph.training = model.training
    return graph


def _collect(
    name: str, module: nn.Module, layers: dict[str, nn.Module], names: dict[str, str], steps: int | None
) -> int | None:
    if isinstance(module, nn.Sequential):
        # with a module that stands at two places, which the graph has two nodes for
        for key, child in ((key, child) for key, child in module._modules.items() if child is not None):
            steps = _collect(f"{name}.{key}" if name else key, child, layers, names, steps)
    elif isinstance(module, Repeat):
        if layers or steps is not None:
            raise ModelError(f"NIR has no node for Repeat, so it must come first, {name!r} does not")
        return module.T
    elif not isinstance(module, nn.Dropout | nn.Identity):
        place = module_name(name or "model")
        if place in layers:
            raise ModelError(f"{name!r} and another module would both be called {place!r} in the graph; rename one")
        layers[place], names[name] = _apart(module, layers), place
    return steps


def _apart(layer: nn.Module, others: Mapping[str, nn.Module]) -> nn.Module:
    """The layer, or a twin with the same tensors if it is among the others already."""
    if all(layer is not other for other in others.values()):
        return layer
    twin = copy.copy(layer)
    # of its own, since a hook belongs to one place
    twin._forward_pre_hooks, twin._forward_hooks = OrderedDict(), OrderedDict()
    return twin


def _places(model: nn.Module, names: Mapping[str, str], name: str) -> list[str]:
    """All places in the graph of the model's module `name`."""
    module = model.get_submodule(name)
    return [place for other, place in names.items() if model.get_submodule(other) is module]


def _shapes(net: GraphNet, model: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Shape of each layer's input without T and N; what the graph computes must be what the model does."""
    shapes: dict[str, tuple[int, ...]] = {INPUT: tuple(example.shape[2 if net.steps is None else 1 :])}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shapes[name] = tuple(inputs[0].shape[2 if isinstance(layer, Neuron | StepLayer) else 1 :])

        return hook

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad(), evaluating(model, net):
        # a hook keeps a norm from being taken into its neurons, which rounds otherwise
        with hooked(norm.register_forward_hook(lambda *_: None) for norm in norms):
            expected = _run(model, example)
        with hooked(layer.register_forward_pre_hook(note(name)) for name, layer in layers_of(net).items()):
            result = net(example)
    if not torch.equal(result, expected):
        raise ModelError(
            "the graph of the model's layers computes something else than the model; its forward must run them one "
            "after the other, each on every step"
        )
    shapes["output"] = tuple(result.shape[2:])
    return shapes


def _run(model: nn.Module, example: Tensor) -> Tensor:
    try:
        return model(example)
    except RuntimeError as error:
        raise ModelError(
            f"the network does not take inputs of shape {tuple(example.shape)}: {error}; give inputs as it was made for"
        ) from error


def _state(membrane: MembraneQuantizer) -> dict[str, Any]:
    return {
        key: [str(value.dtype).removeprefix("torch."), list(value.shape), value.tolist()]
        for key, value in membrane.state_dict().items()
    }
