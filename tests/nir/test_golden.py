"""Golden vectors of NIR graphs: what the neurons' equations give by hand, checked when the graph is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isofire.errors import CheckpointError
from isofire.neurons import IF, LIF, CubaLIF, PerStep, Recurrent, Repeat

nir: Any = pytest.importorskip("nir")
import isofire.nir  # noqa: E402


def current_net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    cell = Recurrent(CubaLIF(4.0, 2.0, v_threshold=0.5, v_reset=None), nn.Linear(4, 4))
    return nn.Sequential(PerStep(nn.Linear(3, 4)), cell, PerStep(nn.Linear(4, 2))).eval(), torch.rand(6, 3, 3)


def quantized_net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        Repeat(4), PerStep(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), LIF(2.0, v_threshold=0.2),
        PerStep(nn.Flatten(), nn.Linear(144, 5)), IF(v_threshold=0.3),
    ).eval()  # fmt: skip
    images = torch.rand(3, 1, 8, 8)
    spec = isofire.QuantSpec(
        weights={"method": "lsq", "bits": 4},
        last_layer="quantize",
        membrane={"bits": 3, "range": [-1, 1], "placement": "post_reset"},
    )
    return isofire.quantize_(net, spec, images), images


def test_numbers_are_those_of_the_equations(tmp_path: Path) -> None:
    model, x = current_net()
    graph = nir.read(isofire.nir.write(tmp_path / "net.nir", model, x, golden=2))
    node = graph.nodes["1"].metadata
    weights = [layer.detach().numpy() for layer in (model[0][0].weight, model[0][0].bias)]
    back, readout = (
        [layer.weight.detach().numpy(), layer.bias.detach().numpy()] for layer in (model[1].weight, model[2][0])
    )
    v = i = fired = np.zeros((2, 4), dtype=np.float32)
    assert np.array_equal(graph.metadata["isofire_golden_inputs"], x[:, :2].numpy())
    for step, given in enumerate(x[:, :2].numpy()):
        arrives = given @ weights[0].T + weights[1] + fired @ back[0].T + back[1]
        i = i - i / 2 + arrives
        v = v - v / 4 + i
        fired = (v >= 0.5).astype(np.float32)
        v = v - 0.5 * fired
        assert np.array_equal(node["golden_spikes"][step], fired)
        assert np.allclose(node["golden_membranes"][step], v, atol=1e-5)
        assert np.allclose(node["golden_currents"][step], i, atol=1e-5)
        outputs = fired @ readout[0].T + readout[1]
        assert np.allclose(graph.metadata["isofire_golden_outputs"][step], outputs, atol=1e-5)
    assert 0.1 < node["golden_spikes"].mean() < 0.9


@pytest.mark.parametrize("made", [current_net, quantized_net])
def test_a_whole_graph_is_read_without_a_word(made: Any, tmp_path: Path, recwarn: Any) -> None:
    model, x = made()
    again = isofire.nir.read(isofire.nir.write(tmp_path / "net.nir", model, x, golden=2))
    assert torch.equal(again(x), model(x))
    assert not [warning for warning in recwarn if "golden" in str(warning.message)]
    plain = nir.read(isofire.nir.write(tmp_path / "plain.nir", model, x))
    assert not [key for node in plain.nodes.values() for key in node.metadata if "golden" in key]


def weight(graph: Any) -> None:
    graph.nodes["1_0" if "1_0" in graph.nodes else "0_0"].weight[0] *= -1


def last(graph: Any) -> None:
    graph.nodes["3_1" if "3_1" in graph.nodes else "2_0"].bias[1] += 0.5


def spikes(graph: Any) -> None:
    node = graph.nodes["2" if "2" in graph.nodes else "1"]
    node.metadata["golden_spikes"] = 1 - node.metadata["golden_spikes"]


def inputs(graph: Any) -> None:
    graph.metadata["isofire_golden_inputs"] = 1 - graph.metadata["isofire_golden_inputs"]


@pytest.mark.parametrize("made", [current_net, quantized_net])
@pytest.mark.parametrize("change", [weight, last, spikes, inputs])
def test_a_changed_graph_is_refused(made: Any, change: Any, tmp_path: Path) -> None:
    graph = isofire.nir.to_graph(*made(), golden=2)
    change(graph)
    path = isofire.nir.write_graph(tmp_path / "net.nir", graph)
    with pytest.raises(CheckpointError, match="does not give its golden"):
        isofire.nir.read(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("golden_spikes", None), ("golden_currents", np.zeros((2, 1))), ("golden_membranes", "x")],
)
def test_damaged_vectors_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    graph = isofire.nir.to_graph(*current_net(), golden=2)
    metadata = graph.nodes["1"].metadata
    metadata.pop(key)
    metadata.update({} if value is None else {key: value})
    path = isofire.nir.write_graph(tmp_path / "net.nir", graph)
    with pytest.raises(CheckpointError, match="the golden vectors are missing or damaged"):
        isofire.nir.read(path)


def test_what_rounding_elsewhere_may_move_is_told(tmp_path: Path) -> None:
    """One neuron of one image, as a sum in another order makes it."""
    graph = isofire.nir.to_graph(*quantized_net(), golden=2)
    graph.nodes["2"].metadata["golden_spikes"][1, 0, 2, 3, 3] ^= 1
    path = isofire.nir.write_graph(tmp_path / "net.nir", graph)
    with pytest.warns(UserWarning, match="these neurons differ, .*1 of '2'"):
        isofire.nir.read(path)


def test_the_command_writes_them(tmp_path: Path, capsys: Any) -> None:
    from isofire.cli import main

    words = ["export", "sew_resnet8-digits", "--data", "digits", "--out", str(tmp_path / "net.nir"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["golden"] == 2
    graph = nir.read(tmp_path / "net.nir")
    fired = [node.metadata["golden_spikes"] for node in graph.nodes.values() if "golden_spikes" in node.metadata]
    assert len(fired) == 9
    assert all(spikes.shape[1] == 2 for spikes in fired)
    isofire.nir.read(tmp_path / "net.nir")
