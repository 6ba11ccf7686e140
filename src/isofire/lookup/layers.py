"""Convolutions and linear layers whose weights are codes: by tables in front of a neuron, by torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.lookup import direct
from isofire.lookup.affine import Affine, Geometry, Unchanged
from isofire.lookup.tables import LARGEST_CODE, Tables, tables_of
from isofire.lookup.tensors import Lazy, Products, Spikes, Sums, conv2d, linear, spikes_in, told, watched
from isofire.quantizers.lattice import codes_of

if TYPE_CHECKING:
    from isofire.lookup.counts import Counts

_EXACT = 2**24
"""float32 holds every whole number below this, so sums that stay below it are exact in any order."""


@dataclass
class LayerCodes:
    """A layer's weights as whole numbers.

    Parameters
    ----------
    codes
        int64 [out, in / groups, height, width] or [out, in].
    step
        Weight of one code, float64 [out].
    """

    codes: Tensor
    step: Tensor
    groups: int = 1
    _tables: dict[tuple[int, ...], Tables] = field(default_factory=dict)
    _floats: dict[torch.dtype, Tensor] = field(default_factory=dict)
    _largest: int | None = None

    def dense(self, channels: int, height: int, width: int) -> Tensor:
        """int64 [out, channels, height, width], zeros where groups do not meet."""
        codes = self.codes.view(self.codes.shape[0], -1, height, width)
        if self.groups == 1:
            return codes
        whole = codes.new_zeros(codes.shape[0], channels, height, width)
        outputs, inputs = codes.shape[0] // self.groups, channels // self.groups
        for group in range(self.groups):
            rows = slice(group * outputs, (group + 1) * outputs)
            whole[rows, group * inputs : (group + 1) * inputs] = codes[rows]
        return whole

    def tables(self, channels: int, height: int, width: int, streams: int) -> Tables:
        """Made once for each number of streams and each size that a linear layer meets."""
        key = channels, height, width, streams
        if key not in self._tables:
            self._tables[key] = tables_of(self.dense(channels, height, width), streams)
        return self._tables[key]

    def floats(self, most: int) -> Tensor:
        """The codes in floats in which a sum of counts up to `most` is exact."""
        if self._largest is None:
            self._largest = int(self.codes.abs().flatten(1).sum(1).max())
        dtype = torch.float32 if self._largest * max(1, most) < _EXACT else torch.float64
        if dtype not in self._floats:
            self._floats[dtype] = self.codes.to(dtype)
        return self._floats[dtype]


class TableLayer(nn.Module):
    """Mixed into the class of a convolution or linear layer of a fast network."""

    weight: Tensor
    bias: Tensor | None
    stands_for: Callable[[Tensor], Tensor]
    _found: tuple[Unchanged, LayerCodes | str] | None = None
    _affine: tuple[Unchanged, Affine] | None = None
    _geometry: Geometry | None = None

    def found(self) -> LayerCodes | str:
        """The codes, or why there are none; made anew when the weights have been changed."""
        if self._found is None or not self._found[0].holds(self.weight):
            self.__dict__["_found"] = Unchanged(self.weight), codes_in(self)
        assert self._found is not None
        return self._found[1]

    def affine(self, step: Tensor | None) -> Affine:
        """From a sum of codes, or of products (`step` None), to the layer's output."""
        if self._affine is None or not self._affine[0].holds(self.weight, self.bias, step):
            gain = torch.ones(self.weight.shape[0], dtype=torch.float64) if step is None else step
            shift = torch.zeros_like(gain) if self.bias is None else self.bias.detach().double()
            self.__dict__["_affine"] = Unchanged(self.weight, self.bias, step), Affine(gain, shift)
        assert self._affine is not None
        return self._affine[1]

    def forward(self, x: Tensor) -> Tensor:
        """Sums to come for spikes that tables can take; else what the layer's own class gives."""
        spikes = spikes_in(x)
        if spikes is None or watched() or isinstance(found := self.found(), str) or not self.takes(spikes):
            return super().forward(x)
        neurons = self.out_shape(spikes.counts)
        sums = Sums(self, found, spikes, self.affine(found.step), spikes.folded, neurons)
        return told(self.stands_for, sums)

    def takes(self, spikes: Spikes) -> bool:
        """Whether the axes are those of the layer."""
        raise NotImplementedError

    def geometry(self, counts: Counts) -> Geometry:
        """The layer as a convolution of such maps."""
        raise NotImplementedError

    def out_shape(self, counts: Counts) -> tuple[int, ...]:
        """Shape of an image's output."""
        raise NotImplementedError

    def sums(self, found: LayerCodes, counts: Counts) -> Tensor:
        """Sums of codes by torch, float32 [T, N, out, ...]: whole numbers, exact."""
        raise NotImplementedError

    def inputs_of_neurons(self, found: LayerCodes, spikes: Spikes, affine: Affine) -> Tensor:
        """The sums, scaled and shifted: float32 [T, N, out, ...]."""
        sums = self.sums(found, spikes.counts)
        scale, shift = (part.view(-1, *(1,) * (sums.ndim - 3)) for part in affine.floats(spikes.divisor))
        return sums * scale + shift


