"""What is timed, against what: name -> case."""

from __future__ import annotations

from benchmarks.cases import calibration, distance, faults, inference, quantizers, scaling, training
from benchmarks.cases.base import Case

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *inference.CASES, *training.CASES, *distance.CASES, *quantizers.CASES, *calibration.CASES, *scaling.CASES,
        *faults.CASES,
    )
}  # fmt: skip
