"""Quantizing after training, and a cell of a sweep."""

from __future__ import annotations

import copy
from typing import Any

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Rows
from benchmarks.networks import Given, trained
from isofire.quantization.presets import preset
from isofire.study import run_cell

IMAGES = 64
ALL_THAT_COUNT = 256
"""What layer by layer uses at most."""


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
    two_bits, many = isofire.QuantSpec.from_dict(preset("keep-firing-2bit")), given.images(ALL_THAT_COUNT, "train")
    rows.run[f"isofire, keep-firing-2bit, {ALL_THAT_COUNT} images"] = lambda: isofire.quantize_(
        copy.deepcopy(trained()), two_bits, many
    )
    return rows


def sweep_cell(given: Given) -> Rows:
    """A post-training cell, by both paths."""
    baseline, rows = trained(), Rows()
    train, test = given.set("train"), given.set("test").first(2000)
    observed = isofire.firing.observe(baseline, test, batch_size=128)
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 4})  # type: ignore[arg-type]
    for name, fast in (("isofire, float32", False), ("isofire, look-up", True)):
        rows.run[name] = lambda fast=fast: run_cell(
            baseline, spec, mode="ptq", train_set=train, test_set=test, observed=observed, device="cpu", fast=fast
        )
    return rows


CASES = (
    Case(
        "calibration",
        f"Quantizing the trained SEW-ResNet-8 after training, on {IMAGES} images where a row names no others; base: "
        "weights of 4 bits by their largest value.",
        calibration, 2, 0,
    ),
    Case(
        "sweep-cell",
        "A post-training cell of a sweep, weights of 4 bits: calibrated on 1,024 images, compared on 2,000; base: "
        "spikes counted in float32.",
        sweep_cell, 3, 1,
    ),
)  # fmt: skip
