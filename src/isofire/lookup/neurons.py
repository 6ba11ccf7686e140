"""Neurons of a fast network: behind tables they run in the same kernel, elsewhere as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.lookup import native
from isofire.lookup.counts import DenseCounts, PackedCounts
from isofire.lookup.kernels import run_direct, run_tables
from isofire.lookup.packed import norm_of
from isofire.lookup.tensors import Products, Spikes, Sums, plain, watched
from isofire.lookup.tiles import SpikeMap
from isofire.neurons import Neuron, apply_per_step
from isofire.neurons.norm_fusion import can_fuse
from isofire.neurons.paths import NATIVE
from isofire.neurons.single_state import MembraneDynamics

if TYPE_CHECKING:
    _Base = Neuron
else:
    _Base = nn.Module

MOST_COUNTED = 255
"""Spikes of a neuron that a byte can count."""


class TableNeuron(_Base):
    """Mixed into the class of isofire's neurons in a fast network.

    Attributes
    ----------
    isa
        The instruction set of the tables; None: sums by torch.
    said
        How the last forward ran, and why not by tables.
    """

    isa: str | None = None
    said: tuple[str, str] = ("", "not run yet")

    def forward(self, x: Tensor, norm: _BatchNorm | None = None, repeat: int | None = None) -> Tensor:
        """As `Neuron.forward`, spikes as a tensor that later layers read packed."""
        if watched():
            return super().forward(plain(x), norm, repeat)
        once = isinstance(x, Products) and x.folded
        if isinstance(x, Sums | Products) and x.is_packed and x.folded == once == (repeat is not None):
            x, norm = _normed(x, norm, once)
            if isinstance(x, Sums | Products):
                return self._behind(x, norm, repeat)
        self.__dict__["said"] = "as it was", "its input is no sum of spikes by codes"
        return self._wrapped(super().forward(plain(x), norm, repeat))

    def _behind(self, x: Sums | Products, norm: _BatchNorm | None, repeat: int | None) -> Tensor:
        """Behind a layer of tables, or a convolution of real inputs."""
        reason = "its batch norm is in training or a second one" if norm is not None else self._refuses(x)
        self.spike_counts = None
        if isinstance(x, Products):
            if not reason and not native.finite(x.inputs):
                reason = "inputs are not finite"
            if reason:
                self.__dict__["said"] = "torch, in order", reason
                return self._wrapped(super().forward(x.in_order(), norm, repeat))
            assert self.isa is not None
            self.__dict__["said"] = f"in order, {self.isa}", ""
            return self._fired(run_direct(self, self.isa, x, repeat), x)
        counts = None if reason else x.spikes.counts.packed()
        if counts is None:
            self.__dict__["said"] = "torch, by codes", reason or "counts are too large to be packed"
            return self._wrapped(super().forward(x.plain(), norm))
        assert self.isa is not None
        self.__dict__["said"] = f"tables, {self.isa}", ""
        return self._fired(run_tables(self, self.isa, x, counts), x)

    def _fired(self, spikes: SpikeMap, x: Sums | Products) -> Tensor:
        """What a kernel gave, counted over T if somebody listens."""
        once = isinstance(x, Products) and x.folded
        images, channels = x.shape[0 if once else 1], x.layer.weight.shape[0]
        features = isinstance(x, Sums) and x.ndim == 3
        if self.counting and spikes.parts.shape[3] <= MOST_COUNTED:
            counts = native.over_time(spikes.whole, images, channels)
            self.spike_counts = counts[..., 0, 0].contiguous() if features else counts
        return Spikes(PackedCounts((spikes,), channels), "features" if features else "maps")

    def _refuses(self, x: Sums | Products) -> str | None:
        """Why the kernel cannot run these neurons on this input; None if it can."""
        if self.isa is None:
            return "the compiled look-ups are absent or not wanted"
        if self.backend != "auto":
            return f"the neurons are to run by backend {self.backend!r}"
        if NATIVE not in self.fast_paths or type(self)._fire is not Neuron._fire:
            return "its steps are not those that the kernels know"
        if not isinstance(self.dynamics, MembraneDynamics) or not self.dynamics.is_plain:
            return f"{type(self.dynamics).__name__} with more than a membrane, or with a floor or several spikes a step"
        if self.membrane is not None and not self.membrane.is_fixed:
            return "the membrane's quantizer learns or observes"
        return None if x.affine.is_finite else "a scale or shift is not finite"

    def _wrapped(self, spikes: Tensor) -> Tensor:
        """Spikes for later layers to pack; counts whose largest is not known stay as they are."""
        if (listening := native.tape()) is not None:
            listening.refuse(f"neurons run {self.said[0]}: {self.said[1]}")
        if not self.dynamics.is_plain or spikes.dtype != torch.float32 or spikes.ndim not in (3, 5):
            return spikes
        maps = spikes if spikes.ndim == 5 else spikes[..., None, None]
        return Spikes(DenseCounts(maps, 1), "maps" if spikes.ndim == 5 else "features")


def _normed(x: Sums | Products, norm: _BatchNorm | None, once: bool) -> tuple[Tensor, _BatchNorm | None]:
    """The norm as part of the sums where nothing forbids it."""
    if norm is None:
        return x, None
    if not can_fuse(norm, x.ndim - 1 + once):
        return norm(x) if once else apply_per_step(norm, x), None
    found = norm_of(x, norm)
    return (x, norm) if found is None else (found, None)
