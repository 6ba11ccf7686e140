"""SpikingJelly 2.0: `BaseNode`s keep their state functionally, `SimpleBaseNode`s in charge, fire and reset methods."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout, MembraneMixin, own_class
from isofire.adapters.framework import Framework, register_framework
from isofire.neurons.membrane import Placement

NEURONS = "spikingjelly.activation_based.neuron"
QUANTIZABLE = {
    *("BaseNode", "IFNode", "LIFNode", "ParametricLIFNode", "HalfThresholdIFNode", "QIFNode", "EIFNode", "ILIFNode"),
    *("KLIFNode", "CUBALIFNode", "SimpleBaseNode", "SimpleIFNode", "SimpleLIFNode"),
}
"""Kinds with a boundary between charge and fire and one stored potential `v` that the reset alone changes."""
_NO_STATE = {"StatefulEncoder", "Dropout", "DropConnectLinear", "_BatchNormThroughTimeBase"}
COUNTED = (
    *("PSN", "MaskedPSN", "SlidingPSN", "GatedLIFNode", "DSRIFNode", "DSRLIFNode", "STBIFNode", "FlexSN"),
    *("ActivationAwareIFNode", "FewSpikeNode", "ILCBaseNode", "NoisyBaseNode"),
)
"""Spiking kinds outside of the base classes; their spikes are counted, their membranes are left alone."""


class SpikingJellyFramework(Framework):
    """What the releases share: the writer, and modules that keep a state."""

    title = "SpikingJelly"
    nir_writer = ("spikingjelly.activation_based.nir_exchange", "export_to_nir")

    def states_after(self, module: nn.Module, output: Any) -> tuple[Tensor, ...] | None:
        return _kept_by(module, output, self.loaded.base.MemoryModule)

    def reset_others(self, model: nn.Module) -> None:
        modules: Any = model.modules()
        for module in modules:
            if isinstance(module, self.loaded.base.MemoryModule):
                module.reset()


class SpikingJelly(SpikingJellyFramework):
    """Finds the neurons of SpikingJelly 2.0, in which `neuron` has become a package."""

    module = f"{NEURONS}.base_node"

    def __init__(self) -> None:
        self._node, self._simple = NodeAdapter(), SimpleNodeAdapter()

    def adapter_of(self, module: nn.Module) -> Adapter | None:
        if isinstance(module, self.loaded.BaseNode):
            return self._node
        if isinstance(module, self.loaded.SimpleBaseNode):
            return self._simple
        return self._node if isinstance(module, _counted(sys.modules[NEURONS])) else None

    def nir_convention(self, neuron: Any) -> Mapping[str, Any] | str:
        if library_kind(neuron) not in ("IFNode", "LIFNode", "ParametricLIFNode"):
            return super().nir_convention(neuron)
        # the writer takes no other reset, and writes steps of 0.1 ms
        return {"reset": "value", "dt": 1e-4}


class SpikingJellyAdapter(Adapter):
    """What all families of nodes share: step modes, memories, thresholds, and which kinds can be quantized."""

    quantizable: Collection[str] = QUANTIZABLE

    def layout(self, neuron: Any) -> Layout:
        # PSN takes all steps at once and has no mode
        return Layout.STEP if getattr(neuron, "step_mode", "m") == "s" else Layout.TIME_FIRST

    def threshold(self, neuron: Any) -> Tensor:
        return torch.as_tensor(neuron.v_threshold).detach()

    def v_reset(self, neuron: Any) -> float | None:
        return None if neuron.v_reset is None else float(neuron.v_reset)

    def several(self, neuron: Any) -> bool:
        return library_kind(neuron) == "ILIFNode"

    def refusal(self, neuron: Any, placement: Placement) -> str | None:
        kind = library_kind(neuron)
        if kind not in self.quantizable:
            return f"{kind} is not among the kinds whose charge, fire and reset can be told apart"
        if kind == "KLIFNode" and neuron.scale_reset:
            return "a KLIFNode with scale_reset stores its membrane divided by the learned k"
        return None

    def states(self, neuron: Any) -> tuple[str, ...]:
        kind = library_kind(neuron)
        if kind in ("PSN", "MaskedPSN", "SlidingPSN"):
            # in either step mode it weighs its last inputs, which a mask that is not closed yet does with all
            every = kind == "PSN" or (kind == "MaskedPSN" and float(neuron.lambda_) < 1)
            steps = neuron.T if every else min(neuron.k, getattr(neuron, "T", neuron.k))
            return tuple(f"x[t - {back}]" for back in range(steps))
        if kind == "GatedLIFNode":
            # its u is a copy of v
            return ("v",)
        return tuple(neuron.__dict__.get("_memories", ())) or ("v",)

    def reset(self, neuron: Any) -> None:
        # PSN is the one kind without a memory
        if isinstance(neuron, _ancestor(neuron, "MemoryModule")):
            neuron.reset()


class NodeAdapter(SpikingJellyAdapter):
    """Children of `BaseNode`."""

    def host(self, neuron: Any) -> type[MembraneMixin]:
        return _node_host(_ancestor(neuron, "MemoryModule"), _ancestor(neuron, "BaseNode"))


class SimpleNodeAdapter(SpikingJellyAdapter):
    """Children of `SimpleBaseNode`."""

    def host(self, neuron: Any) -> type[MembraneMixin]:
        return SimpleHost


class SimpleHost(MembraneMixin):
    """Charge, fire and reset are methods on `self.v`."""

    def single_step_forward(self: Any, x: Tensor) -> Tensor:
        self.neuronal_charge(x)
        return fire_and_reset(self)

    def multi_step_forward(self: Any, x_seq: Tensor) -> Tensor:
        return torch.stack([self.single_step_forward(x) for x in x_seq])


def fire_and_reset(neuron: Any) -> Tensor:
    """What follows the charge in a step on `neuron.v`, through the quantizer; the spikes."""
    if neuron.membrane.placement == "pre_fire":
        neuron.v = neuron.membrane(neuron.v)
    spike = neuron.neuronal_fire()
    neuron.neuronal_reset(spike)
    if neuron.membrane.placement == "post_reset":
        neuron.v = neuron.membrane(neuron.v)
    return spike


@cache
def _node_host(memory: Any, base: Any) -> type[MembraneMixin]:
    """The three methods that lead to a step: with fewer, some kinds run past the quantizer in multi-step mode."""

    class NodeHost(MembraneMixin):
        def single_step_functional_forward(self: Any, inputs: tuple[Tensor, ...], states: tuple, **options: Any) -> Any:
            place = list(self._memories).index("v")
            charged = _charge(self, inputs, states, options)
            h = charged[place]
            if self.membrane.placement == "pre_fire":
                h = self.membrane(h)
            counts = library_kind(self) == "ILIFNode"
            spike = self.surrogate_function(h / self.v_threshold if counts else h - self.v_threshold)
            v = _reset(self, h, spike.detach() if self.detach_reset else spike)
            if self.membrane.placement == "post_reset":
                v = self.membrane(v)
            return (spike,), (*charged[:place], v, *charged[place + 1 :])

        def multi_step_functional_forward(self: Any, inputs: tuple[Tensor, ...], states: tuple, **options: Any) -> Any:
            return memory.multi_step_functional_forward(self, inputs, states, **options)

        def multi_step_forward(self: Any, x_seq: Tensor, *args: Any, **options: Any) -> Any:
            return base.multi_step_forward(self, x_seq, *args, **options)

    return NodeHost


def _charge(neuron: Any, inputs: tuple[Tensor, ...], states: tuple, options: dict) -> tuple:
    """States after the kind's own charge: its step, run on a twin that shares everything but cannot fire.

    With threshold 0 and no spikes, both resets give the charged membrane back bit by bit.
    """
    own: Any = own_class(neuron)
    twin = own.__new__(own)
    # in the instance's dictionary both stand before a parameter, a buffer or a submodule of that name
    twin.__dict__.update(neuron.__dict__ | {"v_threshold": 0.0, "surrogate_function": torch.zeros_like})
    return own.single_step_functional_forward(twin, inputs, states, **options)[1]


def _reset(neuron: Any, h: Tensor, spike: Tensor) -> Tensor:
    if neuron.v_reset is None:
        return h - spike * neuron.v_threshold
    return spike * neuron.v_reset + (1.0 - spike) * h


def _kept_by(module: Any, output: Any, memory: type) -> tuple[Tensor, ...] | None:
    """States of a filter, or of a recurrent cell whose gates spike; containers hold spikes, encoders the image's,
    dropout the mask of a training step, and norms of their own for each step count the steps."""
    kinds = {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("spikingjelly.")}
    if kinds & {"SpikingLSTMCell", "SpikingGRUCell"}:
        # of (hidden, cell) the first are spikes
        held = output[1:] if isinstance(output, tuple) else (output,)
        return tuple(x for x in held if isinstance(x, Tensor))
    if not isinstance(module, memory) or kinds & _NO_STATE or any(True for _ in module.children()):
        return None
    states = module._memories  # pyright: ignore[reportAttributeAccessIssue]
    return tuple(x for x in states.values() if isinstance(x, Tensor)) if states else None


def library_kind(neuron: Any) -> str:
    """Name of the library's class that the neuron is, or that its own class was derived from."""
    return next(kind.__name__ for kind in own_class(neuron).__mro__ if kind.__module__.startswith("spikingjelly."))


def _ancestor(neuron: Any, name: str) -> Any:
    """The class of this name that a neuron derives from; () if there is none."""
    return next((kind for kind in type(neuron).__mro__ if kind.__name__ == name), ())


@cache
def _counted(package: Any) -> tuple[type, ...]:
    return tuple(vars(package)[name] for name in COUNTED)


register_framework("spikingjelly", SpikingJelly())
