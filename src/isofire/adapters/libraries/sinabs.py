"""Sinabs 3.1: layers see [N, T, ...], their Squeeze forms [(N * T), ...], and keep their state as buffers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout, MembraneMixin, common_shape, own_class
from isofire.adapters.framework import Framework, register_framework
from isofire.neurons import MembraneQuantizer
from isofire.neurons.membrane import Placement


class Sinabs(Framework):
    """Finds Sinabs' layers that spike."""

    title = "Sinabs"
    module = "sinabs.layers.stateful_layer"
    nir_writer = ("sinabs.nir", "to_nir")
    nir_writer_needs = "it writes layers in their Squeeze forms, for inputs [N * T, ...], and IAF rather than LIF"

    def __init__(self) -> None:
        self._adapter = SinabsAdapter()

    def adapter_of(self, module: nn.Module) -> Adapter | None:
        return self._adapter if isinstance(module, self.loaded.StatefulLayer) and module.does_spike else None

    def nir_convention(self, neuron: Any) -> Mapping[str, Any] | str:
        name = type(neuron).__name__
        if not _is_kind(neuron, "IAF"):
            return f"Sinabs' {name} decays by exp(-1 / tau) a step, and its graph holds tau as seconds"
        if self._adapter.states(neuron) != ("v_mem",):
            return f"the synaptic current of Sinabs' {name} does not stand in its graph"
        fire, reset = neuron.spike_fn, neuron.reset_fn
        several = {"MultiSpike": True, "SingleSpike": False}.get(getattr(fire, "__name__", ""))
        subtracts, sets = type(reset).__name__ == "MembraneSubtract", type(reset).__name__ == "MembraneReset"
        whole = subtracts and (
            reset.subtract_value is None or bool((neuron.spike_threshold == reset.subtract_value).all())
        )
        if several is None or not (whole or (sets and reset.reset_value == 0 and not several)):
            return f"no reset here is what Sinabs' {name} does with {fire} and {reset}"
        floors = [] if neuron.min_v_mem is None else neuron.min_v_mem.unique().tolist()
        if len(floors) > 1:
            return f"Sinabs' {name} has several floors"
        return {"reset": "subtract" if subtracts else "value", "several": several, "v_floor": (*floors, None)[0]}

    def states_after(self, module: nn.Module, output: Any) -> tuple[Tensor, ...] | None:
        if not isinstance(module, self.loaded.StatefulLayer) or module.does_spike:
            return None
        return tuple(module.buffers(recurse=False))

    def reset_others(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, self.loaded.StatefulLayer):
                _forget(module)


class SinabsAdapter(Adapter):
    """`StatefulLayer`s with a spike function: IAF, LIF, ALIF and their Squeeze forms."""

    def layout(self, neuron: Any) -> Layout:
        return Layout.BATCH_FIRST

    def threshold(self, neuron: Any) -> Tensor:
        # an adaptive threshold is a state, and b0 what it starts from
        fixed = neuron.b0 if _is_kind(neuron, "ALIF") else neuron.spike_threshold
        return torch.as_tensor(fixed).detach()

    def v_reset(self, neuron: Any) -> float | None:
        sets = type(neuron.reset_fn).__name__ == "MembraneReset"
        return float(neuron.reset_fn.reset_value) if sets else None

    def several(self, neuron: Any) -> bool:
        return getattr(neuron.spike_fn, "__name__", "") != "SingleSpike"

    def host(self, neuron: Any) -> type[MembraneMixin]:
        return SpikeFnHost

    def refusal(self, neuron: Any, placement: Placement) -> str | None:
        if not _is_kind(neuron, "LIF", "ALIF"):
            return f"{type(neuron).__name__} is not among the kinds that charge, call spike_fn and call reset_fn"
        if _is_kind(neuron, "LIFRecurrent", "ALIFRecurrent"):
            return "Sinabs cannot copy a layer with rec_connect, which the self-test needs"
        if "v_mem" not in neuron.spike_fn.required_states:
            return "its spike_fn does not look at v_mem"
        return None

    def reset(self, neuron: Any) -> None:
        _forget(neuron)

    def batch_size(self, neuron: Any) -> int | None:
        return neuron.batch_size if _is_kind(neuron, "SqueezeMixin") and neuron.batch_size > 0 else None

    def spikes(self, neuron: Any, output: Any) -> Any:
        if isinstance(output, Tensor) and _is_kind(neuron, "SqueezeMixin"):
            output = output.unflatten(0, (neuron.batch_size, neuron.num_timesteps))
        return super().spikes(neuron, output)

    def drive(self, neuron: Any, currents: Tensor) -> Tensor:
        if not _is_kind(neuron, "SqueezeMixin"):
            return super().drive(neuron, currents)
        squeezed: Any = neuron
        sizes = squeezed.batch_size, squeezed.num_timesteps
        self.reset(neuron)
        squeezed.batch_size, squeezed.num_timesteps = currents.shape[1], currents.shape[0]
        spikes = self.spikes(neuron, neuron(currents.transpose(0, 1).flatten(0, 1)))
        squeezed.batch_size, squeezed.num_timesteps = sizes
        self.reset(neuron)
        return spikes

    def states(self, neuron: Any) -> tuple[str, ...]:
        held = [name for name, _ in neuron.named_buffers(recurse=False)]
        return ("v_mem", *(name for name in ("i_syn", "b") if name in held))

    def lost_in_copies(self, neuron: Any) -> tuple[str, ...]:
        # a layer is built anew from its `_param_dict`, in which ALIF's lacks it
        return ("norm_input",) if _is_kind(neuron, "ALIF") else ()

    def shape(self, neuron: Any) -> tuple[int, ...]:
        return common_shape(neuron.parameters(recurse=False))


