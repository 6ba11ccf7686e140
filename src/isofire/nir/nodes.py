"""One node of a graph as a module; `isofire` in its metadata says what NIR has no field for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nir
from isofire.errors import ModelError
from isofire.neurons import IF, LI, LIF, CubaLIF, Neuron, ParametricLIF, surrogate
from isofire.nir.arrays import filled, sizes_of, tensor_of
from isofire.nir.convention import Convention
from isofire.nir.convolution import read_conv
from isofire.nir.current_based import (
    check_leak,
    cuba_gain,
    one,
    own_cuba,
    read_cuba,
    read_li,
    steps_of,
    values,
)
from isofire.nir.graph import Scale, SumPool2d
from isofire.nir.metadata import KEY, intact
from isofire.nir.node_writing import node_of


def module_of(name: str, node: Any, convention: Convention) -> nn.Module:
    """The module that computes what the node does, without its neurons' resistance (see `gain_of`).

    Raises
    ------
    ModelError
        If its kind or its parameters have no counterpart here.
    CheckpointError
        If isofire's metadata there are damaged.
    """
    kind = type(node).__name__
    if kind not in _READERS:
        raise ModelError(f"node {name!r} is a {kind}, which isofire cannot run; known are {', '.join(_READERS)}")
    _check_finite(name, node)
    with intact(f"node {name!r}"):
        about = json.loads(node.metadata.get(KEY, "{}"))
        if "dynamics" in about:
            return _unchanged(name, node, _neuron(about["dynamics"]), about["dt"])
        if "li" in about:
            return _unchanged(name, node, LI(about["li"]["tau"], decay_input=about["li"]["decay_input"]), about["dt"])
        if "batch_norm" in about:
            return _unchanged(name, node, _batch_norm(about["batch_norm"]), 0.0)
        without_bias = about.get("bias") is False
    module = _READERS[kind](name, node, convention)
    if without_bias:
        module.register_parameter("bias", None)
    return module.eval()


def _check_finite(name: str, node: Any) -> None:
    for field, value in vars(node).items():
        found = np.asarray(value) if isinstance(value, np.ndarray | np.generic | float) else None
        if found is not None and found.dtype.kind == "f" and not np.isfinite(found).all():
            worst = found[~np.isfinite(found)].flat[0]
            raise ModelError(f"node {name!r} has {field} = {worst}, it must be finite; write the graph anew")


def gain_of(node: Any, convention: Convention) -> Tensor | None:
    """What a neuron's input is multiplied with before it arrives; None for 1."""
    if not isinstance(node, nir.IF | nir.LIF | nir.CubaLIF | nir.LI) or KEY in node.metadata:
        return None
    if isinstance(node, nir.CubaLIF):
        return cuba_gain(node, convention)
    r = np.asarray(node.r, dtype=np.float32)
    if np.allclose(r, 1.0, rtol=1e-6) or _undecayed(node, convention):
        return None
    return torch.from_numpy(r.copy())


def _undecayed(node: Any, convention: Convention) -> bool:
    """r = tau / dt, or of an IF 1 / dt: the input arrives whole, as in snnTorch's Leaky and SpikingJelly's IFNode."""
    whole = 1.0 if isinstance(node, nir.IF) else node.tau
    return bool(np.allclose(np.asarray(node.r) * convention.dt, whole, rtol=1e-5))


def _read_if(name: str, node: Any, c: Convention) -> nn.Module:
    return IF(**_threshold(name, node, c), v_floor=c.v_floor, several=c.several)


def _read_lif(name: str, node: Any, c: Convention) -> nn.Module:
    tau, threshold = steps_of(name, "tau", node.tau, c), values(node.v_threshold)
    v_reset = None if c.reset == "subtract" else one(name, "v_reset", node.v_reset)
    check_leak(name, node, v_reset or 0.0)
    options: dict[str, Any] = {
        "decay_input": not _undecayed(node, c), "v_reset": v_reset, "v_floor": c.v_floor, "several": c.several,
    }  # fmt: skip
    if tau.numel() == 1 and threshold.numel() == 1:
        return LIF(float(tau), v_threshold=float(threshold), **options)
    # neurons with numbers of their own: no current is kept where its time constant is a step
    return CubaLIF(tau, 1.0, v_threshold=threshold, **options)


