"""Convolutions of any kernel and groups go through NIR, whose type check knows squares of one group only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import isofire
from isofire.errors import CheckpointError, ModelError
from isofire.neurons import IF, LIF, PerStep, Repeat

nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
nirs: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)

LAYERS: dict[str, nn.Module] = {
    "tall": nn.Conv2d(4, 6, (3, 1), padding=(0, 2), dilation=(1, 2)),
    "wide, valid": nn.Conv2d(4, 6, (1, 5), padding="valid", bias=False),
    "even": nn.Conv2d(4, 6, (2, 4), stride=(2, 1), padding=1),
    "same": nn.Conv2d(4, 6, (3, 2), padding="same"),
    "same, dilated": nn.Conv2d(4, 6, (5, 3), padding="same", dilation=2),
    "valid": nn.Conv2d(4, 6, 3, padding="valid"),
    "groups": nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "depthwise": nn.Conv2d(4, 8, (1, 3), groups=4, stride=2, padding=1),
    "one axis": nn.Conv1d(4, 6, 4, stride=2, padding=1, dilation=2),
    "one axis, groups": nn.Conv1d(4, 6, 3, groups=2, padding="same"),
}


def network(layer: nn.Module) -> tuple[nn.Module, torch.Tensor]:
    """The layer between neurons, its kernel in use."""
    torch.manual_seed(0)
    x = torch.rand(8, 4, *((9,) if isinstance(layer, nn.Conv1d) else (9, 9))) * 3
    with torch.no_grad():
        nn.init.normal_(layer.weight, std=0.5)  # type: ignore[arg-type]
        size = layer(x[:1]).numel()
    net = nn.Sequential(
        Repeat(5), IF(), PerStep(layer), LIF(v_threshold=0.4), PerStep(nn.Flatten(), nn.Linear(size, 3))
    )
    return net.eval(), x


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    net, x = network(LAYERS[name])
    again = nirs.read(nirs.write(tmp_path / "net.nir", net, x[:2]))
    with torch.no_grad():
        expected = net(x)
        assert torch.equal(again(x), expected)
        assert expected.std() > 0.01
    layer, found = LAYERS[name], again.get_submodule("2.0")
    for key in ("kernel_size", "stride", "dilation", "groups"):
        assert getattr(found, key) == getattr(layer, key)


@pytest.mark.parametrize("name", LAYERS)
def test_what_stands_in_the_node_is_the_same_convolution(name: str, tmp_path: Path) -> None:
    net, x = network(LAYERS[name])
    # as another tool reads it: numbers alone
    node = nir.read(nirs.write(tmp_path / "net.nir", net, x[:2])).nodes["2_0"]
    run = F.conv1d if node.weight.ndim == 3 else F.conv2d
    given = [torch.as_tensor(value) for value in (node.weight, node.bias)]
    sizes = {
        key: value if isinstance(value, str) else np.atleast_1d(value).tolist()
        for key, value in ((key, getattr(node, key)) for key in ("stride", "padding", "dilation"))
    }
    spikes = (torch.rand(3, 4, *x.shape[2:]) < 0.5).float()
    with torch.no_grad():
        torch.testing.assert_close(run(spikes, *given, **sizes), LAYERS[name](spikes), rtol=0, atol=2e-6)


def test_quantized_weights_of_groups_come_back(tmp_path: Path) -> None:
    net, x = network(LAYERS["depthwise"])
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 3, "granularity": "channel"}, first_layer="quantize")
    quantized = isofire.quantize_(net, spec, (x, torch.arange(8) % 3))
    again = nirs.read(nirs.write(tmp_path / "net.nir", quantized, x[:2]))
    with torch.no_grad():
        assert torch.equal(again(x), quantized(x))
    assert torch.equal(again.get_submodule("2.0").weight, quantized.get_submodule("2.0").weight)


def test_a_kernel_that_no_square_stands_for_is_refused() -> None:
    net, x = network(nn.Conv2d(4, 6, (3, 2)))
    with pytest.raises(ModelError, match=r"'2\.0', \[3, 2\], cannot be written as one .*use a kernel of 3 x 3"):
        nirs.to_graph(net, x[:2])


def test_numbers_that_no_longer_fit_are_told() -> None:
    net, x = network(LAYERS["groups"])
    graph = nirs.to_graph(net, x[:2])
    node = graph.nodes["2_0"]
    node.weight[0, 3, 0, 0] = 1.0
    with pytest.raises(ModelError, match="has weights where isofire's metadata there say that there are none"):
        nirs.read(graph)
    for about in (
        {"kernel": [9, 9]},
        {"groups": 4},
        {"groups": 0},
        {"start": [-1, 0]},
        {"start": [0]},
        {"kernel": "ab"},
    ):
        told = {"kernel": [3, 3], "start": [0, 0], "groups": 2, **about}
        node.metadata["isofire"] = json.dumps({"bias": False, "conv": told})
        with pytest.raises(CheckpointError, match="missing or damaged"):
            nirs.read(graph)
    # without metadata it is the convolution of one group that any tool sees
    del node.metadata["isofire"]
    assert nirs.read(graph).get_submodule("2.0").groups == 1


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Flatten(2), nn.Linear(49, 3)], r"'2\.1' \(Linear\) sees inputs \[4, 49\] .*NIR's Affine takes \[49\]"),
        ([nn.Linear(7, 3, bias=False)], r"'2\.0' \(Linear\) sees inputs \[4, 7, 7\] .*NIR's Linear takes \[7\]"),
    ],
)
def test_layers_that_see_other_shapes_than_a_node_takes_are_refused(layers: list[nn.Module], message: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Conv2d(2, 4, 3)), LIF(), PerStep(*layers)).eval()
    with pytest.raises(ModelError, match=message):
        nirs.to_graph(net, torch.rand(3, 2, 2, 9, 9))


def test_axes_that_are_counted_from_the_end(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = PerStep(nn.Flatten(-2), nn.Flatten(-2, -1), nn.Linear(196, 3))
    net = nn.Sequential(PerStep(nn.Conv2d(2, 4, 3)), LIF(v_threshold=0.1), layers).eval()
    x = torch.rand(3, 2, 2, 9, 9)
    again = nirs.read(nirs.write(tmp_path / "net.nir", net, x))
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


def test_a_norm_of_one_axis_of_space_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    net = nn.Sequential(PerStep(nn.Conv1d(2, 4, 3), norm), LIF(), PerStep(nn.Flatten(), nn.Linear(28, 3)))
    x = torch.rand(3, 6, 2, 9)
    with torch.no_grad():
        nn.init.normal_(norm.weight, 2.0)
        nn.init.normal_(norm.bias, 0.5)
        for _ in range(10):
            net(x)
    again = nirs.read(nirs.write(tmp_path / "net.nir", net.eval(), x))
    with torch.no_grad():
        torch.testing.assert_close(again(x), net(x), rtol=0, atol=1e-6)
    node = nir.read(tmp_path / "net.nir").nodes["0_1"]
    given = torch.rand(2, 4, 7)
    run = F.conv1d(given, torch.as_tensor(node.weight), torch.as_tensor(node.bias))
    torch.testing.assert_close(run, norm(given), rtol=0, atol=1e-5)


def test_single_numbers_and_wide_types_are_refused() -> None:
    with pytest.raises(ModelError, match="sees single numbers beside T and N"):
        nirs.to_graph(nn.Sequential(IF()), torch.rand(4, 3))
    wide = nn.Sequential(PerStep(nn.Linear(3, 3)), IF()).double()
    with pytest.raises(ModelError, match=r"the weights of '0\.0' are float64"):
        nirs.to_graph(wide, torch.rand(4, 2, 3).double())


def test_a_graph_is_read_as_float32_whatever_torch_makes_tensors_of(tmp_path: Path) -> None:
    net, x = network(LAYERS["depthwise"])
    path = nirs.write(tmp_path / "net.nir", net, x[:2])
    torch.set_default_dtype(torch.float64)
    try:
        again = nirs.read(path)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


@pytest.mark.parametrize("name", LAYERS)
def test_convolutions_of_other_tools_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    layer = LAYERS[name]
    plane = isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        x = torch.rand(3, 4, *((9, 9) if plane else (9,)))
        expected = layer(x)

    def sizes(values: Any) -> Any:
        return values if isinstance(values, str) else tuple(values) if plane else values[0]

    bias = torch.zeros(expected.shape[1]) if layer.bias is None else layer.bias
    node = (nir.Conv2d if plane else nir.Conv1d)(
        (9, 9) if plane else 9, layer.weight.detach().numpy(), sizes(layer.stride), sizes(layer.padding),
        sizes(layer.dilation), layer.groups, bias.detach().numpy(),
    )  # fmt: skip
    ends = {"input": nir.Input({"input": np.array(x.shape[1:])}), "output": nir.Output({"output": expected.shape[1:]})}
    graph = nir.NIRGraph(ends | {"conv": node}, [("input", "conv"), ("conv", "output")], type_check=False)
    for given in (graph, nirs.write_graph(tmp_path / "net.nir", graph)):
        with torch.no_grad():
            torch.testing.assert_close(nirs.read(given)(x[None])[0], expected, rtol=0, atol=1e-6)
