"""Networks of other libraries, written by the libraries' own writers with their weights quantized."""

from __future__ import annotations

import copy
import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isofire
from isofire.adapters import OverTime, find_neurons
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


@pytest.mark.parametrize("options", [{}, {"min_v_mem": -0.5}, {"single": True}, {"single": True, "reset": True}])
def test_a_graph_of_sinabs_runs_here_with_the_same_spikes(options: dict[str, Any], tmp_path: Path) -> None:
    layers: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed", exc_type=ImportError)
    activation: Any = importlib.import_module("sinabs.activation")
    torch.manual_seed(0)
    built = {"min_v_mem": options.get("min_v_mem"), "num_timesteps": 9}
    built |= {"spike_fn": activation.SingleSpike} if "single" in options else {}
    built |= {"reset_fn": activation.MembraneReset()} if "reset" in options else {}
    model = nn.Sequential(nn.Linear(6, 5), layers.IAFSqueeze(**built), nn.Linear(5, 3), layers.IAFSqueeze(**built))
    with torch.no_grad():
        for layer in model[::2]:
            # steps of 1/64 and whole inputs are exact, whichever way the floor is written
            layer.weight.copy_((layer.weight * 64).round() / 64)
            layer.bias.copy_((layer.bias * 64).round() / 64)
    frames = torch.randint(0, 12, (9, 20, 6)).float()
    path = nirs.write(tmp_path / "net.nir", model, frames.transpose(0, 1).flatten(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = nirs.read(path)
    with torch.no_grad():
        expected = model(frames.transpose(0, 1).flatten(0, 1)).unflatten(0, (20, 9)).transpose(0, 1)
        assert torch.equal(again(frames), expected)
        assert (expected.max() > 1) == ("single" not in options)
        # by NIR's own equations it is another network, unless that is what its neurons do
        other = nirs.read(path, nirs.Convention())(frames)
        assert torch.equal(other, expected) == ("reset" in options)


def test_a_neuron_that_no_convention_describes_is_told(tmp_path: Path) -> None:
    layers: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed", exc_type=ImportError)
    activation: Any = importlib.import_module("sinabs.activation")
    strange = (activation.MembraneSubtract(0.5), activation.MembraneReset(0.25), activation.MembraneReset())
    for reset in strange:
        model = nn.Sequential(nn.Linear(6, 5), layers.IAFSqueeze(num_timesteps=2, reset_fn=reset))
        graph = nirs.to_graph(model, EXAMPLE)
        with pytest.raises(
            ModelError, match=r"node '1' does not run here as .* no reset here is what Sinabs' IAFSqueeze"
        ):
            nirs.read(graph)
        assert nirs.read(graph, nirs.Convention())(torch.rand(4, 2, 6)).shape == (4, 2, 5)


def test_a_graph_of_snntorch_runs_here_with_the_same_spikes(tmp_path: Path) -> None:
    snn: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)

    def build(mechanism: str, delay: bool) -> nn.Module:
        torch.manual_seed(0)
        options = {"reset_mechanism": mechanism, "reset_delay": delay, "init_hidden": True, "threshold": torch.ones(5)}
        return nn.Sequential(nn.Linear(6, 5), snn.Leaky(torch.full((5,), 0.5), output=True, **options))

    model, frames = OverTime(build("zero", False)), torch.rand(9, 20, 6) * 8
    again = nirs.read(nirs.write(tmp_path / "net.nir", model, EXAMPLE))
    with torch.no_grad():
        expected = model(frames)
        assert torch.equal(again(frames), expected)
        assert 0.02 < expected.mean() < 0.98
    # in snnTorch's step what is above the threshold after a subtraction is subtracted from once more
    for mechanism, delay, told in (("subtract", False, "subtracts again"), ("zero", True, "resets one step after")):
        with pytest.raises(ModelError, match=f"node '1' does not run here .*Leaky {told}"):
            nirs.read(nirs.to_graph(OverTime(build(mechanism, delay)), EXAMPLE))


def test_layers_and_spec_are_found_again_whichever_part_was_wrapped_and_quantized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = isofire.quantize_(spikingjelly(), WEIGHTS)
    model = OverTime(inner, steps=4)
    path = nirs.write(tmp_path / "net.nir", model, EXAMPLE)
    assert isofire.QuantSpec.from_dict(json.loads(nir.read(path).metadata["isofire_spec"])) == WEIGHTS
    again = nirs.read(path)
    again.steps = 4
    data = torch.rand(20, 6) * 4, torch.arange(20) % 3
    assert list(find_neurons(again)) == ["net.1", "net.3"]
    assert isofire.compare(model, again, data).overall["emd_layer_mean"] == 0


def test_integrators_of_spikingjelly_are_not_scaled_by_their_step(tmp_path: Path) -> None:
    spikingjelly()
    neuron: Any = importlib.import_module("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    model = OverTime(nn.Sequential(nn.Linear(6, 5), neuron.IFNode()))
    frames = torch.rand(9, 20, 6)
    again = nirs.read(nirs.write(tmp_path / "net.nir", model, EXAMPLE))
    with torch.no_grad():
        assert torch.equal(again(frames), model(frames))
        assert 0.02 < model(frames).mean() < 0.98


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


def test_layers_of_sinabs_that_its_writer_cannot_write_are_told(tmp_path: Path) -> None:
    sinabs()
    layers: Any = importlib.import_module("sinabs.layers")
    for layer in (layers.IAF(), layers.LIF(20.0)):
        with pytest.raises(ModelError, match=r"Sinabs's own NIR writer cannot write .* in their Squeeze forms"):
            nirs.write(tmp_path / "net.nir", nn.Sequential(nn.Linear(6, 5), layer), torch.rand(2, 7, 6))
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
