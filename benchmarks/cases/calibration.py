"""Quantizing after training, and a cell of a sweep."""

from __future__ import annotations

import copy
from typing import Any

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Rows
from benchmarks.networks import Given, trained
from isofire.quantization.presets import preset

IMAGES = 128


def calibration(given: Given) -> Rows:
    """What each way of calibrating takes, on the same images."""
    images, rows = given.images(IMAGES, "train"), Rows()
    specs: dict[str, dict[str, Any]] = {
        "isofire, weights by largest value": {"weights": {"method": "uniform", "bits": 4}},
        "isofire, weights by gptq": {"weights": {"method": "gptq", "bits": 4}},
        "isofire, states by firing": {"membrane": {"method": "firing", "bits": 2, "granularity": "channel"}},
        "isofire, keep-firing": preset("keep-firing"),
    }
    for name, settings in specs.items():
        spec = isofire.QuantSpec.from_dict(settings)
        rows.run[name] = lambda spec=spec: isofire.quantize_(copy.deepcopy(trained()), spec, images)
    return rows


CASES = (
    Case(
        "calibration",
        f"Quantizing the trained SEW-ResNet-8 on {IMAGES} images after training; base: weights of 4 bits by their "
        "largest value.",
        calibration, 3, 0,
    ),
)  # fmt: skip
