"""The compiled CPU kernels behind a typed Python face; absent where the package was installed without a compiler."""

from __future__ import annotations

import ctypes
import importlib.machinery
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isofire.neurons.constant import constant_in_graphs
from isofire.neurons.dynamics import Dynamics

MOST_COUNTED = 255
"""Spikes of a neuron that a byte can count."""

_F, _D = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_double)


class Problem(ctypes.Structure):
    """Mirrors `struct Problem` of _kernels.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "images", "channels", "plane")),
        *((name, ctypes.c_int32) for name in ("channels_last", "repeat", "charge", "hard_reset", "detach_reset")),
        *((name, ctypes.c_int32) for name in ("placement", "clipped", "surrogate", "threads")),
        *((name, ctypes.c_int32) for name in ("level_bits", "table_rows", "pad")),
        *((name, ctypes.c_float) for name in ("tau", "threshold", "reset", "alpha", "k_min", "k_max")),
        *((name, _F) for name in ("scale", "shift", "origin", "step", "edges", "levels", "lo", "hi", "mean")),
        *((name, _F) for name in ("x", "spikes")),
        ("counts", ctypes.POINTER(ctypes.c_uint8)),
        *((name, _F) for name in ("grad_spikes", "grad_in")),
        *((name, _D) for name in ("sums", "decay_sum")),
        *((name, _F) for name in ("tau_mem", "tau_syn", "thresholds")),
        *((name, ctypes.c_int32) for name in ("synapse", "decay_input")),
    )


_P, _L, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_ARGUMENTS = {
    "isofire_moments": (_P, _L, _L, _L, _I, _I, _P),
    "isofire_tally": (_P, _P, _L, _L, _I, _P),
    "isofire_histogram": (_P, _I, _L, _L, _L, _I, _P),
    "isofire_emd": (_P, _L, _P, _L, _L, _I),
    "isofire_combine": (_P, _P, _P, _P, _L, _L, _L, _I, _I, _P),
}


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, or None if they were not built (`isofire doctor` tells); ImportError if of another version."""
    lib = compiled(Path(__file__).with_name("_kernels"))
    if lib is not None:
        require_version(lib, all(hasattr(lib, name) for name in _ARGUMENTS))
        lib.isofire_problem_size.restype = lib.isofire_tasks.restype = ctypes.c_int64
        lib.isofire_emd.restype = ctypes.c_double
        for name, arguments in _ARGUMENTS.items():
            getattr(lib, name).argtypes = arguments
        require_version(lib, lib.isofire_problem_size() == ctypes.sizeof(Problem))
    return lib


def compiled(path: Path) -> ctypes.CDLL | None:
    """The compiled library of a path without its ending; None if it was not built."""
    places = (path.with_name(path.name + suffix) for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    found = next((place for place in places if place.exists()), None)
    return None if found is None else ctypes.CDLL(str(found))


def require_version(lib: ctypes.CDLL, fits: bool) -> None:
    """ImportError unless what a library tells of itself fits."""
    if not fits:
        raise ImportError(f"{lib._name} was built from another version of isofire; reinstall the package")


def _loaded() -> ctypes.CDLL:
    lib = library()
    assert lib is not None
    return lib


@constant_in_graphs
def built() -> bool:
    """Whether there are kernels."""
    return library() is not None


def usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor: float32 on a CPU, not empty, kernels built."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0 and built()


@dataclass(frozen=True)
class MemoryLayout:
    """Memory order of a batch of images [M, C, ...]: `channels_last` is [M, plane, C], else [M, C, plane]."""

    images: int
    channels: int
    plane: int
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor, batch_dims: int) -> MemoryLayout:
        """Layout of `x` [*batch, C, ...], which `dense` has made contiguous in one of the two orders."""
        folded = x.flatten(0, batch_dims - 1)
        channels = folded.shape[1] if folded.ndim > 1 else 1
        plane = folded[0, 0].numel() if folded.ndim > 1 else 1
        last = folded.ndim == 2 or not folded.is_contiguous()
        return cls(folded.shape[0], channels, plane, last)


