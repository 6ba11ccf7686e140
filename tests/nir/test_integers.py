"""Chains read from NIR graphs, lowered: the spikes of the network that was written, sums as pools, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isofire.errors import ModelError
from isofire.integer import differences, lower
from isofire.neurons import IF, LIF, CubaLIF, PerStep

nir: Any = pytest.importorskip("nir")
import isofire.nir  # noqa: E402


def test_a_convolutional_chain_gives_the_spikes_of_the_network_that_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        PerStep(nn.Conv2d(1, 4, 3)), LIF(2.0), PerStep(nn.AvgPool2d(2), nn.Conv2d(4, 6, 2)), IF(v_threshold=0.1),
        PerStep(nn.Flatten(), nn.Linear(24, 5)), IF(v_threshold=0.1),
    ).eval()  # fmt: skip
    x = torch.rand(8, 6, 1, 8, 8)
    isofire.nir.write(tmp_path / "net.nir", model, x[:, :1])
    graph = isofire.nir.read(tmp_path / "net.nir")
    ours, theirs = (lower(net, x, input_bits=10, weight_bits=12) for net in (model, graph))
    assert torch.equal(ours(x), theirs(x))
    assert float(ours(x).sum()) > 10
    assert differences(graph, theirs, [x]).total < 40


def test_sums_over_windows_are_pools() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 3, 2, bias=False)
    layers = {"pool": isofire.nir.SumPool2d((2, 2), (2, 2), (0, 0)), "conv": conv, "n": IF()}
    graph = isofire.nir.GraphNet(layers, {"pool": ("input",), "conv": ("pool",), "n": ("conv",)}, ("n",))
    x = torch.randint(0, 2, (5, 4, 1, 6, 6)).float()
    integers = lower(graph, x, input_bits=4, weight_bits=12)
    assert differences(graph, integers, [x]).total == 0
    assert float(integers(x).sum()) > 10


def test_a_recurrent_graph_goes_onto_a_chip(tmp_path: Path) -> None:
    from scripts.chips.recurrent import CHIPS

    model, x, ours = CHIPS["loihi"]()
    isofire.nir.write(tmp_path / "net.nir", model, x[:, :1])
    graph = isofire.nir.read(tmp_path / "net.nir")
    assert torch.equal(lower(graph, x, hardware="loihi1")(x), ours(x))


def test_a_graph_with_two_ways_is_refused_and_what_nir_has_no_node_for() -> None:
    layers = {"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "n": IF()}
    graph = isofire.nir.GraphNet(layers, {"a": ("input",), "b": ("input",), "n": ("a", "b")}, ("n",))
    with pytest.raises(ModelError, match="'b' takes input; integers are known of graphs that are chains"):
        lower(graph, torch.ones(3, 1, 2))
    model = nn.Sequential(PerStep(nn.Linear(2, 2)), CubaLIF(2.0, 2.0, v_reset=None, v_subtract=2.0))
    with pytest.raises(ModelError, match="subtracts another number than its threshold"):
        isofire.nir.to_graph(model, torch.ones(3, 1, 2))
