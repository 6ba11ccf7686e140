"""A module as one node of a graph; `isofire` in the node's metadata says what NIR has no field for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nir
from isofire.errors import ModelError
from isofire.neurons import LI, Neuron, ParametricLIF
from isofire.neurons.kinds.integrate_and_fire import LIFDynamics
from isofire.neurons.registry import name_of
from isofire.neurons.surrogate import SURROGATES
from isofire.nir.current_based import write_cuba, write_li
from isofire.nir.graph import Scale, SumPool2d
from isofire.nir.metadata import KEY
from isofire.running import own_code_of


def node_of(name: str, module: nn.Module, shape: tuple[int, ...], dt: float) -> Any:
    """The node for a module that sees inputs of `shape`, without T and N.

    Raises
    ------
    ModelError
        If isofire writes no node for it.
    """
    return writer_of(name, module)(name, module, shape, dt)


def writer_of(name: str, module: nn.Module) -> Callable[[str, Any, tuple[int, ...], float], Any]:
    """What makes the node for modules of this kind.

    Raises
    ------
    ModelError
        If isofire writes no node for it.
    """
    for kind, write in _WRITERS.items():
        if isinstance(module, kind):
            if kind.__module__.startswith("torch.") and (own := own_code_of(module)) == "a forward of its own":
                raise ModelError(
                    f"{name!r} ({type(module).__name__}) is a {kind.__name__} with {own}, which a node of NIR would "
                    f"not run; use a plain {kind.__name__} that gives the same"
                )
            return write
    raise ModelError(
        f"isofire writes no node for {name!r} ({type(module).__name__}); known are "
        f"{', '.join(kind.__name__ for kind in _WRITERS)}, in a SEWResNet, a GraphNet or an nn.Sequential. Networks of "
        "other libraries are written by their own tools: snntorch.export_nir, sinabs.nir, norse.torch.to_nir, "
        "spikingjelly.activation_based.nir_exchange"
    )


def _write_neuron(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    d, decay = module.dynamics, module.decay() if isinstance(module, ParametricLIF) else None
    kind = name_of(module)
    if kind not in ("if", "lif", "plif", "cuba_lif"):
        raise ModelError(
            f"isofire writes IF, LIF, parametric and current-based LIF to NIR, {name!r} is a {type(module).__name__}"
        )

    def full(value: float) -> np.ndarray:
        return np.full(shape, value, dtype=np.float32)

    w = None if decay is None else float(module.w.detach())
    slope = next(key for key, kind in SURROGATES.items() if type(d.surrogate) is kind)
    leak = {"tau": d.tau, "decay_input": d.decay_input} if isinstance(d, LIFDynamics) else {}
    about = {
        "kind": kind, "w": w, **leak, "v_threshold": d.v_threshold,
        "v_reset": d.v_reset, "detach_reset": d.detach_reset, "v_floor": d.v_floor, "several": d.several,
        "surrogate": [slope, d.surrogate.alpha],
    }  # fmt: skip
    if kind == "cuba_lif":
        return write_cuba(name, module, shape, dt, about)
    metadata = {KEY: json.dumps({"dynamics": about, "dt": dt})}
    if kind == "if":
        return nir.IF(r=full(1.0), v_threshold=full(d.v_threshold), v_reset=full(d.rest), metadata=metadata)
    tau = d.tau if decay is None else 1.0 / float(decay.detach())
    return nir.LIF(
        tau=full(tau * dt),
        r=full(1.0 if d.decay_input else tau),
        v_leak=full(d.rest),
        v_threshold=full(d.v_threshold),
        v_reset=full(d.rest),
        metadata=metadata,
    )


def _write_linear(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    weight = _array(module.weight)
    return nir.Linear(weight=weight) if module.bias is None else nir.Affine(weight=weight, bias=_array(module.bias))


def _write_conv(name: str, module: Any, shape: Any, dt: float) -> Any:
    if module.padding_mode != "zeros":
        raise ModelError(f"NIR pads with zeros, {name!r} with padding_mode={module.padding_mode!r}")
    if module.groups > 1:
        raise ModelError(
            f"{name!r} is a convolution in {module.groups} groups, which nir's own type check takes for one of fewer "
            "channels, so that no tool could read the file; use groups=1"
        )
    plane = isinstance(module, nn.Conv2d)
    bias = torch.zeros(module.out_channels) if module.bias is None else module.bias

    def sizes(values: tuple[int, ...]) -> Any:
        return tuple(values) if plane else values[0]

    kind: Any = nir.Conv2d if plane else nir.Conv1d
    return kind(
        input_shape=sizes(shape[1:]),
        weight=_array(module.weight),
        stride=sizes(module.stride),
        padding=module.padding if isinstance(module.padding, str) else sizes(module.padding),
        dilation=sizes(module.dilation),
        groups=module.groups,
        bias=_array(bias),
        metadata={KEY: json.dumps({"bias": False})} if module.bias is None else {},
    )


def _write_batch_norm(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    """Every channel times a factor plus a constant: a convolution 1x1, or a linear layer, with a diagonal weight."""
    if module.running_mean is None:
        raise ModelError(f"the batch norm {name!r} keeps no statistics, so it cannot be written as fixed weights")
    state = {key: value.tolist() for key, value in module.state_dict().items()}
    about = {"axes": len(shape), "features": module.num_features, "eps": module.eps, "momentum": module.momentum}
    metadata = {KEY: json.dumps({"batch_norm": {**about, "affine": module.affine, "state": state}})}
    factor = torch.rsqrt(module.running_var.double() + module.eps)
    factor = factor if module.weight is None else factor * module.weight.double()
    offset = -module.running_mean.double() * factor
    offset = (offset if module.bias is None else offset + module.bias.double()).float()
    weight = torch.diag(factor).float()
    if len(shape) == 1:
        return nir.Affine(weight=_array(weight), bias=_array(offset), metadata=metadata)
    if len(shape) != 3:
        raise ModelError(f"NIR takes the batch norm {name!r} on [C] or [C, H, W], got {list(shape)}")
    return nir.Conv2d(
        input_shape=(shape[1], shape[2]),
        weight=_array(weight[:, :, None, None]),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
        bias=_array(offset),
        metadata=metadata,
    )


def _write_pool(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    if isinstance(module, nn.AvgPool2d):
        if module.ceil_mode or module.divisor_override is not None:
            raise ModelError(f"NIR knows no ceil_mode and divisor_override, {name!r} has one")
        if not module.count_include_pad and any(sizes_of(module.padding, 2)):
            raise ModelError(
                f"NIR's averages count the padding, those of {name!r} do not (count_include_pad = False); pad by 0"
            )
    kind = nir.SumPool2d if isinstance(module, SumPool2d) else nir.AvgPool2d
    kernel, stride, padding = (
        np.array(sizes_of(value, 2)) for value in (module.kernel_size, module.stride, module.padding)
    )
    return kind(kernel_size=kernel, stride=stride, padding=padding)


def _write_flatten(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    start, end = (axis - 1 if axis > 0 else axis for axis in (module.start_dim, module.end_dim))
    if module.start_dim == 0:
        raise ModelError(f"{name!r} flattens the images together; NIR knows single inputs only")
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=start, end_dim=end)


def _write_scale(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    return nir.Scale(scale=_array(module.scale.expand(shape)))


_WRITERS: dict[type[nn.Module], Callable[[str, Any, tuple[int, ...], float], Any]] = {
    Neuron: _write_neuron,
    LI: write_li,
    nn.Linear: _write_linear,
    nn.Conv1d: _write_conv,
    nn.Conv2d: _write_conv,
    nn.BatchNorm1d: _write_batch_norm,
    nn.BatchNorm2d: _write_batch_norm,
    nn.AvgPool2d: _write_pool,
    SumPool2d: _write_pool,
    nn.Flatten: _write_flatten,
    Scale: _write_scale,
}


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to("cpu", torch.float32).numpy().copy()


def sizes_of(values: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis, of one for all or of as many."""
    found = [int(value) for value in np.atleast_1d(np.asarray(values))]
    return tuple(found * axes if len(found) == 1 else found)
