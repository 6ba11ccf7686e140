"""Membranes of any levels in the fast paths: the same table look-up everywhere, as numpy's searchsorted has it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.neurons.which import FAST, KERNELS
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.neurons import IF, LIF, MembraneQuantizer
from isofire.neurons.state_quantizer import COMPARED_BITS, TableState
from isofire.quantizers import Levels, LQNet, Quantizer, Table, Uniform, ste

PATHS = ["reference", *FAST]
COUNTS = [2, 3, 4, 5, 8, 9, 16, 17, 33, 64, 65, 255, 256]


def table_of(count: int, groups: int, seed: int = 0) -> Table:
    """Uneven levels below and above 1, and edges that are no midpoints; two bins of the larger tables are empty."""
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.uniform(0.05, 2.0, (groups, count)).astype(np.float32))
    levels[:, 0], levels[:, -1] = 0.05, 2.0
    edges = np.sort(rng.uniform(-0.5, 2.1, (groups, count - 1)).astype(np.float32))
    if count > 4:
        edges[:, 1] = edges[:, 2]
        edges[:, -1] = np.inf
    return Table(torch.from_numpy(edges), torch.from_numpy(levels))


def quantizer_of(table: Table, ste: Any = "plain") -> Levels:
    groups, count = table.levels.shape
    channel = {"granularity": "channel", "channels": groups, "channel_axis": 1} if groups > 1 else {}
    quantizer = Levels(np.arange(count).tolist(), ste=ste, **channel)
    quantizer.set_table(table)
    return quantizer


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("groups", [1, 3])
def test_a_neuron_that_fires_at_a_level_tells_which_values_reach_it(path: Any, count: int, groups: int) -> None:
    edges, levels = (part.numpy() for part in table_of(count, groups))
    for channel in range(groups):
        finite = edges[channel][np.isfinite(edges[channel])]
        x = np.concatenate([finite, np.nextafter(finite, np.float32(9)), np.nextafter(finite, np.float32(-9)), [-8, 8]])
        x = x.astype(np.float32)
        place = np.searchsorted(edges[channel], x, side="left")
        images = torch.from_numpy(np.repeat(x[:, None], groups, 1))[None]
        for level in range(0, count, max(1, count // 8)):
            # at rest at 0 with a soft reset, the only step's membrane is the input
            neuron = IF(v_threshold=float(levels[channel, level]), v_reset=None, backend=path)
            neuron.membrane = MembraneQuantizer(quantizer_of(table_of(count, groups)), "pre_fire")
            fired = neuron(images)[0, :, channel] > 0
            assert fired.tolist() == (place >= level).tolist()


SHAPES = [
    ((4, 7), False),
    ((5, 2, 3), False),
    ((4, 2, 3, 5, 7), False),
    ((4, 2, 3, 5, 7), True),
    ((2, 1, 3, 40, 41), True),
]


@pytest.mark.parametrize("path", FAST)
@pytest.mark.parametrize("count", COUNTS)
def test_tables_equal_the_reference(path: Any, count: int, currents: Any, run: Any, assert_close: Any) -> None:
    for i, (shape, channels_last) in enumerate(SHAPES):
        x = currents(*shape, seed=count, channels_last=channels_last)
        for groups in (1, 3) if len(shape) > 2 else (1,):
            quantizer = quantizer_of(table_of(count, groups, seed=i), ("plain", "clipped")[(count + i) % 2])
            neuron = LIF(1.5, v_reset=(0.0, None)[i % 2])
            neuron.membrane = MembraneQuantizer(quantizer, ("pre_fire", "post_reset")[(count + groups) % 2])
            neuron.backend = "reference"
            expected, gradients = run(neuron, x)
            neuron.backend = path
            spikes, got = run(neuron, x)
            assert torch.equal(spikes, expected)
            assert_close(got[0], gradients[0])
            assert 0.01 < spikes.mean() < 0.95


@pytest.mark.parametrize("path", KERNELS)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("count", [4, 40])
def test_with_a_batch_norm_in_the_kernel(
    count: int, channels_last: bool, groups: int, path: Any, currents: Any
) -> None:
    x = currents(4, 3, 4, 5, 6, channels_last=channels_last)
    neuron, norm = LIF(), nn.BatchNorm2d(4)
    neuron.membrane = MembraneQuantizer(quantizer_of(table_of(count, groups), "clipped"), "post_reset")
    normed = norm(x.flatten(0, 1)).detach().unflatten(0, (4, 3))
    neuron.backend = "reference"
    expected = neuron(normed)
    neuron.backend = path
    assert (neuron(x, norm=norm) != expected).float().mean() < 0.002  # the norm rounds otherwise in the kernel
    assert torch.equal(neuron(normed), expected)


@pytest.mark.parametrize("path", FAST)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_learned_levels_that_are_frozen_run_fast(bits: int, granularity: Any, path: Any, currents: Any) -> None:
    x = currents(5, 4, 3, 6)
    quantizer = LQNet(bits, granularity=granularity, channel_axis=1)
    quantizer.calibrate(x[0])
    neuron = LIF(v_reset=None, backend="reference").eval()
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset").eval()
    assert neuron.membrane.is_fixed
    expected = neuron(x)
    neuron.backend = path
    assert torch.equal(neuron(x), expected)


@pytest.mark.parametrize("path", FAST)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_uniform_grid_as_a_table_is_the_same(bits: int, path: Any, currents: Any) -> None:
    x = currents(6, 3, 4, 5)
    uniform = Uniform(bits, range=(-1.25, 1.5))
    table = uniform.table()
    assert table is not None
    neuron = LIF(backend=path)
    neuron.membrane = MembraneQuantizer(uniform, "post_reset")
    expected = neuron(x)
    neuron.membrane = MembraneQuantizer(quantizer_of(table), "post_reset")
    assert torch.equal(neuron(x), expected)


class Doubling(Quantizer):
    """Steps at 0, base, 2 base and 4 base; says nothing of its edges."""

    def __init__(self, base: float) -> None:
        super().__init__(2, granularity="tensor", calibrated=True)
        self.register_buffer("base", torch.tensor(base))
        self.scale = 1.0

    @property
    def is_fixed(self) -> bool:
        return True

    def levels(self) -> Tensor:
        return torch.tensor([[0.0, 1.0, 2.0, 4.0]]) * self.base * self.scale

    def codes(self, x: Tensor) -> Tensor:
        return sum((x >= level).int() for level in self.levels()[0, 1:])  # type: ignore[return-value]

    def decode(self, codes: Tensor) -> Tensor:
        return self.levels()[0][codes.long()]

    def forward(self, x: Tensor) -> Tensor:
        return ste.plain(x, self.decode(self.codes(x.detach())))

    def calibrate(self, x: Tensor) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("path", FAST)
def test_a_quantizer_known_by_its_codes_alone_and_changed_in_any_way(path: Any, currents: Any) -> None:
    x = currents(4, 5, 30)
    quantizer = Doubling(0.2)
    neuron = LIF(backend=path)
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset")

    def check() -> Tensor:
        neuron.backend = "reference"
        expected = neuron(x)
        neuron.backend = path
        assert torch.equal(neuron(x), expected)
        assert torch.equal(neuron(x), expected)
        return expected

    seen = [check()]
    quantizer.base.data.fill_(0.3)  # no version counter tells
    seen.append(check())
    quantizer.load_state_dict(Doubling(0.15).state_dict())
    seen.append(check())
    quantizer.scale = 4.0
    seen.append(check())
    assert not any(torch.equal(a, b) for a, b in pairwise(seen))


@pytest.mark.parametrize("bits", [9])
def test_more_levels_than_the_kernels_take(bits: int, currents: Any) -> None:
    x = currents(4, 3, 5)
    quantizer = quantizer_of(table_of(256, 1))
    wide = table_of(1 << bits, 1)
    quantizer.values, quantizer.edges = wide.levels, wide.edges
    neuron = LIF(backend="reference")
    neuron.membrane = MembraneQuantizer(quantizer, "pre_fire")
    expected = neuron(x)
    neuron.backend = "auto"
    assert torch.equal(neuron(x), expected)
    neuron.backend = "native"
    with pytest.raises(ModelError, match=r"at most 256 levels|no kernels"):
        neuron(x)


@settings(max_examples=60)
@given(st.integers(2, 256), st.integers(1, 5), st.integers(0, 1 << 20))
def test_padding_changes_no_value(count: int, groups: int, seed: int) -> None:
    table = table_of(count, groups, seed)
    state = TableState("pre_fire", None, table)
    edges, levels = state.padded()
    if state.bits <= COMPARED_BITS:
        edges, levels = edges.T, levels.T
    assert levels.shape == (groups, 1 << state.bits)
    assert edges.shape == (groups, (1 << state.bits) - 1)
    x = torch.randn(7, groups, 11, generator=torch.Generator().manual_seed(seed)) * 2
    assert torch.equal(Table(edges.contiguous(), levels.contiguous()).quantize(x, 1), table.quantize(x, 1))
