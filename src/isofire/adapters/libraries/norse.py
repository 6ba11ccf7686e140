"""Norse 1.1: cells see a step [N, ...] and hand their state on, modules see [T, N, ...]; both call `activation`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout, MembraneMixin, common_shape
from isofire.adapters.framework import Framework, register_framework
from isofire.errors import ModelError
from isofire.neurons.membrane import Placement

QUANTIZABLE = {
    "lif_feed_forward_step": False,
    "lif_step": True,
    "iaf_feed_forward_step": False,
    "iaf_step": False,
    "lif_box_feed_forward_step": False,
}
"""Step functions whose charge does not depend on the threshold; whether their reset ignores the spike's gradient."""
_NEVER = torch.finfo(torch.float32).max


class Norse(Framework):
    """Finds Norse's spiking cells and modules."""

    title = "Norse"
    module = "norse.torch.module.snn"
    nir_writer = ("norse.torch.utils.export_nir", "to_nir")
    nir_writer_takes_one_image = True
    nir_writer_needs = "it takes a neuron's shape from its parameters, so give those as tensors of that shape"

    def __init__(self) -> None:
        self._adapter = NorseAdapter()

    def adapter_of(self, module: nn.Module) -> Adapter | None:
        loaded = self.loaded
        kinds = (loaded.SNNCell, loaded.SNN, loaded.SNNRecurrentCell, loaded.SNNRecurrent)
        return self._adapter if isinstance(module, kinds) and not _integrates(module) else None

    def states_after(self, module: nn.Module, output: Any) -> tuple[Tensor, ...] | None:
        kinds = (self.loaded.SNNCell, self.loaded.SNN)
        if not (_is_kind(module, "LILinearCell") or (isinstance(module, kinds) and _integrates(module))):
            return None
        return () if output is None else tuple(x for x in output[1] if isinstance(x, Tensor))


class NorseAdapter(Adapter):
    """`SNNCell`, `SNN` and their recurrent forms. They start at rest when called without a state."""

    fires_at_threshold = False

    def layout(self, neuron: Any) -> Layout:
        return Layout.STEP if _is_kind(neuron, "SNNCell", "SNNRecurrentCell") else Layout.TIME_FIRST

    def threshold(self, neuron: Any) -> Tensor:
        return torch.as_tensor(neuron.p.v_th).detach()

    def v_reset(self, neuron: Any) -> float | None:
        method = getattr(neuron.p, "reset_method", None)
        if method is not None and method.__name__ == "reset_subtract":
            return None
        return float(torch.as_tensor(neuron.p.v_reset).flatten()[0])

    def host(self, neuron: Any) -> type[MembraneMixin]:
        return ActivationHost

    def refusal(self, neuron: Any, placement: Placement) -> str | None:
        step = _activation(neuron)
        if "adjoint" in step:
            return "its adjoint gradient knows no quantizer; build it with method='super'"
        if step not in QUANTIZABLE:
            return f"the charge of {type(neuron).__name__} cannot be told from its firing and reset"
        return None

    def drive(self, neuron: Any, currents: Tensor) -> Tensor:
        if self.layout(neuron) is Layout.TIME_FIRST:
            return super().drive(neuron, currents)
        state, spikes = None, []
        for step in currents:
            spike, state = neuron(step, state)
            spikes.append(spike)
        return torch.stack(spikes)

    def states(self, neuron: Any) -> tuple[str, ...]:
        return tuple(_names(neuron.state_fallback(torch.zeros(1, 1, *self.shape(neuron)))))

    def shape(self, neuron: Any) -> tuple[int, ...]:
        if _is_kind(neuron, "SNNRecurrentCell", "SNNRecurrent"):
            return (int(neuron.input_size),)
        return common_shape(torch.as_tensor(value) for value in neuron.p if isinstance(value, Tensor | float))


class ActivationHost(MembraneMixin):
    """The step is the function in the attribute `activation`."""

    @property
    def activation(self) -> Any:
        return partial(_step, self, self.__dict__["activation"])

    @property
    def activation_sparse(self) -> Any:
        return _no_sparse


def _step(neuron: Any, step: Any, x: Tensor, state: Any, *rest: Any) -> tuple[Tensor, Any]:
    """Charge by the library's own step below a threshold that nothing reaches; then quantize, fire and reset."""
    *weights, p, dt = rest
    never = torch.full_like(torch.as_tensor(p.v_th), _NEVER)
    _, charged = step(x, state, *weights, p._replace(v_th=never, method="heaviside"), dt)
    h = charged.v
    if neuron.membrane.placement == "pre_fire":
        h = neuron.membrane(h)
    z = sys.modules["norse.torch.functional.threshold"].threshold(h - p.v_th, p.method, p.alpha)
    v = _reset(p, h, z.detach() if QUANTIZABLE[step.__name__] else z)
    if neuron.membrane.placement == "post_reset":
        v = neuron.membrane(v)
    spikes = {"z": z} if "z" in charged._fields else {}
    return z, charged._replace(v=v, **spikes)


def _reset(p: Any, h: Tensor, z: Tensor) -> Tensor:
    if "reset_method" in p._fields:
        return p.reset_method(z, h, p.v_reset, p.v_th)
    return (1 - z) * h + z * p.v_reset


def _names(state: Any) -> Iterator[str]:
    """Of a state's numbers; a refractory neuron's holds that of the neuron that it delays."""
    for name in state._fields:
        held = getattr(state, name)
        if hasattr(held, "_fields"):
            yield from (f"{name}.{inner}" for inner in _names(held))
        elif name != "z":
            # the last spikes are no state of a neuron but events on their way
            yield name


def _no_sparse(*_: object) -> None:
    raise ModelError("a quantized membrane takes dense inputs only, got a sparse tensor; call .to_dense() on it")


def _activation(neuron: Any) -> str:
    step = neuron.__dict__.get("activation")
    return getattr(step, "__name__", type(step).__name__)


def _integrates(neuron: Any) -> bool:
    """Leaky integrators return their potential and do not spike."""
    return _activation(neuron).startswith("li_")


def _is_kind(neuron: Any, *names: str) -> bool:
    return any(kind.__name__ in names and kind.__module__.startswith("norse.") for kind in type(neuron).__mro__)


register_framework("norse", Norse())
