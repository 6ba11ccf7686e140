"""Quantizers by themselves: weights of a large network, states of a layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import isofire
from benchmarks.cases.base import Case
from benchmarks.measure import Rows
from benchmarks.networks import Given
from isofire.models import sew_resnet18
from isofire.neurons import LIF, MembraneQuantizer
from isofire.quantization import calibrate_, prepare
from isofire.quantizers import Levels, Quantizer, Table, Uniform


def weights(given: Given) -> Rows:
    """All convolutions of a SEW-ResNet-18, in training."""
    torch.manual_seed(0)
    model = sew_resnet18(width=0.5).train()
    plain = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Conv2d)]
    rows = Rows(run={"torch, fake_quantize_per_channel_affine, 4 bits": lambda: [_by_torch(w) for w in plain]})
    specs = [("uniform", 4), ("lsq", 4), ("lqnet", 2), ("lqnet", 3), ("lqnet", 4)]
    for method, bits in specs:
        prepared = prepare(model, isofire.QuantSpec(weights={"method": method, "bits": bits}, first_layer="quantize"))  # type: ignore[arg-type]
        calibrate_(prepared, given.images(2, "train"))
        layers = [m for m in prepared.train().modules() if isinstance(m, nn.Conv2d)]
        rows.add(f"isofire, {method}, {bits} bits", lambda some=layers: lambda: [m.weight for m in some], same=False)
    rows.notes["weights"] = sum(w.numel() for w in plain)
    return rows


def membrane_tables(given: Given) -> Rows:
    """Levels of states: a table is compared edge by edge up to 64 levels and searched beyond, which gathers."""
    x = torch.randn(128, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last).unflatten(0, (4, 32))
    rows = Rows(run={"uniform, 4 levels": _layer(Uniform(2, range=(-1.0, 1.0), ste="plain"), x)})
    for bits in (2, 4, 6, 8):
        table = Uniform(bits, range=(-1.0, 1.0)).table()
        assert table is not None
        for groups in (1, 32):
            own = {"granularity": "channel", "channels": groups, "channel_axis": 1} if groups > 1 else {}
            levels = Levels(list(range(1 << bits)), **own)  # type: ignore[arg-type]
            levels.set_table(Table(*(part.expand(groups, -1).contiguous() for part in table)))
            rows.run[f"table, {1 << bits} levels{', one a channel' if own else ''}"] = _layer(levels, x)
    return rows


def _by_torch(weight: Tensor) -> Tensor:
    step = weight.abs().amax((1, 2, 3)) / 7
    zero = torch.zeros(len(step), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, step, zero, 0, -8, 7)


def _layer(quantizer: Quantizer, x: Tensor) -> Callable[[], object]:
    neuron = LIF()
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset")

    def run() -> None:
        with torch.no_grad():
            neuron(x)

    return run


CASES = (
    Case(
        "lq",
        "The weights of all convolutions of SEW-ResNet-18 at half its width (2.8 million) quantized in training, of "
        "LQ-Nets with its least squares; base: torch's own fake quantization a channel.",
        weights,
    ),
    Case(
        "membrane-tables",
        "A layer of 32 x 16 x 16 LIF neurons, T = 4, batch 32, channels_last, membranes quantized post_reset; base: "
        "the uniform grid of 4 levels.",
        membrane_tables, 60,
    ),
)  # fmt: skip
