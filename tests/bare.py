"""An adapter that says how a neuron is called and where it fires, and no more: for spikes that are only counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, Layout, MembraneMixin


class BareAdapter(Adapter):
    """Of neurons whose membranes are not quantized.

    Parameters
    ----------
    layout
        How they are called.
    reset
        Brings one to rest; None for those that keep nothing.
    """

    def __init__(self, layout: Layout = Layout.STEP, reset: Callable[[Any], None] | None = None) -> None:
        self._layout, self._reset = layout, reset

    def layout(self, neuron: nn.Module) -> Layout:
        return self._layout

    def threshold(self, neuron: nn.Module) -> Tensor:
        return torch.tensor(1.0)

    def states(self, neuron: nn.Module) -> tuple[str, ...]:
        return ("membrane",)

    def host(self, neuron: nn.Module) -> type[MembraneMixin]:
        raise NotImplementedError

    def reset(self, neuron: nn.Module) -> None:
        if self._reset is not None:
            self._reset(neuron)
