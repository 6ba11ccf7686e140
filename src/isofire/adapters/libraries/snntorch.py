"""snnTorch 1.0: neurons see one step [N, ...] a call, in a loop of the user's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout, MembraneMixin, common_shape
from isofire.adapters.framework import Framework, register_framework
from isofire.adapters.handed_on import Decided
from isofire.neurons import ATan, CubaLIF, Neuron, Recurrent
from isofire.neurons.membrane import Placement

QUANTIZABLE = ("Leaky", "Lapicque", "RLeaky", "Synaptic", "RSynaptic", "Alpha")
"""Kinds that charge through `state_function` and then fire."""
STATES = {
    "Alpha": ("syn_exc", "syn_inh", "mem"),
    **dict.fromkeys(("Synaptic", "RSynaptic", "SLSTM", "SConv2dLSTM"), ("syn", "mem")),
}
"""What kinds that keep more than a membrane keep."""
_NO_LEAK = 1e30
"""A time constant whose leak float32 does not see."""
_RECURRENT = ("RLeaky", "RSynaptic")
UNROLLED = ("StateLeaky", "LinearLeaky", "AssociativeLeaky", "LeakyParallel")
"""Kinds that take all steps [T, N, ...] at once and have no state to quantize."""


class SnnTorch(Framework):
    """Finds snnTorch's neurons."""

    title = "snnTorch"
    module = "snntorch"
    nir_writer = ("snntorch.export_nir", "export_to_nir")
    nir_writer_takes_one_image = True
    nir_writer_needs = "it takes a neuron's shape from its parameters, so give those as tensors of that shape"

    def __init__(self) -> None:
        self._adapter = SnnTorchAdapter()

    def adapter_of(self, module: nn.Module) -> Adapter | None:
        known = isinstance(module, (self.loaded.SpikingNeuron, self.loaded.LeakyParallel))
        # one that returns its potentials does not spike
        integrates = isinstance(module, self.loaded.StateLeaky) and not module.output
        return self._adapter if known and not integrates else None

    def nir_convention(self, neuron: Any) -> Mapping[str, Any] | str:
        if not _is_kind(neuron, ("Leaky",)):
            return super().nir_convention(neuron)
        if neuron.__dict__.get("reset_delay", True):
            return "snnTorch's Leaky resets one step after its spike, unless built with reset_delay=False"
        if neuron.reset_mechanism == "none":
            return "snnTorch's Leaky with reset_mechanism='none' does not reset"
        if neuron.reset_mechanism == "subtract":
            return "snnTorch's Leaky subtracts again in the next step what is above the threshold after a subtraction"
        # the writer writes steps of 0.1 ms
        return {"reset": "value", "dt": 1e-4}

    def adopt(self, model: nn.Module) -> None:
        # snntorch.utils.reset goes through this list, which only a neuron's __init__ adds to
        spiking = self.loaded.SpikingNeuron
        spiking.instances += [module for module in model.modules() if isinstance(module, spiking)]


class SnnTorchAdapter(Adapter):
    """`SpikingNeuron`s. Resets belong to the next step, unless built with reset_delay=False."""

    fires_at_threshold = False

    def layout(self, neuron: Any) -> Layout:
        return Layout.TIME_FIRST if _is_kind(neuron, UNROLLED) else Layout.STEP

    def threshold(self, neuron: Any) -> Tensor:
        return neuron.threshold.detach()

    def v_reset(self, neuron: Any) -> float | None:
        return 0.0 if neuron.reset_mechanism == "zero" else None

    def host(self, neuron: Any) -> type[MembraneMixin]:
        return StateHost

    def refusal(self, neuron: Any, placement: Placement) -> str | None:
        if not _is_kind(neuron, QUANTIZABLE) or _is_kind(neuron, ("DeltaLeaky",)):
            return f"{type(neuron).__name__} is not among the kinds that charge and then fire"
        if neuron.state_quant:
            return "the neuron already has a state_quant of snnTorch's; build it without"
        if placement == "post_reset" and neuron.__dict__.get("reset_delay", True):
            return (
                "the neuron resets at the next step, so that no state after the reset is ever stored; "
                "take placement 'pre_fire', or build the neuron with reset_delay=False"
            )
        return None

    def counterpart(self, neuron: Any) -> Neuron | str:
        if (said := _other_than_known(neuron)) is not None:
            return said
        beta, threshold = (value.detach().float() for value in (neuron.beta.clamp(0, 1), neuron.threshold))
        alpha = neuron.alpha.detach().clamp(0, 1) if _is_kind(neuron, ("Synaptic", "RSynaptic")) else torch.zeros(())
        tau_mem, tau_syn = ((1.0 / (1.0 - kept.double())).clamp(max=_NO_LEAK) for kept in (beta, alpha))
        # a reset of the step after has decayed by then; one that never comes subtracts nothing
        subtract = {"subtract": threshold / beta, "none": torch.zeros_like(threshold), "zero": None}
        made = CubaLIF(
            # it fires above the threshold: from the next number on
            tau_mem, tau_syn, v_threshold=threshold.nextafter(torch.full_like(threshold, torch.inf)),
            v_reset=0.0 if neuron.reset_mechanism == "zero" else None, v_subtract=subtract[neuron.reset_mechanism],
            surrogate=ATan(),
        )  # fmt: skip
        made.fires_above = True
        return Recurrent(made, _back(neuron)) if _is_kind(neuron, _RECURRENT) else made

    def reset(self, neuron: Any) -> None:
        if self.layout(neuron) is Layout.STEP:
            neuron.reset_mem()

    def spikes(self, neuron: Any, output: Any) -> Any:
        spikes = super().spikes(neuron, output)
        # graded spikes have one height, or one for each neuron
        return spikes / neuron.graded_spikes_factor if isinstance(spikes, Tensor) else spikes

    def states(self, neuron: Any) -> tuple[str, ...]:
        return next((names for kind, names in STATES.items() if _is_kind(neuron, (kind,))), ("mem",))

    def held(self, neuron: Any) -> Tensor | None:
        pools = _is_kind(neuron, ("SConv2dLSTM",)) and (neuron.max_pool or neuron.avg_pool)
        return neuron.mem if pools else None

    def shape(self, neuron: Any) -> tuple[int, ...]:
        if _is_kind(neuron, _RECURRENT) and neuron.all_to_all:
            if neuron.linear_features:
                return (int(neuron.linear_features),)
            return (int(neuron.conv2d_channels), 4, 4)
        held = [*neuron.named_parameters(recurse=False), *neuron.named_buffers(recurse=False)]
        names = ("alpha", "beta", "threshold", "V", "graded_spikes_factor")
        return common_shape(tensor for name, tensor in held if name in names)


