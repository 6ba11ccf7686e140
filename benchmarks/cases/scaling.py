"""How time grows with steps, images, channels, blocks and neurons."""

from __future__ import annotations

import copy

import torch
from torch import nn

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Rows, inferred
from benchmarks.networks import Given, backend, last, trained
from isofire.models import SEWResNet, sew_resnet8
from isofire.neurons import LIF

BATCH = 64


def scaling(given: Given) -> Rows:
    """Points of each axis, by both paths; `notes["axes"]` says which rows are whose points."""
    rows, images = Rows(), given.images(256)
    axes: dict[str, dict[str, dict[str, float]]] = {}

    def point(axis: str, size: float, model: SEWResNet, fast: nn.Module, batch: torch.Tensor) -> None:
        for path, row in (("float32", inferred(model, last(batch))), ("fast", inferred(fast, batch))):
            name = f"isofire, {path}, {axis} {size:g}"
            rows.run[name] = row
            axes.setdefault(axis, {}).setdefault(path, {})[name] = size

    base = given.quantized(trained(), 4)
    plain, fast = backend(base, "auto"), isofire.fast(base)
    for T in (2, 4, 8, 16):
        point("T", T, *(_at(net, T) for net in (plain, fast)), images[:BATCH])  # type: ignore[arg-type]
    for batch in (32, 64, 128, 256):
        point("batch", batch, plain, fast, images[:batch])
    for factor in (1, 2, 3):
        larger = nn.functional.interpolate(images[:32], scale_factor=float(factor))
        point("neurons", float(factor**2), plain, fast, larger)
    for width in (1.0, 2.0, 4.0):
        point("width²", width**2, *_both(given, sew_resnet8(width=width)), images[:32])
    for blocks in (1, 2, 4):
        model = SEWResNet((blocks,), (32,), neuron=LIF)
        point("depth", 2 * blocks, *_both(given, model), images[:BATCH])
    rows.notes["axes"] = axes
    return rows


def _both(given: Given, model: SEWResNet) -> tuple[SEWResNet, nn.Module]:
    torch.manual_seed(0)
    quantized = given.quantized(given.awake(model), 4, 64)
    return backend(quantized, "auto"), isofire.fast(quantized)


def _at(model: nn.Module, T: int) -> nn.Module:
    model = copy.copy(model)
    model.__dict__["T"] = T
    return model


CASES = (
    Case(
        "scaling",
        "A batch in eval mode of SEW-ResNets with 4-bit weights; slopes of log time over log size.",
        scaling, 3, 1,
    ),
)  # fmt: skip
