"""isofire's way to the neurons of `tinysnn`, which is not imported here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Framework, Layout, MembraneMixin


class _Host(MembraneMixin):
    """Its methods stand before those of `tinysnn.Cell`."""

    def charge(self, x: Tensor) -> Tensor:
        charged = super().charge(x)  # type: ignore[misc]
        return self.membrane(charged) if self.membrane.placement == "pre_fire" else charged

    def after(self, charged: Tensor, spikes: Tensor) -> Tensor:
        left = super().after(charged, spikes)  # type: ignore[misc]
        return self.membrane(left) if self.membrane.placement == "post_reset" else left


class CellAdapter(Adapter):
    """`tinysnn.Cell`."""

    def layout(self, neuron: nn.Module) -> Layout:
        return Layout.STEP

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.tensor(1.0)

    def v_reset(self, neuron: nn.Module) -> None:
        return None  # a soft reset: what fires loses the threshold

    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        return ("membrane",)

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        return _Host

    def reset(self, neuron: Any) -> None:
        neuron.potential = None


class TinySNN(Framework):
    """Finds the cells of `tinysnn`."""

    title = "tinysnn"
    module = "tinysnn"

    def __init__(self) -> None:
        self._adapter = CellAdapter()

    def adapter_of(self, module: nn.Module) -> Adapter | None:
        return self._adapter if isinstance(module, self.loaded.Cell) else None


FRAMEWORK = TinySNN()