class StateHost(MembraneMixin):
    """The charge is the attribute `state_function`; a reset that does not wait for the next step is the last thing."""

    transient = ("_stored",)

    @property
    def state_function(self) -> Any:
        charge = self.__dict__["state_function"]
        return partial(_charge, self.membrane, charge) if self.membrane.placement == "pre_fire" else charge

    def forward(self: Any, *args: Any, **options: Any) -> Any:
        output = super().forward(*args, **options)  # pyright: ignore[reportAttributeAccessIssue]
        if self.membrane.placement == "pre_fire":
            return output
        full = self.mem
        self.mem = self.membrane(full)
        # a state that rounding lifts over the threshold has not fired, and must not be reset in the next step
        reset = super().mem_reset(full)  # pyright: ignore[reportAttributeAccessIssue]
        self.__dict__["_stored"] = Decided(self.mem, reset)
        return (*output[:-1], self.mem) if isinstance(output, tuple) else output

    def mem_reset(self: Any, mem: Tensor) -> Tensor:
        own = super().mem_reset  # pyright: ignore[reportAttributeAccessIssue]
        stored: Decided | None = self.__dict__.get("_stored")
        return own(mem) if stored is None or self.membrane.placement == "pre_fire" else stored.of(mem, own)

    def reset_mem(self: Any) -> Any:
        self.__dict__.pop("_stored", None)
        return super().reset_mem()  # pyright: ignore[reportAttributeAccessIssue]


def _charge(membrane: nn.Module, charge: Any, current: Tensor) -> Any:
    charged = charge(current)
    # with synaptic currents, the membrane comes last
    *currents, mem = charged if isinstance(charged, tuple) else (charged,)
    mem = membrane(mem)
    return (*currents, mem) if currents else mem


def _other_than_known(neuron: Any) -> str | None:
    """Why no neuron of isofire's fires as this one."""
    kind = type(neuron).__name__
    if kind not in ("Leaky", "Synaptic", *_RECURRENT):
        return f"{kind} has no counterpart, of snnTorch's neurons Leaky, Synaptic, RLeaky and RSynaptic have"
    if isinstance(neuron, MembraneMixin) or neuron.state_quant:
        return "its membrane is quantized; quantize it as isofire's neuron, or leave it"
    if neuron.inhibition:
        return "neurons that inhibit each other have no counterpart"
    if bool((neuron.graded_spikes_factor != 1.0).any()):
        return "graded spikes have no counterpart; put the factor into the weights behind them"
    soft, delayed = neuron.reset_mechanism == "subtract", neuron.__dict__.get("reset_delay", True)
    if soft and not delayed:
        return "with reset_delay=False it subtracts again what stays above the threshold; leave reset_delay True"
    if soft and float(neuron.beta.min()) <= 0.0:
        return "a reset by subtraction in the step after its spike is not known where beta is 0"
    if neuron.reset_mechanism == "zero" and delayed and kind != "Leaky":
        return (
            f"{kind} with reset_mechanism='zero' loses the input of the step after its spike; take 'subtract', or "
            "reset_delay=False"
        )
    if kind in _RECURRENT and not neuron.all_to_all and neuron.V.ndim != 1:
        return f"V of {kind} is one number for all neurons; give each its own (V of shape [neurons])"
    return None


def _back(neuron: Any) -> nn.Module:
    """What leads from a recurrent neuron's spikes back to it; a number a neuron as a diagonal of weights."""
    if neuron.all_to_all:
        return copy.deepcopy(neuron.recurrent)
    weight = torch.diag(neuron.V.detach().float())
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def _is_kind(neuron: Any, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names and kind.__module__.startswith("snntorch.") for kind in type(neuron).__mro__)


register_framework("snntorch", SnnTorch())
