"""A module as one node of a graph; `isofire` in the node's metadata says what NIR has no field for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import nir
from isofire.errors import ModelError
from isofire.neurons import LI, Neuron, ParametricLIF
from isofire.neurons.kinds.integrate_and_fire import LIFDynamics
from isofire.neurons.registry import name_of
from isofire.neurons.surrogate import SURROGATES
from isofire.nir.arrays import array_of, sizes_of
from isofire.nir.convolution import write_conv
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
            if (own := own_code_of(module)) == "a forward of its own":
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
    tau: float = getattr(d, "tau", 0.0) if decay is None else 1.0 / float(decay.detach())
    if decay is not None and not torch.equal(decay.detach(), module.w.detach().sigmoid()):
        # a decay that was quantized is no sigmoid of a parameter any more
        kind, decay = "lif", None
    if kind not in ("if", "lif", "plif", "cuba_lif"):
        raise ModelError(
            f"isofire writes IF, LIF, parametric and current-based LIF to NIR, {name!r} is a {type(module).__name__}"
        )

    def full(value: float) -> np.ndarray:
        return np.full(shape, value, dtype=np.float32)

    w = None if decay is None else float(module.w.detach())
    slope = next(key for key, kind in SURROGATES.items() if type(d.surrogate) is kind)
    leak = {"tau": d.tau if kind == "plif" else tau, "decay_input": d.decay_input} if isinstance(d, LIFDynamics) else {}
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
    return nir.LIF(
        tau=full(tau * dt),
        r=full(1.0 if d.decay_input else tau),
        v_leak=full(d.rest),
        v_threshold=full(d.v_threshold),
        v_reset=full(d.rest),
        metadata=metadata,
    )


def _write_linear(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    weight = array_of(module.weight)
    return nir.Linear(weight=weight) if module.bias is None else nir.Affine(weight=weight, bias=array_of(module.bias))


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
        return nir.Affine(weight=array_of(weight), bias=array_of(offset), metadata=metadata)
    if len(shape) == 2:
        return nir.Conv1d(shape[1], array_of(weight[:, :, None]), 1, 0, 1, 1, array_of(offset), metadata=metadata)
    if len(shape) != 3:
        raise ModelError(f"NIR takes the batch norm {name!r} on [C], [C, L] or [C, H, W], got {list(shape)}")
    one = (1, 1)
    return nir.Conv2d(
        (shape[1], shape[2]), array_of(weight[:, :, None, None]), one, (0, 0), one, 1, array_of(offset),
        metadata=metadata,
    )  # fmt: skip


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
    # NIR counts the axes of one input, without N
    start, end = (axis % (len(shape) + 1) - 1 for axis in (module.start_dim, module.end_dim))
    if start < 0:
        raise ModelError(f"{name!r} flattens the images together; NIR knows single inputs only")
    end = -1 if end == len(shape) - 1 else end
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=start, end_dim=end)


def _write_scale(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    return nir.Scale(scale=array_of(module.scale.expand(shape)))


_WRITERS: dict[type[nn.Module], Callable[[str, Any, tuple[int, ...], float], Any]] = {
    Neuron: _write_neuron,
    LI: write_li,
    nn.Linear: _write_linear,
    nn.Conv1d: write_conv,
    nn.Conv2d: write_conv,
    nn.BatchNorm1d: _write_batch_norm,
    nn.BatchNorm2d: _write_batch_norm,
    nn.AvgPool2d: _write_pool,
    SumPool2d: _write_pool,
    nn.Flatten: _write_flatten,
    Scale: _write_scale,
}
