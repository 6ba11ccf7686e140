"""Current-based LIF neurons and leaky integrators: NIR's CubaLIF and LI as isofire's, and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nir
from isofire.errors import ModelError
from isofire.neurons import LI, CubaLIF
from isofire.nir.convention import Convention
from isofire.nir.metadata import KEY

FIELDS = ("synapse", "decay_input", "v_reset", "detach_reset", "v_floor", "several")
TENSORS = ("tau_mem", "tau_syn", "v_threshold")


def read_cuba(name: str, node: Any, c: Convention) -> CubaLIF:
    """A CubaLIF node: every neuron has its own time constants and threshold; their reset and v_leak must be one."""
    tau_mem, tau_syn = (steps_of(name, key, getattr(node, key), c) for key in ("tau_mem", "tau_syn"))
    v_reset = None if c.reset == "subtract" else one(name, "v_reset", node.v_reset)
    check_leak(name, node, v_reset or 0.0)
    return CubaLIF(
        tau_mem, tau_syn, synapse=c.synapse, v_reset=v_reset, v_threshold=values(node.v_threshold), v_floor=c.v_floor,
        several=c.several,
    )  # fmt: skip


def cuba_gain(node: Any, c: Convention) -> Tensor | None:
    """What the input of a CubaLIF node is multiplied with: w_in dt / tau_syn and r dt / tau_mem; None for 1.

    The current is linear, so that what multiplies it may as well multiply the input.
    """
    parts = [np.asarray(getattr(node, key), dtype=np.float64) for key in ("w_in", "tau_syn", "r", "tau_mem")]
    w_in, tau_syn, r, tau_mem = parts
    gain = w_in * c.dt / tau_syn * r * c.dt / tau_mem
    if c.synapse == "after_decay":
        # that current is a share of the one of NIR's equations
        gain = gain / (1.0 - c.dt / tau_syn)
    if np.allclose(gain, 1.0, rtol=1e-5):
        return None
    # of numbers for a whole layer numpy makes a scalar
    return torch.from_numpy(np.array(gain, dtype=np.float32))


def write_cuba(name: str, module: Any, shape: tuple[int, ...], dt: float, about: dict[str, Any]) -> Any:
    """The CubaLIF node of a layer; `about` says the rest of its dynamics, for isofire's own reader."""
    d = module.dynamics
    if d.subtracts:
        raise ModelError(f"layer {name!r} subtracts another number than its threshold, for which NIR has no node")
    tau_mem, tau_syn, threshold = (value.detach().double().cpu() for value in module.tensors())
    about = about | {key: getattr(d, key) for key in FIELDS} | {key: plain(getattr(module, key)) for key in TENSORS}
    w_in = tau_syn * (1.0 - 1.0 / tau_syn) if d.synapse == "after_decay" else tau_syn
    full = {
        "tau_mem": tau_mem * dt, "tau_syn": tau_syn * dt, "r": torch.ones(()) if d.decay_input else tau_mem,
        "v_leak": torch.tensor(d.rest), "v_threshold": threshold, "v_reset": torch.tensor(d.rest), "w_in": w_in,
    }  # fmt: skip
    arrays = {key: value.expand(shape).float().numpy().copy() for key, value in full.items()}
    return nir.CubaLIF(**arrays, metadata={KEY: json.dumps({"dynamics": about, "dt": dt})})


def own_cuba(about: dict[str, Any], options: dict[str, Any]) -> CubaLIF:
    """The neurons that isofire's metadata describe."""
    tensors = {key: torch.tensor(about[key], dtype=torch.float32) for key in TENSORS}
    tau_mem, tau_syn, threshold = tensors["tau_mem"], tensors["tau_syn"], tensors["v_threshold"]
    options = options | {"v_threshold": threshold}
    return CubaLIF(tau_mem, tau_syn, synapse=about["synapse"], decay_input=about["decay_input"], **options)


def read_li(name: str, node: Any, c: Convention) -> LI:
    """An LI node."""
    check_leak(name, node, 0.0)
    tau = one(name, "tau", steps_of(name, "tau", node.tau, c))
    return LI(tau, decay_input=not li_whole(node, c))


def li_whole(node: Any, c: Convention) -> bool:
    """r = tau / dt: the input arrives whole."""
    return bool(np.allclose(np.asarray(node.r) * c.dt, node.tau, rtol=1e-5))


def write_li(name: str, module: Any, shape: tuple[int, ...], dt: float) -> Any:
    """The LI node of a leaky integrator."""
    metadata = {KEY: json.dumps({"li": {"tau": module.tau, "decay_input": module.decay_input}, "dt": dt})}

    def full(value: float) -> np.ndarray:
        return np.full(shape, value, dtype=np.float32)

    r = 1.0 if module.decay_input else module.tau
    return nir.LI(tau=full(module.tau * dt), r=full(r), v_leak=full(0.0), metadata=metadata)


def steps_of(name: str, field: str, tau: Any, c: Convention) -> Tensor:
    """Time constants in steps.

    Raises
    ------
    ModelError
        If one is shorter than a step.
    """
    found = np.asarray(tau, dtype=np.float32) / np.float32(c.dt)
    # a time constant of one step may come out a rounding below it
    found = np.where(np.isclose(found, 1.0, rtol=1e-5), np.float32(1.0), found)
    if not found.size or float(found.min()) < 1.0:
        low = float(found.min()) if found.size else 0.0
        raise ModelError(
            f"node {name!r} has {field} = {low:g} steps of dt = {c.dt:g} s, it must be at least 1; lower dt"
        )
    return values(found)


def values(array: Any) -> Tensor:
    """A scalar where all neurons share a number, else one a neuron."""
    found = np.asarray(array, dtype=np.float32)
    return torch.tensor(float(found.flat[0])) if np.unique(found).size == 1 else torch.from_numpy(found.copy())


def plain(value: Tensor) -> Any:
    """For JSON."""
    return value.detach().cpu().tolist()


def check_leak(name: str, node: Any, rest: float) -> None:
    """Raise ModelError if the neurons leak to another value than they start from."""
    leak = one(name, "v_leak", node.v_leak)
    if leak != rest:
        raise ModelError(
            f"node {name!r} leaks to {leak:g} but starts at {rest:g}; isofire's neurons leak to their rest"
        )


def one(name: str, field: str, array: Any) -> float:
    """The number that all neurons of a node share.

    Raises
    ------
    ModelError
        If they do not.
    """
    found = np.unique(np.asarray(array))
    if found.size != 1:
        raise ModelError(
            f"the neurons of node {name!r} must share one {field}, got {found.size} values from {found.min():g} to "
            f"{found.max():g}; isofire's layers have one"
        )
    return float(found[0])