class TableConv2d(TableLayer):
    """A convolution that looks up."""

    stands_for = staticmethod(conv2d)
    groups: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    in_channels: int
    _kept: tuple[Unchanged, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """As every layer of tables; for real inputs, products to come."""
        if isinstance(x, Lazy) or watched() or not direct.takes(cast(nn.Conv2d, self), x):
            return super().forward(x)
        # worked out later, when the caller may have changed both
        return told(conv2d, Products(self, self._kept_weight(), x.clone(), self.affine(None)))

    def _kept_weight(self) -> Tensor:
        """A copy of the weights, made anew when they have been changed."""
        if self._kept is None or not self._kept[0].holds(self.weight):
            self.__dict__["_kept"] = Unchanged(self.weight), self.weight.detach().clone()
        assert self._kept is not None
        return self._kept[1]

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Products of real inputs as torch adds them."""
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def takes(self, spikes: Spikes) -> bool:
        maps = spikes.form == "maps" and spikes.folded and spikes.counts.shape[2] == self.in_channels
        return maps and all(spikes.counts.shape) and min(self.out_shape(spikes.counts)) > 0

    def geometry(self, counts: Counts) -> Geometry:
        if self._geometry is None:
            self.__dict__["_geometry"] = Geometry.of(cast(nn.Conv2d, self))
        assert self._geometry is not None
        return self._geometry

    def out_shape(self, counts: Counts) -> tuple[int, ...]:
        return (self.weight.shape[0], *self.geometry(counts).out_size(*counts.shape[3:]))

    def sums(self, found: LayerCodes, counts: Counts) -> Tensor:
        x, codes = counts.dense().flatten(0, 1), found.floats(counts.most)
        sums = F.conv2d(x.to(codes.dtype), codes, None, self.stride, self.padding, self.dilation, self.groups)
        # in case a convolution is worked out by a transform
        sums.round_()
        return sums.float().unflatten(0, counts.shape[:2])


class TableLinear(TableLayer):
    """A linear layer that looks up, of the features of one place or of a whole map."""

    stands_for = staticmethod(linear)
    in_features: int

    def takes(self, spikes: Spikes) -> bool:
        _, _, channels, height, width = spikes.counts.shape
        fits = spikes.form == "flat" or (spikes.form == "features" and height == width == 1)
        return fits and all(spikes.counts.shape) and channels * height * width == self.in_features

    def geometry(self, counts: Counts) -> Geometry:
        return Geometry((counts.shape[3], counts.shape[4]), (1, 1), (0, 0), (1, 1))

    def out_shape(self, counts: Counts) -> tuple[int, ...]:
        return (self.weight.shape[0],)

    def sums(self, found: LayerCodes, counts: Counts) -> Tensor:
        x, codes = counts.dense().flatten(2), found.floats(counts.most)
        return F.linear(x.to(codes.dtype), codes).round_().float()


KINDS: dict[type[nn.Module], type[TableLayer]] = {nn.Conv2d: TableConv2d, nn.Linear: TableLinear}
"""Layers that look up, by the class that they are made of."""


def codes_in(layer: nn.Module) -> LayerCodes | str:
    """The whole numbers that a layer's weights are multiples of a step by, or why it has none that fit tables."""
    weight = cast(Tensor, layer.weight)
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return f"weights are {weight.dtype} on {weight.device}"
    if isinstance(layer, nn.Conv2d) and (isinstance(layer.padding, str) or layer.padding_mode != "zeros"):
        return f"pads by {layer.padding!r}, {layer.padding_mode}"
    found = codes_of(weight, 24)
    if not found.exact:
        return "weights are in full precision, or on levels that are no multiples of a step"
    largest = int(found.codes.abs().max()) if found.codes.numel() else 0
    if largest > LARGEST_CODE:
        return f"codes reach {largest:,}, tables take {LARGEST_CODE}"
    return LayerCodes(found.codes, found.step, layer.groups if isinstance(layer, nn.Conv2d) else 1)
