"""Timing alternatives side by side in one process, so that a ratio holds when the machine's speed drifts."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Row = Callable[[], Any]
Times = dict[str, list[float]]


@dataclass
class Rows:
    """What a case times, the base first.

    Parameters
    ----------
    run
        Name -> one run. Names of isofire's own rows begin with "isofire".
    missing
        What could not be timed here, and why.
    notes
        What is to be known of the networks, as JSON values.
    same
        Rows whose results are logits [T, N, classes] of the same network.
    agreement
        Share of images that those must put in the same class; rounding may change a few.
    """

    run: dict[str, Row] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    same: list[str] = field(default_factory=list)
    agreement: float = 0.98

    def add(self, name: str, make: Callable[[], Row], *, same: bool = True) -> None:
        """A row that may not be had here: `make` runs it once, and what fails is named with the reason."""
        try:
            run = make()
            run()
        except Exception as error:
            self.missing[name] = _reason(error)
            return
        self.run[name] = run
        if same:
            self.same.append(name)

    def check(self) -> None:
        """Raise AssertionError if two rows of `same` are of different networks."""
        classes = {name: self.run[name]().mean(0).argmax(-1) for name in self.same}
        base = next(iter(classes.values()), None)
        for name, found in classes.items():
            share = float((found == base).float().mean())
            assert share >= self.agreement, f"{name} gives the base's class for {share:.1%} of images only"


def interleaved(rows: Mapping[str, Row], rounds: int, warmup: int = 2) -> dict[str, Times]:
    """Wall and CPU milliseconds and minor page faults of each row in each round; every round runs all rows in order."""
    found: dict[str, Times] = {name: {"wall_ms": [], "cpu_ms": [], "faults": []} for name in rows}
    for round_ in range(warmup + rounds):
        for name, run in rows.items():
            faults, cpu, wall = _faults(), time.process_time(), time.perf_counter()
            run()
            values = time.perf_counter() - wall, time.process_time() - cpu, _faults() - faults
            if round_ >= warmup:
                for key, value in zip(found[name], (1e3 * values[0], 1e3 * values[1], values[2]), strict=True):
                    found[name][key].append(round(value, 3))
    return found


def ratio(base: Sequence[float], row: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and largest of base / row round by round; above 1: faster than the base."""
    faster = [b / max(r, 1e-9) for b, r in zip(base, row, strict=True)]
    return statistics.median(faster), min(faster), max(faster)


def inferred(model: Callable[[Tensor], Tensor], batch: Tensor) -> Row:
    """A forward without gradients."""

    def run() -> Tensor:
        with torch.inference_mode():
            return model(batch)

    return run


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160] if text else ''}"
