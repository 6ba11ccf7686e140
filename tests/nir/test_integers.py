"""Chains read from NIR graphs, lowered: the spikes of the network that was written, sums as pools, refusals."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isofire.errors import ModelError
from isofire.export import write_c
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


@pytest.mark.parametrize("method", ["lsq", "uniform"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_of_quantized_weights_are_in_the_file(method: str, bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        PerStep(nn.Conv2d(1, 4, 3)), LIF(2.0), PerStep(nn.Flatten(), nn.Linear(144, 5)), IF(v_threshold=0.1)
    ).eval()
    x = torch.rand(3, 6, 1, 8, 8)
    grid = {"grid": "midtread"} if method == "uniform" else {}
    spec = isofire.QuantSpec(
        weights={"method": method, "bits": bits, **grid}, first_layer="quantize", last_layer="quantize"
    )
    quantized = isofire.quantize_(model, spec, x)
    isofire.nir.write(tmp_path / "net.nir", quantized, x[:, :1])
    nodes = [
        node for node in nir.read(tmp_path / "net.nir").nodes.values() if getattr(node, "weight", None) is not None
    ]
    assert len(nodes) == 2
    for node, layer in zip(nodes, (model[0][0], model[2][1]), strict=True):
        codes, step = np.asarray(node.metadata["codes"]), np.asarray(node.metadata["step"])
        assert (codes.dtype, codes.shape) == (np.int8, tuple(layer.weight.shape))
        assert len(np.unique(codes)) <= 2**bits
        values = step.reshape(-1, *(1,) * (codes.ndim - 1)) * codes
        weight = layer.weight.detach().double().numpy()
        assert np.allclose(values, weight, rtol=2**-21, atol=0)
        assert np.abs(codes).max() > 0
    again = isofire.nir.read(tmp_path / "net.nir")
    assert torch.equal(again(x), quantized(x))


def test_networks_in_full_precision_have_no_codes(tmp_path: Path) -> None:
    model = nn.Sequential(PerStep(nn.Linear(3, 2)), IF()).eval()
    isofire.nir.write(tmp_path / "net.nir", model, torch.zeros(2, 1, 3))
    assert all("codes" not in node.metadata for node in nir.read(tmp_path / "net.nir").nodes.values())


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


@pytest.mark.parametrize("reset", ["subtract", "value"])
def test_a_published_recurrent_graph_has_integers_and_a_program(reset: Any, tmp_path: Path) -> None:
    """As the Braille networks are: factors r before neurons with constants of their own, recurrent weights."""
    from tests.nir.test_current_based import DT, graph

    net = isofire.nir.read(graph(), isofire.nir.Convention(dt=DT, reset=reset))
    x = torch.randint(0, 2, (60, 8, 12), generator=torch.Generator().manual_seed(1)).float()
    integers = lower(net, x)
    found = differences(net, integers, [x])
    assert list(found.layers) == ["lif1.lif", "lif2"]
    assert [layer.beyond_float32 for layer in found.layers.values()] == [0, 0]
    fired = integers.run(integers.codes(x)).spikes
    assert all(0.01 < float(spikes.double().mean()) < 0.9 for spikes in fired.values())
    if shutil.which("cc") is not None:
        made = write_c(tmp_path / "c", integers, integers.codes(x[:, :2]))
        strict = ["cc", "-std=c99", "-Wall", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
        subprocess.run([*strict, "network.c", "network_test.c", "-o", "run"], cwd=made, check=True)
        assert subprocess.run([str(made / "run")], capture_output=True, text=True, check=True).stdout == "equal\n"


def test_factors_go_where_weights_are_on_chips_too() -> None:
    torch.manual_seed(4)
    scale = isofire.nir.graph.Scale(torch.tensor([0.5, -2.0, 1.0]))
    names = {"fc": ("input",), "r": ("fc",), "n": ("r",)}
    graph = isofire.nir.GraphNet({"fc": nn.Linear(6, 3), "r": scale, "n": IF(v_threshold=0.2)}, names, ("n",)).eval()
    plain = nn.Linear(6, 3)
    factors = scale.scale.detach()
    plain.weight = nn.Parameter(graph.fc.weight.detach() * factors.view(-1, 1))
    plain.bias = nn.Parameter(graph.fc.bias.detach() * factors)
    x = torch.randint(0, 2, (9, 4, 6)).float()
    for options in ({}, {"hardware": "loihi1", "approximate": True}):
        ours, due = (
            lower(graph, x, **options),
            lower(nn.Sequential(PerStep(plain), IF(v_threshold=0.2)).eval(), x, **options),
        )
        assert torch.equal(ours(x), due(x))
    assert float(ours(x).sum()) > 5
    for factors, layers, said in (
        (torch.rand(3, 4, 4), nn.Conv2d(1, 3, 3), "differ within a channel"),
        (torch.rand(3), None, "must follow a convolution or linear layer"),
    ):
        parts = {"r": isofire.nir.graph.Scale(factors), "n": IF()}
        order = {"r": ("input",), "n": ("r",)}
        if layers is not None:
            parts, order = {"fc": layers, **parts}, {"fc": ("input",), "r": ("fc",), "n": ("r",)}
        with pytest.raises(ModelError, match=said):
            lower(isofire.nir.GraphNet(parts, order, ("n",)).eval(), torch.ones(2, 1, *((1, 6, 6) if layers else (3,))))
