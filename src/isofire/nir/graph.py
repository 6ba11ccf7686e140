"""A graph of layers, run over T steps at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.neurons import Neuron, apply_per_step

INPUT = "input"
"""Stands for the network's input among the sources of a layer."""


class GraphNet(nn.Module):
    """Layers that take the sum of other layers' outputs; every layer runs over all steps before the next one.

    Parameters
    ----------
    layers
        Name -> module, each after its sources; a dot in a name makes a module of a module, as in PyTorch. Neurons see
        [T, N, ...], other modules [T * N, ...].
    sources
        Name -> where its input comes from; `INPUT` is the network's.
    outputs
        The layers whose sum is the network's output.
    steps
        Present inputs [N, ...] at each of this many steps; None takes frames [T, N, ...].

    Raises
    ------
    ModelError
        If a layer's name is that of a part of another's.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        sources: Mapping[str, tuple[str, ...]],
        outputs: tuple[str, ...],
        steps: int | None = None,
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self._place(name, layer)
        self._order = tuple(layers)
        self.sources = dict(sources)
        self.outputs = outputs
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """[T, N, ...] (with `steps`, [N, ...]) -> [T, N, ...]."""
        if self.steps is not None:
            x = x.unsqueeze(0).expand(self.steps, *x.shape)
        values, waiting = {INPUT: x}, self._uses()
        for name, layer in layers_of(self).items():
            x = self._sum(self.sources[name], values)
            values[name] = layer(x) if isinstance(layer, Neuron) else apply_per_step(layer, x)
            for source in self.sources[name]:
                waiting[source] -= 1
                if not waiting[source]:
                    # 300 steps of a layer that nobody needs any more are worth their memory
                    del values[source]
        return self._sum(self.outputs, values)

    def _place(self, name: str, layer: nn.Module) -> None:
        *outer, last = name.split(".")
        holder: nn.Module = self
        for part in outer:
            if part not in holder._modules:
                holder.add_module(part, Part())
            holder = holder.get_submodule(part)
        if (holder is not self and not isinstance(holder, Part)) or last in holder._modules:
            raise ModelError(f"layer {name!r} would stand inside another one, or in its place; rename one of them")
        holder.add_module(last, layer)

    def _uses(self) -> dict[str, int]:
        uses: dict[str, int] = {}
        for sources in (*self.sources.values(), self.outputs):
            for source in sources:
                uses[source] = uses.get(source, 0) + 1
        return uses

    @staticmethod
    def _sum(names: tuple[str, ...], values: Mapping[str, Tensor]) -> Tensor:
        total = values[names[0]]
        for name in names[1:]:
            if values[name].shape != total.shape:
                raise ModelError(f"layers {names} are added, so they must have one shape")
            total = total + values[name]
        return total


class Part(nn.Module):
    """Holds the layers of a graph whose names begin with its own; it computes nothing itself."""


def layers_of(net: GraphNet) -> dict[str, nn.Module]:
    """Every layer by its name, in the order in which they run; a module that stands at two places is there twice."""
    return {name: net.get_submodule(name) for name in net._order}


class SumPool2d(nn.Module):
    """Sum over windows."""

    def __init__(self, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, divisor_override=1)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class Scale(nn.Module):
    """Element-wise factors, of the shape of one input or of one that is stretched to it."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale.clone().to(torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale
