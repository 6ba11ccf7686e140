"""A network as an ONNX file: steps unrolled, weights as codes behind `DequantizeLinear`, spikes as they are.

Neurons are written step by step in the standard operators, membrane quantizers as comparisons with their edges.
Quantized weights whose levels are multiples of one step a channel, as those of uniform grids and LSQ are, become int4
or int8 codes; others stay float32 with the values of their levels.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, find_neurons, from_rest, heard
from isofire.adapters.axes import input_axis
from isofire.errors import ModelError, SpecError
from isofire.files import write_atomic
from isofire.neurons import Neuron
from isofire.neurons.membrane import MembraneQuantizer
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState
from isofire.quantization import convert
from isofire.quantization.on_levels import require_levels
from isofire.quantizers.lattice import codes_of
from isofire.running import evaluating, require_finite

if TYPE_CHECKING:
    import onnx

OPSET = 21
"""The first with 4-bit codes."""
_LARGEST = 1 << 31
_KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    Parameters
    ----------
    path, opset
        The file and its operators' version.
    codes
        Layer -> "int4", "int8", or why its weights are float32.
    is_checked
        Whether onnxruntime ran the file on the given images; not where it is not installed.
    logits_error
        Largest absolute difference of the network's output there; None if it was not run.
    spikes, differing
        Layer -> spikes looked at (neurons x steps x images), and how many of them differ.
    """

    path: Path
    opset: int
    codes: dict[str, str]
    is_checked: bool
    logits_error: float | None
    spikes: dict[str, int]
    differing: dict[str, int]