def _threshold(name: str, node: Any, c: Convention) -> dict[str, Any]:
    v_reset = None if c.reset == "subtract" else one(name, "v_reset", node.v_reset)
    return {"v_threshold": one(name, "v_threshold", node.v_threshold), "v_reset": v_reset}


def _read_linear(name: str, node: Any, c: Convention) -> nn.Module:
    weight = tensor_of(node.weight)
    if weight.ndim != 2:
        raise ModelError(f"the weight of node {name!r} must be [outputs, inputs], got {list(weight.shape)}")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=isinstance(node, nir.Affine), dtype=torch.float32)
    return filled(layer, weight, tensor_of(node.bias) if isinstance(node, nir.Affine) else None)


def _read_sum_pool(name: str, node: Any, c: Convention) -> nn.Module:
    kernel, stride, padding = (sizes_of(getattr(node, key), 2) for key in ("kernel_size", "stride", "padding"))
    return SumPool2d((kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1]))


def _read_avg_pool(name: str, node: Any, c: Convention) -> nn.Module:
    kernel, stride, padding = (sizes_of(getattr(node, key), 2) for key in ("kernel_size", "stride", "padding"))
    return nn.AvgPool2d((kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1]))


def _read_flatten(name: str, node: Any, c: Convention) -> nn.Module:
    # NIR counts the axes of one input, without N
    start, end = int(node.start_dim), int(node.end_dim)
    return nn.Flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)


def _read_scale(name: str, node: Any, c: Convention) -> nn.Module:
    return Scale(tensor_of(node.scale))


_READERS: dict[str, Callable[[str, Any, Convention], nn.Module]] = {
    "IF": _read_if,
    "LIF": _read_lif,
    "CubaLIF": read_cuba,
    "LI": read_li,
    "Affine": _read_linear,
    "Linear": _read_linear,
    "Conv1d": read_conv,
    "Conv2d": read_conv,
    "SumPool2d": _read_sum_pool,
    "AvgPool2d": _read_avg_pool,
    "Flatten": _read_flatten,
    "Scale": _read_scale,
}


def _neuron(about: dict[str, Any]) -> Neuron:
    name, alpha = about["surrogate"]
    options = {key: about[key] for key in ("v_threshold", "v_reset", "detach_reset", "v_floor", "several")}
    options["surrogate"] = surrogate(name, alpha)
    if about["kind"] == "if":
        return IF(**options)
    if about["kind"] == "lif":
        return LIF(about["tau"], decay_input=about["decay_input"], **options)
    if about["kind"] == "cuba_lif":
        return own_cuba(about, options)
    if about["kind"] != "plif":
        raise ModelError(f"isofire's metadata name a neuron {about['kind']!r}; known: if, lif, plif, cuba_lif")
    neuron = ParametricLIF(about["tau"], decay_input=about["decay_input"], **options)
    neuron.w.data.fill_(about["w"])
    return neuron


def _batch_norm(about: dict[str, Any]) -> nn.Module:
    kind = nn.BatchNorm2d if about["axes"] == 3 else nn.BatchNorm1d
    norm = kind(
        about["features"], eps=about["eps"], momentum=about["momentum"], affine=about["affine"], dtype=torch.float32
    )
    norm.load_state_dict({key: torch.tensor(value) for key, value in about["state"].items()})
    return norm.eval()


def _unchanged(name: str, node: Any, module: nn.Module, dt: float) -> nn.Module:
    """The module that the metadata describe, if the node's own numbers are still those that were written with them."""
    known = ("r", "tau", "tau_mem", "tau_syn", "w_in", "v_leak", "v_threshold", "v_reset", "weight", "bias")
    fields = [key for key in known if key in vars(node)]
    if isinstance(module, Neuron):
        shape = tuple(np.shape(node.v_threshold))
    else:
        shape = tuple(np.shape(node.tau)) if isinstance(module, LI) else _norm_shape(node)
    again = node_of(name, module, shape, dt)
    for field in fields:
        if not np.array_equal(np.asarray(getattr(node, field)), np.asarray(getattr(again, field))):
            raise ModelError(
                f"{field} of node {name!r} is not what isofire's metadata there say, so one of them was changed "
                f"afterwards; delete the key {KEY!r} of the node's metadata to take its numbers"
            )
    return module


def _norm_shape(node: Any) -> tuple[int, ...]:
    return (node.weight.shape[0], *(1 for _ in range(node.weight.ndim - 2)))
