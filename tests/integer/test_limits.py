"""Each limit of each preset, broken by one: the layer, the number and a cure, and nothing that is not so."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.integer import HardwareSpec, RefusedError, lower
from isofire.neurons import IF, CubaLIF, PerStep


def counts(*shape: int) -> Tensor:
    return (torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def filled(*layers: nn.Module) -> nn.Sequential:
    """Every weight there, on eighths."""
    net, generator = nn.Sequential(*layers), torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim:
            parameter.data = torch.randint(1, 8, parameter.shape, generator=generator) / 8
    return net.eval()


def dense(*sizes: int, xylo: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(sizes)):
        several = place < len(sizes) - 2
        neuron: Any = IF(v_floor=None)
        if xylo:
            neuron = CubaLIF(4.0, 4.0, synapse="after_decay", v_reset=None, several=several)
        layers += [PerStep(nn.Linear(before, after, bias=False)), neuron]
    net = filled(*layers[::2])
    for place, layer in enumerate(net):
        layers[2 * place] = layer
    return nn.Sequential(*layers).eval()


def conv(*args: Any, pool: nn.Module | None = None, bias: bool = False, **options: Any) -> list[nn.Module]:
    parts = [] if pool is None else [pool]
    return [PerStep(*parts, nn.Conv2d(*args, bias=bias, **options)), IF(v_reset=None, several=True, v_floor=-1.0)]


def flat(size: int) -> list[nn.Module]:
    return [PerStep(nn.Flatten(), nn.Linear(size, 2, bias=False)), IF(v_reset=None, several=True, v_floor=-1.0)]


def said(net: nn.Module, x: Tensor, hardware: str) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        lower(net, x, hardware=hardware, approximate=True)
    assert {refusal.rule for refusal in caught.value.refusals} == {"limits"}
    return [str(refusal) for refusal in caught.value.refusals]


XYLO = [
    ("xylo-a2", (17, 8, 4), ["network: limits: input channels: 17 are needed, 16 there; bring inputs together"]),
    ("xylo-a2", (4, 1001, 2), ["hidden neurons: 1,001 are needed, 1,000 there"]),
    ("xylo-a2", (4, 8, 9), ["3: limits: output neurons: 9 are needed, 8 there"]),
    ("xylo-a2", (4, 8, 65, 8), ["1: limits: fan-out of a hidden neuron: 65 are needed, 64 there; set weights to 0"]),
    ("xylo-a3", (4, 129, 8, 4), ["1: limits: hidden neurons that inputs reach: 129 are needed, 128 there"]),
    ("xylo-a3", (4, 8, 129, 4), ["3: limits: hidden neurons that outputs read: 129 are needed, 128 there"]),
    ("xylo-a3", (4, 8, 33), ["3: limits: output neurons: 33 are needed, 32 there"]),
    (
        "xylo-imu", (4, 100, 280, 120, 4),
        ["hidden neurons: 500 are needed, 496 there", "weights between hidden neurons: 61,600 are needed, 31,744"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("hardware", "sizes", "wanted"), XYLO)
def test_xylo(hardware: str, sizes: tuple[int, ...], wanted: list[str]) -> None:
    found = said(dense(*sizes, xylo=True), counts(sizes[0]), hardware)
    assert len(found) == len(wanted)
    assert all(any(text in line for line in found) for text in wanted)


SPECK = [
    (conv(1, 1, 3, stride=4), (1, 130, 130), "network: limits: height and width of the input: 130 are needed, 128"),
    (conv(1, 1, 1), (1, 65, 65), "1: limits: height and width of a map: 65 are needed, 64 there"),
    (conv(1, 1025, 1), (1, 2, 2), "1: limits: channels: 1,025 are needed, 1,024 there"),
    (conv(1, 1, 17), (1, 18, 18), "0.0: limits: size of a kernel: 17 are needed, 16 there"),
    (conv(1, 1, 9, padding=8), (1, 9, 9), "0.0: limits: padding: 8 are needed, 7 there"),
    (conv(1, 1, 3, stride=3), (1, 9, 9), "0.0: limits: a stride of 3, the chip's are 1, 2, 4, 8"),
    (conv(1, 1, 3, stride=16), (1, 20, 20), "0.0: limits: a stride of 16, the chip's are 1, 2, 4, 8"),
    (conv(1, 1, 3, stride=(1, 2)), (1, 9, 9), "0.0: limits: a stride of 1x2, the chip's are 1, 2, 4, 8"),
    (conv(1, 1, (3, 5)), (1, 9, 9), "0.0: limits: a kernel of 3x5, the chip's are square; fill it up"),
    (conv(2, 4, 3, groups=2), (2, 9, 9), "0.0: limits: 2 groups of channels, the chip's kernels take all channels"),
    (conv(1, 1, 3, dilation=2), (1, 9, 9), "0.0: limits: a dilation of 2, the chip's is at most 1"),
    (
        [*conv(1, 1, 1), *conv(1, 1, 1, pool=nn.AvgPool2d(3))], (1, 9, 9),
        "2.1: limits: a pool of 3 with stride 3, the chip's are square, of 1, 2, 4 a side",
    ),
    ([*conv(1, 1, 1), *conv(1, 1, 1, pool=nn.AvgPool2d(2, 1))], (1, 9, 9), "a pool of 2 with stride 1, the chip's are"),
    ([*conv(1, 1, 1), *flat(15)], (1, 3, 5), "2.1: limits: a dense layer on a map of 3x5, for the chip a kernel"),
    (
        conv(64, 65, 4), (64, 5, 5),
        "1: limits: it needs 131,072 entries of kernel memory and 260 of neuron memory on a core; none has both",
    ),
    (
        [*conv(1, 16, 1), *(part for _ in range(3) for part in conv(16, 16, 3, padding=1))], (1, 64, 64),
        "7: limits: it needs 4,096 entries of kernel memory and 65,536 of neuron memory on a core; 3 of 9 cores",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "shape", "wanted"), SPECK)
def test_speck(layers: list[nn.Module], shape: tuple[int, ...], wanted: str) -> None:
    (found,) = said(filled(*layers), counts(*shape), "speck2f")
    assert wanted in found


def test_speck_lists_more_than_one() -> None:
    found = said(filled(*conv(1, 1025, 1, bias=True)), counts(1, 2, 2), "speck2f")
    assert ["channels: 1,025" in found[0], "biases of a core: 1,025 are needed, 1,024" in found[1]] == [True, True]
    deep = [part for _ in range(10) for part in conv(1, 1, 1)]
    found = said(filled(*deep), counts(1, 2, 2), "speck2f")
    assert "network: limits: cores: 10 are needed, 9 there" in found[0]
    assert "19: limits: it needs 1 entries of kernel memory and 4 of neuron memory" in found[1]


def test_speck_pools_that_it_has() -> None:
    for side in (1, 2, 4):
        net = filled(*conv(1, 1, 1), *conv(1, 1, 2, pool=nn.AvgPool2d(side)))
        lower(net, counts(1, 8, 8), hardware="speck2f", approximate=True)


def test_loihi_inputs_of_one_neuron_cannot_be_shared_out_over_cores() -> None:
    (found,) = said(dense(4097, 3), counts(4097), "loihi1")
    assert "1: limits: inputs of a neuron: 4,097 are needed, 4,096 there; set weights to 0 (prune)" in found
    net = dense(4097, 3)
    net[0][0].weight.data[:, 0] = 0.0
    lower(net, counts(4097), hardware="loihi1", approximate=True)


def test_loihi_cores() -> None:
    net = filled(PerStep(nn.Conv2d(1, 40, 1, bias=False)), PerStep(nn.Conv2d(40, 3, 1, bias=False)))
    net = nn.Sequential(net[0], IF(), net[1], IF())
    (found,) = said(net, counts(1, 64, 64), "loihi1")
    # 160 cores of 1,024 neurons, and 40 for the synapses' 160 axons of 4,096
    assert "network: limits: cores, at the least: 200 are needed, 128 there" in found


@pytest.mark.parametrize("stride", [4, [1, 4]])
def test_a_chip_of_ones_own_gives_the_largest_stride_or_all(stride: int | list[int]) -> None:
    import msgspec

    speck = HardwareSpec.load("speck2f")
    chip = msgspec.structs.replace(
        speck, limits={**speck.limits, "stride": stride if isinstance(stride, int) else (1, 4)}
    )
    lower(filled(*conv(1, 1, 3, stride=4)), counts(1, 9, 9), hardware=chip, approximate=True)
    net = filled(*conv(1, 1, 3, stride=2))
    if isinstance(stride, int):
        lower(net, counts(1, 9, 9), hardware=chip, approximate=True)
    else:
        with pytest.raises(SpecError, match="a stride of 2, the chip's are 1, 4"):
            lower(net, counts(1, 9, 9), hardware=chip, approximate=True)
