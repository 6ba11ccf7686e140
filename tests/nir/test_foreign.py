"""Networks of other libraries, written by the libraries' own writers with their weights quantized."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isofire
from isofire.adapters import OverTime
from isofire.cli.app import main
from isofire.errors import ModelError

nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
nirs: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)

WEIGHTS = isofire.QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize", last_layer="quantize")
EXAMPLE = torch.rand(2, 6, generator=torch.Generator().manual_seed(0)) * 4


def spikingjelly() -> nn.Module:
    place = "spikingjelly.activation_based"
    pytest.importorskip(f"{place}.neuron.base_node", reason="spikingjelly 2.0 is not installed", exc_type=ImportError)
    pytest.importorskip("nirtorch", reason="nirtorch, which its NIR writer imports, is not installed")
    neuron, layer = (importlib.import_module(f"{place}.{name}") for name in ("neuron", "layer"))
    return nn.Sequential(
        layer.Linear(6, 5), neuron.LIFNode(), layer.Linear(5, 3), neuron.LIFNode(4.0, v_threshold=0.125)
    )


def snntorch() -> nn.Module:
    snn: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)

    def leaky(size: int, **options: Any) -> nn.Module:
        # its writer takes a neuron's shape from its parameters
        return snn.Leaky(torch.full((size,), 0.5), threshold=torch.ones(size), init_hidden=True, **options)

    return nn.Sequential(nn.Linear(6, 5), leaky(5), nn.Linear(5, 3), leaky(3, output=True))


def norse() -> nn.Module:
    torch_: Any = pytest.importorskip("norse.torch", reason="norse is not installed", exc_type=ImportError)

    def cell(size: int) -> nn.Module:
        # its writer too
        values = (100.0, 0.0, 1.0, 0.0)
        names = ("tau_mem_inv", "v_leak", "v_th", "v_reset")
        return torch_.LIFBoxCell(
            torch_.LIFBoxParameters(
                **{name: torch.full((size,), value) for name, value in zip(names, values, strict=True)}
            )
        )

    return torch_.SequentialState(nn.Linear(6, 5), cell(5), nn.Linear(5, 3), cell(3))


def sinabs() -> nn.Module:
    layers: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed", exc_type=ImportError)
    kinds = (layers.IAFSqueeze(num_timesteps=2) for _ in range(2))
    return nn.Sequential(nn.Linear(6, 5), next(kinds), nn.Linear(5, 3), next(kinds))


@pytest.mark.parametrize("build", [spikingjelly, snntorch, norse, sinabs])
def test_a_graph_holds_the_values_of_the_levels(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build()
    quantized = isofire.quantize_(copy.deepcopy(model), WEIGHTS)
    path = nirs.write(tmp_path / "net.nir", quantized, EXAMPLE)
    graph = nir.read(path)
    found = [node.weight for node in graph.nodes.values() if hasattr(node, "weight")]
    expected = [layer.weight.detach().numpy() for layer in quantized.modules() if isinstance(layer, nn.Linear)]
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
        assert len(np.unique(one[0])) <= 2**3
    assert "isofire_spec" in graph.metadata
    assert not nirs.is_own(graph)
    plain = nirs.to_graph(model, EXAMPLE)
    assert "isofire_spec" not in plain.metadata


def test_a_graph_of_spikingjelly_runs_here_with_the_same_spikes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = OverTime(spikingjelly())
    quantized = isofire.quantize_(model, WEIGHTS)
    frames = torch.rand(9, 20, 6) * 4
    again = nirs.read(nirs.write(tmp_path / "net.nir", quantized, EXAMPLE))
    with torch.no_grad():
        expected = quantized(frames)
        assert expected.mean() > 0.02
        assert torch.equal(again(frames), expected)


def test_the_command_line_writes_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    spikingjelly()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("jelly_net.py").write_text(
        "import torch\nfrom isofire.adapters import OverTime\nfrom torch import nn\n"
        "from spikingjelly.activation_based import layer, neuron\n"
        "def build():\n    return OverTime(nn.Sequential(layer.Linear(6, 5), neuron.LIFNode()), steps=2)\n"
        "def load(split):\n    return torch.rand(8, 6), torch.zeros(8, dtype=torch.long)\n"
    )
    named = ["--model", "jelly_net:build", "--data", "jelly_net:load", "--out", "net.nir", "--json"]
    assert main(["export", *named]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["checked"], document["quantized"]) == (False, False)
    assert len(nir.read("net.nir").nodes) == 4


def test_a_graph_that_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    norse()
    cells: Any = importlib.import_module("norse.torch")
    scalars = cells.SequentialState(nn.Linear(6, 5), cells.LIFBoxCell(), nn.Linear(5, 3), cells.LIFBoxCell())
    with pytest.raises(ModelError, match="give those as tensors of that shape"):
        nirs.write(tmp_path / "net.nir", scalars, EXAMPLE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("build", [spikingjelly, snntorch, norse, sinabs])
def test_what_the_writer_does_not_know_is_refused(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = build()
    spec = isofire.QuantSpec(membrane={"bits": 4, "range": [-2, 2]})
    with pytest.raises(ModelError, match="own NIR writer knows no membrane quantizer, '1' has one"):
        nirs.write(tmp_path / "net.nir", isofire.quantize_(copy.deepcopy(model), spec), EXAMPLE)
    with pytest.raises(ModelError, match="own NIR writer cannot write this network"):
        nirs.write(tmp_path / "net.nir", model, torch.rand(2, 7))
    assert not list(tmp_path.iterdir())