def dense(x: Tensor, batch_dims: int, like: MemoryLayout | None = None) -> Tensor:
    """`x` [*batch, C, ...] contiguous in its own memory order, or in that of `like`; copies only if it must."""
    folded = x.flatten(0, batch_dims - 1) if batch_dims > 1 else x
    if folded.ndim == 4 and (like.channels_last if like else _is_channels_last(folded)):
        folded = folded.contiguous(memory_format=torch.channels_last)
    else:
        folded = folded.contiguous()
    return folded.unflatten(0, x.shape[:batch_dims]) if batch_dims > 1 else folded


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def empty(
    shape: torch.Size | tuple[int, ...],
    layout: MemoryLayout,
    batch_dims: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Uninitialised tensor [*batch, C, ...] in the memory order of `layout`."""
    lead = 1
    for n in shape[:batch_dims]:
        lead *= n
    last = layout.channels_last and len(shape) - batch_dims == 3
    order = torch.channels_last if last else torch.contiguous_format
    flat = torch.empty((lead, *shape[batch_dims:]), dtype=dtype, memory_format=order, device=device)
    return flat.unflatten(0, tuple(shape[:batch_dims]))


def floats(x: Tensor | None) -> ctypes._Pointer | None:
    """Pointer to a float32 tensor's memory; the caller keeps the tensor alive."""
    return None if x is None else ctypes.cast(x.data_ptr(), _F)


def doubles(x: Tensor | None) -> ctypes._Pointer | None:
    """Pointer to a float64 tensor's memory; the caller keeps the tensor alive."""
    return None if x is None else ctypes.cast(x.data_ptr(), _D)


def bytes_(x: Tensor) -> ctypes._Pointer:
    """Pointer to a uint8 tensor's memory; the caller keeps the tensor alive."""
    return ctypes.cast(x.data_ptr(), ctypes.POINTER(ctypes.c_uint8))


def problem(d: Dynamics, layout: MemoryLayout, steps: int) -> Problem:
    """A problem with the constants set that every neuron has; the caller adds its charge and the tensors."""
    p = Problem()
    p.steps, p.images, p.channels, p.plane = steps, layout.images, layout.channels, layout.plane
    p.channels_last, p.threads = layout.channels_last, torch.get_num_threads()
    p.hard_reset, p.detach_reset = d.v_reset is not None, d.detach_reset
    assert d.surrogate.code is not None
    p.surrogate, p.alpha = d.surrogate.code, d.surrogate.alpha
    p.threshold, p.reset = d.v_threshold, d.rest
    return p


def run(kernel: str, p: Problem) -> int:
    """Run a kernel on a problem; those that give a number say it.

    Parameters
    ----------
    kernel
        "forward" or "cuba_forward" fill `p.spikes`; "backward" fills `p.grad_in`, `p.sums` and `p.decay_sum`,
        "cuba_backward" `p.grad_in`; "tasks" gives the first dimension of `p.sums` and `p.decay_sum`.
    """
    return getattr(_loaded(), f"isofire_{kernel}")(ctypes.byref(p))


def moments(x: Tensor, layout: MemoryLayout) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, float64 [C], over images and plane of a dense `x`."""
    sums = torch.zeros(layout.images, 2, layout.channels, dtype=torch.float64)
    sizes = layout.images, layout.channels, layout.plane, layout.channels_last
    _loaded().isofire_moments(x.data_ptr(), *sizes, torch.get_num_threads(), sums.data_ptr())
    mean, square = sums.sum(0) / (layout.images * layout.plane)
    return mean, (square - mean * mean).clamp(min=0.0)


def tally_(sums: Tensor, counts: Tensor, rows: Tensor) -> None:
    """sums[rows[image]] += counts[image]: int32 [R, n], uint8 [N, n], int64 [N], all contiguous on the CPU."""
    sizes = len(counts), counts[0].numel()
    _loaded().isofire_tally(counts.data_ptr(), rows.data_ptr(), *sizes, torch.get_num_threads(), sums.data_ptr())


def histogram(values: Tensor, levels: int) -> Tensor | None:
    """How often each of 0..levels-1 occurs: int64 [levels] of int32 or int64 [n < 2^31] on the CPU; None if a value is
    none of them."""
    values = values.contiguous()
    # a histogram of its own for each thread, as long as it is shorter than the values
    tasks = max(1, min(torch.get_num_threads(), values.numel() // max(levels, 1 << 14)))
    counts = torch.zeros(tasks, levels, dtype=torch.int32)
    sizes = values.numel(), levels, tasks, torch.get_num_threads()
    wide = values.dtype == torch.int64
    inside = _loaded().isofire_histogram(values.data_ptr(), wide, *sizes, counts.data_ptr())
    return counts.sum(0, dtype=torch.int64) if inside else None


def emd(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Earth mover's distance of finite rates [n] and [m]; None where they are better sorted."""
    if a.size * b.size >= 1 << 62:
        return None
    # held until the kernel has read them; numpy's, since torch takes none that are read-only or turned round
    first, second = np.ascontiguousarray(a), np.ascontiguousarray(b)
    # some 60 values a bucket, and no more buckets than a cache holds
    buckets = 1 << min(15, max(4, (a.size + b.size).bit_length() - 6))
    given = first.ctypes.data, first.size, second.ctypes.data, second.size
    found = _loaded().isofire_emd(*given, buckets, torch.get_num_threads())
    # sums of the largest floats are none
    return found if 0 <= found < math.inf else None


def combine_(g: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor, layout: MemoryLayout) -> None:
    """In place g = a * g + (b * x + c), float32 a, b, c [C], dense g and x in the same layout."""
    sizes = layout.images, layout.channels, layout.plane, layout.channels_last
    given = (part.data_ptr() for part in (x, a, b, c))
    _loaded().isofire_combine(*given, *sizes, torch.get_num_threads(), g.data_ptr())
