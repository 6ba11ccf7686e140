"""isofire's own neurons, through the same door as everyone else's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter, Layout, MembraneMixin, common_shape
from isofire.neurons import MembraneQuantizer, Neuron, Recurrent


class OwnAdapter(Adapter):
    """`isofire.neurons.Neuron`: [T, N, ...], from rest in every call, with a place for a membrane quantizer."""

    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.TIME_FIRST

    def threshold(self, neuron: nn.Module) -> Tensor:
        return _own(neuron).threshold

    def v_reset(self, neuron: nn.Module) -> float | None:
        return _own(neuron).dynamics.v_reset

    def several(self, neuron: nn.Module) -> bool:
        return _own(neuron).dynamics.several

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        raise NotImplementedError("isofire's neurons hold their membrane quantizer themselves")

    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        # a kind's state is what it starts a batch with, the membrane first
        own = _own(neuron).dynamics.initial(torch.zeros(1, 1))
        return ("membrane", *(f"state {place}" for place in range(1, len(own))))

    def begin_counting(self, neuron: nn.Module) -> None:
        _own(neuron).counting = True

    def end_counting(self, neuron: nn.Module) -> None:
        own = _own(neuron)
        own.counting, own.spike_counts, own._counts = False, None, None

    def summed(self, neuron: nn.Module) -> Tensor | None:
        # the neuron's own counts are those of its output only if nothing comes between the two
        alone = left_alone(neuron) and type(neuron).forward is Neuron.forward
        return _own(neuron).spike_counts if alone else None

    def shape(self, neuron: nn.Module) -> tuple[int, ...]:
        own = _own(neuron)
        match own.weight if isinstance(own, Recurrent) else None:
            case nn.Linear() as back:
                return (back.in_features,)
            case nn.Conv2d() as back:
                return (back.in_channels, 4, 4)
        return common_shape(own.tensors())

    def membrane(self, neuron: nn.Module) -> MembraneQuantizer | None:
        return _own(neuron).membrane

    def attach(self, neuron: nn.Module, membrane: MembraneQuantizer) -> None:
        _own(neuron).membrane = membrane

    def detach(self, neuron: nn.Module) -> None:
        _own(neuron).membrane = None


def only_looks(hook: Any) -> Any:
    """A forward hook of isofire's that never changes a neuron's output, marked as such."""
    hook.only_looks = True
    return hook


def left_alone(neuron: nn.Module) -> bool:
    """Whether no forward hook can change the neuron's output."""
    return all(getattr(hook, "only_looks", False) for hook in neuron._forward_hooks.values())


def _own(neuron: nn.Module) -> Neuron:
    assert isinstance(neuron, Neuron)
    return neuron
