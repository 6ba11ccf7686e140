"""Layers on cores of different sizes, a layer each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from isofire.integer.hardware import HardwareSpec
from isofire.integer.limit_names import CORE_MEMORIES


@dataclass(frozen=True)
class Spot:
    """Where a layer lies: on its core, or nowhere.

    Parameters
    ----------
    needs, there
        Kernel and neuron memory, in entries; `there` of the largest cores where it lies nowhere.
    where
        The core, for a table.
    why
        Why it lies nowhere, or "".
    """

    layer: str
    needs: tuple[int, int]
    there: tuple[int, int]
    where: str
    why: str


def place(spec: HardwareSpec, needs: Mapping[str, tuple[int, int]]) -> list[Spot]:
    """As many layers as can be on cores that have enough of both memories."""
    kernels, neurons = (spec.limits[name] for name in CORE_MEMORIES)
    assert isinstance(kernels, tuple)
    assert isinstance(neurons, tuple)
    fits = np.array([[k <= a and v <= b for a, b in zip(kernels, neurons, strict=True)] for k, v in needs.values()])
    rows, cores = linear_sum_assignment(~fits)
    placed = {row: core for row, core in zip(rows.tolist(), cores.tolist(), strict=True) if fits[row, core]}
    found = []
    for row, (layer, need) in enumerate(needs.items()):
        core, fitting = placed.get(row), int(fits[row].sum())
        if core is not None:
            found.append(Spot(layer, need, (kernels[core], neurons[core]), f"core {core}", ""))
            continue
        why = f"it needs {need[0]:,} entries of kernel memory and {need[1]:,} of neuron memory on a core; "
        why += (
            f"{fitting} of {len(kernels)} cores have both, and other layers take them"
            if fitting
            else _none(kernels, neurons)
        )
        found.append(Spot(layer, need, (max(kernels), max(neurons)), "no core is left", why))
    return found


def _none(kernels: tuple[int, ...], neurons: tuple[int, ...]) -> str:
    sizes = sorted(set(zip(kernels, neurons, strict=True)))
    return "none has both, they have " + ", ".join(f"{a:,} and {b:,}" for a, b in sizes)