def write_onnx(path: str | os.PathLike[str], model: nn.Module, images: Tensor) -> OnnxFile:
    """Write a network, quantized or not, for any number of images; whole, or not at all.

    Parameters
    ----------
    images
        What the network takes, two images or more: T and the shapes are theirs. Where onnxruntime is installed, the
        file is run on them and compared with the network, spike by spike.

    Raises
    ------
    SpecError
        If the extra `onnx` is missing, or fewer than two images are given.
    ModelError
        If the network holds NaN or infinite weights, or quantized ones that were changed since, or cannot be traced.
    OutputError
        If the file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise SpecError(f"ONNX files need the extra onnx: pip install 'isofire[onnx]' ({error})") from error
    axis = input_axis(model, images)
    size = images.shape[axis]
    if size < 2:
        raise SpecError(f"a graph for any number of images is traced on two or more, got {size}")
    require_finite(model)
    require_levels(model)
    plain = _plain(model)
    with torch.no_grad(), from_rest(plain.network):
        wanted = plain(images)
    program = _traced(plain, images, axis)
    graph = program.model_proto
    codes = _encode_(graph, plain)
    checked = _compare(graph, list(plain.neurons), images, wanted)
    _strip_(graph)
    onnx.checker.check_model(graph)
    data = graph.SerializeToString()
    if len(data) > _LARGEST:
        raise ModelError(f"an ONNX file holds 2 GB at most, this network needs {len(data):,} bytes")
    written = write_atomic(path, lambda part: part.write_bytes(data))  # type: ignore[arg-type,return-value]
    return OnnxFile(Path(written), OPSET, codes, *checked)


# -- a copy that traces ------------------------------------------------------------------------------------------------


class _WithSpikes(nn.Module):
    """The network, its outputs followed by the spikes of each layer of neurons."""

    def __init__(self, network: nn.Module, neurons: dict[str, tuple[nn.Module, Adapter]]) -> None:
        super().__init__()
        self.network = network
        self.neurons = neurons

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found: dict[str, list[Tensor]] = {name: [] for name in self.neurons}

        with heard(self.neurons, lambda name, spikes: found[name].append(spikes)):
            output = self.network(images)
        if not isinstance(output, Tensor):
            raise ModelError(
                f"an ONNX file is written of a network that returns one tensor, got {type(output).__name__}"
            )
        return output, *(torch.cat(calls) for calls in found.values())


class _States(nn.Module):
    """A membrane quantizer in operators that ONNX has."""

    is_fixed = True

    def __init__(self, state: StateQuantizer) -> None:
        super().__init__()
        self.state = state
        self.placement = state.placement

    def forward(self, v: Tensor) -> Tensor:
        if isinstance(self.state, AffineState):
            return self.state.quantize(v)
        assert isinstance(self.state, TableState)
        edges, levels = (part.view(part.shape[0], *(1,) * (v.ndim - 2), -1) for part in self.state.table)
        found = levels[..., 0].expand(v.shape)
        for place in range(edges.shape[-1]):
            found = torch.where(v > edges[..., place], levels[..., place + 1], found)
        return found


def _plain(model: nn.Module) -> _WithSpikes:
    """A copy in eval mode: weights as values, neurons step by step, membrane quantizers as comparisons."""
    network = copy.deepcopy(model).cpu().eval()
    if any(hasattr(module, "parametrizations") for module in network.modules()):
        network = convert(network)
    for module in network.modules():
        if isinstance(module, Neuron):
            module.backend = "reference"
        for name, child in list(module.named_children()):
            if isinstance(child, MembraneQuantizer):
                # a quantizer that learns is a fixed map without gradients
                with torch.no_grad():
                    setattr(module, name, _States(child.fixed_state(_state_like(child))))
    return _WithSpikes(network, find_neurons(network)).eval()


def _state_like(membrane: MembraneQuantizer) -> Tensor:
    return torch.zeros(1, membrane.quantizer.channels)


def _traced(network: _WithSpikes, images: Tensor, axis: int) -> Any:
    shapes = ({axis: torch.export.Dim("images")},)
    names = ["output", *(f"spikes/{name}" for name in network.neurons)]
    try:
        with evaluating(network), from_rest(network.network), torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network, (images,), dynamo=True, opset_version=OPSET, optimize=False, dynamic_shapes=shapes,
                input_names=["images"], output_names=names, verbose=False,
            )  # fmt: skip
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"this network cannot be traced: {reason[0] if reason else type(error).__name__}; every branch must depend "
            "on shapes alone, and T on no value"
        ) from error
    assert program is not None
    assert program.exported_program is not None
    for node in program.exported_program.graph.nodes:
        # torch's exporter leaves it out
        if "avg_pool" in str(node.target) and (node.args[6:] or node.kwargs.get("divisor_override")):
            raise ModelError(
                "ONNX knows no average pool with a divisor_override; pool without it, and multiply by the window's "
                "size over the divisor"
            )
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter tells its progress and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# -- codes -------------------------------------------------------------------------------------------------------------


def _encode_(graph: onnx.ModelProto, network: _WithSpikes) -> dict[str, str]:
    """Replace weights on a lattice by codes and a `DequantizeLinear`; layer -> type, or why not."""
    held = {item.name: item for item in graph.graph.initializer}
    found = {}
    for name, module in network.network.named_modules():
        if not isinstance(module, _KINDS):
            continue
        weight = held.get(f"network.{name}.weight" if name else "network.weight")
        if weight is None:
            found[name] = "float32: another layer's, or not a weight of the graph by itself"
            continue
        codes = codes_of(module.weight, 8)
        largest = int(codes.codes.abs().max())
        if not codes.exact or largest > 127:
            found[name] = "float32: its levels are no multiples, up to 127, of one step a channel"
            continue
        kind = "int4" if int(codes.codes.min()) >= -8 and int(codes.codes.max()) <= 7 else "int8"
        _replace_(graph, weight, codes.codes, codes.step, kind)
        found[name] = kind
    return found


def _replace_(graph: onnx.ModelProto, weight: onnx.TensorProto, codes: Tensor, step: Tensor, kind: str) -> None:
    import onnx
    from onnx import helper, numpy_helper

    name = weight.name
    data_type = onnx.TensorProto.INT4 if kind == "int4" else onnx.TensorProto.INT8
    stored = helper.make_tensor(f"{name}.codes", data_type, list(codes.shape), codes.flatten().tolist())
    scale = numpy_helper.from_array(step.float().numpy(), f"{name}.step")
    graph.graph.initializer.remove(weight)
    graph.graph.initializer.extend([stored, scale])
    node = helper.make_node("DequantizeLinear", [stored.name, scale.name], [name], name=f"{name}/dequantize", axis=0)
    graph.graph.node.insert(0, node)


# -- check -------------------------------------------------------------------------------------------------------------


def _compare(
    graph: onnx.ModelProto, layers: list[str], images: Tensor, wanted: tuple[Tensor, ...]
) -> tuple[bool, float | None, dict[str, int], dict[str, int]]:
    """Whether it was run, the largest error of the output, spikes and differing spikes of each layer."""
    try:
        import onnxruntime
    except ImportError:
        return False, None, {}, {}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [torch.from_numpy(value) for value in session.run(None, {"images": images.numpy()})]
    pairs = list(zip(layers, wanted[1:], found[1:], strict=True))
    return (
        True,
        float((wanted[0] - found[0]).abs().max()),
        {name: ours.numel() for name, ours, _ in pairs},
        {name: int((ours != theirs).sum()) for name, ours, theirs in pairs},
    )


def _strip_(graph: onnx.ModelProto) -> None:
    """Leave out the spikes as outputs, and what the exporter notes of the Python that it saw."""
    for output in list(graph.graph.output):
        if output.name.startswith("spikes/"):
            graph.graph.output.remove(output)
    parts = [
        *graph.graph.node,
        *graph.graph.value_info,
        *graph.graph.initializer,
        *graph.graph.input,
        graph.graph,
        graph,
    ]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
