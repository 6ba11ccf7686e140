"""A batch norm in front of a neuron as part of the neuron's kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.errors import ModelError
from isofire.neurons import native
from isofire.neurons.fused import Kernels, Norm

_AXES: dict[type, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}


def can_fuse(norm: _BatchNorm, ndim: int) -> bool:
    """A plain batch norm in float32 that takes inputs of `ndim` axes, and whose own forward nobody listens to."""
    plain = ndim in _AXES.get(type(norm), ())
    hooked = norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks
    return plain and not hooked and (norm.weight is None or norm.weight.dtype == torch.float32)


def normalise(norm: _BatchNorm, x: Tensor, repeat: bool, kernels: Kernels) -> Norm:
    """`statistics` of a dense `x`, by the kernels."""

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.moments(values, native.MemoryLayout.of(values, 1 if repeat else 2))

    return Norm(*statistics(norm, x, repeat, moments))


def statistics(
    norm: _BatchNorm, x: Tensor, repeat: bool, moments: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, bool]:
    """Mean and 1 / standard deviation for this call, and whether they are the batch's; then the running ones are
    updated, if it is training.

    Parameters
    ----------
    moments
        Gives mean and biased variance of each channel, float64 [C].
    """
    dims = 1 if repeat else 2
    channels = x.shape[dims] if x.ndim > dims else 1
    if channels != norm.num_features:
        raise ModelError(f"batch norm expects {norm.num_features} channels, got input {tuple(x.shape)}")
    if not norm.training and norm.running_mean is not None and norm.running_var is not None:
        return norm.running_mean.clone(), _invstd(norm.running_var, norm.eps), False
    count = x.numel() // channels
    if count < 2:
        raise ModelError(f"batch norm in training needs more than one value per channel, got input {tuple(x.shape)}")
    mean, var = moments(x.detach())
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            seen, rate = norm.num_batches_tracked.add_(1), norm.momentum
            if rate is None:
                # a graph that is being traced holds no number of Python's
                rate = 1.0 / (seen.float() if torch.compiler.is_compiling() else float(seen))
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
            norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), rate)
    return mean, _invstd(var, norm.eps), True


def _invstd(var: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(var.double() + eps)