class SpikeFnHost(MembraneMixin):
    """In a forward call, `spike_fn` and `reset_fn` are those of a `_Step`; outside of it the layer's own are seen.

    Sinabs takes every buffer of a layer for a state, and a layer with submodules for a container: the quantizer is
    kept out of both views, and taken along where it belongs.
    """

    def forward(self: Any, input_data: Tensor) -> Tensor:
        self.__dict__["_step"] = _Step(self)
        try:
            return super().forward(input_data)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            del self.__dict__["_step"]

    @property
    def spike_fn(self) -> Any:
        return self.__dict__.get("_step", self.__dict__["spike_fn"])

    @property
    def reset_fn(self) -> Any:
        step = self.__dict__.get("_step")
        return self.__dict__["reset_fn"] if step is None else step.reset

    @property
    def min_v_mem(self: Any) -> Any:
        floor = {**self.__dict__, **self._parameters}.get("min_v_mem")
        # after the reset comes the floor, and then the quantizer
        return None if "_step" in self.__dict__ and self.membrane.placement == "post_reset" else floor

    def named_buffers(self: Any, *args: Any, **options: Any) -> Iterator[tuple[str, Tensor]]:
        for name, buffer in super().named_buffers(*args, **options):  # pyright: ignore[reportAttributeAccessIssue]
            if "membrane." not in name:
                yield name, buffer

    def named_children(self: Any) -> Iterator[tuple[str, nn.Module]]:
        for name, child in super().named_children():  # pyright: ignore[reportAttributeAccessIssue]
            if name != "membrane":
                yield name, child

    def _apply(self: Any, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # pyright: ignore[reportAttributeAccessIssue]
        if recurse:
            self.membrane._apply(fn)
        return self

    def train(self: Any, mode: bool = True) -> Any:
        self.membrane.train(mode)
        return super().train(mode)  # pyright: ignore[reportAttributeAccessIssue]

    def __deepcopy__(self: Any, memo: dict) -> Any:
        # Sinabs builds a copy by calling the class with what it holds, and knows nothing of a membrane
        kind, membrane = type(self), self._modules.pop("membrane")
        self.__class__ = own_class(self)
        try:
            twin = copy.deepcopy(self)
        finally:
            self.__class__ = kind
            self.membrane = membrane
        SinabsAdapter().put_back(self, twin)
        twin.training = self.training
        twin.__class__ = kind
        twin.membrane = copy.deepcopy(membrane, memo)
        return twin


class _Step:
    """Stands in for `spike_fn` and, with `reset`, for `reset_fn` of a layer during one forward call."""

    def __init__(self, layer: Any) -> None:
        held = layer.__dict__
        self._spike_fn, self._reset_fn = held["spike_fn"], held["reset_fn"]
        self._membrane: MembraneQuantizer = layer.membrane
        self._floor = layer.min_v_mem
        self._fired_at: Tensor | None = None

    @property
    def required_states(self) -> Any:
        return self._spike_fn.required_states

    def apply(self, *inputs: Any) -> Tensor:
        place = list(self.required_states).index("v_mem")
        self._fired_at = inputs[place]
        if self._membrane.placement == "pre_fire":
            self._fired_at = self._membrane(self._fired_at)
        return self._spike_fn.apply(*inputs[:place], self._fired_at, *inputs[place + 1 :])

    def reset(self, spikes: Tensor, state: dict[str, Tensor], threshold: Any) -> dict[str, Tensor]:
        new = self._reset_fn(spikes, {**state, "v_mem": self._fired_at}, threshold)
        if self._membrane.placement == "post_reset":
            v = new["v_mem"]
            floored = v if self._floor is None else F.relu(v - self._floor) + self._floor
            new["v_mem"] = self._membrane(floored)
        return new


def _forget(layer: nn.Module) -> None:
    """No state at all: one that is kept, if only as zeros, is mixed at random when the batch size changes."""
    for name, buffer in layer._buffers.items():
        if buffer is not None:
            layer._buffers[name] = torch.zeros(0, device=buffer.device, dtype=buffer.dtype)


def _is_kind(neuron: Any, *names: str) -> bool:
    return any(kind.__name__ in names and kind.__module__.startswith("sinabs.") for kind in type(neuron).__mro__)


register_framework("sinabs", Sinabs())
