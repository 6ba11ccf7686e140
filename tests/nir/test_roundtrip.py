"""A network written and read again is the same, quantizers included; a reader of floats runs it too."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isofire
from isofire.adapters import find_neurons
from isofire.errors import CheckpointError, ModelError, SpecError
from isofire.integer import lower
from isofire.neurons import IF, LIF, ATan, ParametricLIF, PerStep, Repeat
from isofire.quantization import spec_of

nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
nirs: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)
layers_of: Any = pytest.importorskip("isofire.nir.graph", reason="nir is not installed", exc_type=ImportError).layers_of

SPEC = isofire.QuantSpec(
    weights={"method": "lsq", "bits": 3},
    membrane={"bits": 4, "range": "minmax", "placement": "post_reset"},
    rules=({"match": "re:.*6", "membrane": {"bits": 3, "range": "minmax", "granularity": "channel"}},),  # type: ignore[arg-type]
    first_layer="quantize",
)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(24, 2, 8, 8, generator=generator) * 2, torch.arange(24) % 5


@pytest.fixture
def model(images: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        Repeat(4),
        PerStep(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)),
        LIF(2.5, surrogate=ATan(), detach_reset=True, v_reset=-0.125),
        PerStep(nn.Conv2d(6, 6, 3, padding=1, stride=1), nn.AvgPool2d(2)),
        ParametricLIF(3.0, v_reset=None, decay_input=False),
        PerStep(nn.Flatten(), nn.Dropout(), nn.Linear(54, 20, bias=False), nn.BatchNorm1d(20)),
        IF(v_reset=None, several=True, v_floor=-0.5),
        PerStep(nn.Linear(20, 5)),
    )
    with torch.no_grad():
        net(images[0])
        net[4].w.fill_(0.3)
    return net.eval()


def test_a_full_precision_network_comes_back_exactly(model: nn.Module, images: Any, tmp_path: Path) -> None:
    path = nirs.write(tmp_path / "net.nir", model, images[0][:2], dt=1e-3)
    again = nirs.read(path)
    with torch.no_grad():
        assert torch.equal(again(images[0]), model(images[0]))
    assert [type(module) for module in layers_of(again).values()] == [
        type(module) for module in model.modules() if not isinstance(module, nn.Sequential | Repeat | nn.Dropout)
    ]
    dynamics = [[m.dynamics for m in net.modules() if isinstance(m, isofire.neurons.Neuron)] for net in (again, model)]
    assert dynamics[0] == dynamics[1]
    other = nirs.to_graph(again, images[0][:2], dt=1e-3)
    for name, node in nir.read(path).nodes.items():
        assert node.metadata == other.nodes[name].metadata


@pytest.mark.parametrize("prepared", [True, False])
def test_a_quantized_network_comes_back_exactly(model: nn.Module, images: Any, tmp_path: Path, prepared: bool) -> None:
    calibrated = isofire.calibrate(isofire.prepare(model, SPEC), images)
    quantized = isofire.convert(calibrated)
    path = nirs.write(tmp_path / "net.nir", calibrated if prepared else quantized, images[0][:2])
    again = nirs.read(path)
    with torch.no_grad():
        assert torch.equal(again(images[0]), quantized(images[0]))
    found = isofire.compare(quantized, again, images)
    assert found.overall["emd_layer_mean"] == 0
    assert found.agreement == 1
    # what is written again is what was read
    spec = spec_of(again)
    assert spec is not None
    assert spec_of(nirs.read(nirs.write(tmp_path / "b.nir", again, images[0][:2]))) == spec
    levels = [node.metadata["levels"] for node in nir.read(path).nodes.values() if "levels" in node.metadata]
    assert len(levels) == (3 if prepared else 0)
    if prepared:
        weight = nir.read(path).nodes["1_0"].weight
        assert all(
            set(row.ravel().tolist()) <= set(table.tolist()) for row, table in zip(weight, levels[0], strict=True)
        )


def test_an_event_network_read_from_a_graph_is_quantized_and_written(images: Any, tmp_path: Path) -> None:
    net = nirs.read(_branched(), nirs.Convention(reset="subtract", several=True, v_floor=-1.0))
    frames = torch.randn(6, 24, 3, generator=torch.Generator().manual_seed(0)).abs()
    with torch.no_grad():
        out = net(frames)
        a = IF(v_reset=None, several=True, v_floor=-1.0)(frames * torch.tensor([1.0, 2.0, 1.0]))
        expected = a @ net.get_submodule("left").weight.T + a @ net.get_submodule("right").weight.T
    torch.testing.assert_close(out, expected)
    assert out.abs().max() > 1
    quantized = isofire.quantize_(
        copy.deepcopy(net), isofire.QuantSpec(membrane={"bits": 3, "range": [-1, 2.5]}), (frames, images[1])
    )
    again = nirs.read(nirs.write(tmp_path / "q.nir", quantized, frames[:, :2]))
    with torch.no_grad():
        assert torch.equal(again(frames), quantized(frames))
        assert not torch.equal(again(frames), out)


def _branched(**changes: Any) -> Any:
    """IF with a resistance -> two linear layers whose sum goes out."""
    import numpy as np

    weight = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, 1.0]], dtype=np.float32)
    one = np.ones(3, dtype=np.float32)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([3])}),
        "a.b": nir.IF(r=one * np.array([1, 2, 1], dtype=np.float32), v_threshold=one, v_reset=0 * one),
        "left": nir.Linear(weight=weight),
        "right": nir.Linear(weight=weight * 3),
        "output": nir.Output(output_type={"output": np.array([2])}),
        **changes.get("nodes", {}),
    }
    edges = [("input", "a.b"), ("a.b", "left"), ("a.b", "right"), ("left", "output"), ("right", "output")]
    return nir.NIRGraph(nodes=nodes, edges=edges + changes.get("edges", []), type_check=False)


def test_graphs_that_cannot_be_run_are_told(tmp_path: Path) -> None:
    import numpy as np

    one = np.ones(3, dtype=np.float32)
    uneven = nir.IF(r=one, v_threshold=one * np.array([1, 2, 3], dtype=np.float32), v_reset=0 * one)
    with pytest.raises(ModelError, match=r"'a\.b' must share one v_threshold, got 3 values from 1 to 3"):
        nirs.read(_branched(nodes={"a.b": uneven}), nirs.Convention())
    slow = nir.LIF(tau=one * 5e-5, r=one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
    with pytest.raises(ModelError, match=r"tau = 0\.5 steps of dt = 0\.0001 s"):
        nirs.read(_branched(nodes={"a.b": slow}), nirs.Convention())
    with pytest.raises(ModelError, match="circle"):
        nirs.read(_branched(edges=[("left", "left")]), nirs.Convention())
    with pytest.raises(ModelError, match=r"'a\.b' is a Threshold, which isofire cannot run"):
        nirs.read(_branched(nodes={"a.b": nir.Threshold(threshold=one)}))
    (tmp_path / "bad.nir").write_bytes(b"no HDF5")
    with pytest.raises(CheckpointError, match=r"bad\.nir cannot be read"):
        nirs.read(tmp_path / "bad.nir")
    with pytest.raises(SpecError, match="several spikes a step need reset 'subtract'"):
        nirs.Convention(several=True)


def test_numbers_that_no_longer_fit_the_metadata_are_told(model: nn.Module, images: Any) -> None:
    graph = nirs.to_graph(model, images[0][:2])
    graph.nodes["2"].v_threshold = graph.nodes["2"].v_threshold * 2
    with pytest.raises(ModelError, match="v_threshold of node '2' is not what isofire's metadata there say"):
        nirs.read(graph)


@pytest.mark.parametrize(
    ("node", "key", "text"),
    [
        (None, "isofire", "{broken"),
        (None, "isofire", "[1]"),
        (None, "isofire", '{"steps": "four", "quantization": null}'),
        ("2", "isofire", "{broken"),
        ("2", "isofire", '{"dynamics": {"kind": "lif"}, "dt": 0.0001}'),
        ("2", "isofire", '{"dynamics": 3}'),
        ("2", "isofire", None),
        ("1_1", "isofire", '{"batch_norm": {"axes": 3}}'),
        ("2", "isofire_membrane", "{broken"),
        ("2", "isofire_membrane", "{}"),
        ("2", "isofire_membrane", '{"quantizer.lo": ["float32", [1], ["x"]]}'),
        ("2", "isofire_membrane", None),
    ],
)
def test_damaged_metadata_are_told(model: nn.Module, images: Any, node: Any, key: str, text: Any) -> None:
    graph = nirs.to_graph(isofire.quantize_(model, SPEC, images), images[0][:2])
    metadata = graph.metadata if node is None else graph.nodes[node].metadata
    metadata[key] = text
    if text is None:
        del metadata[key]
    place = "the graph" if node is None else f"node '{node}'"
    with pytest.raises(CheckpointError, match=f"isofire's metadata of {place} are missing or damaged"):
        nirs.read(graph)


def test_a_graph_without_any_metadata_has_float_membranes(model: nn.Module, images: Any) -> None:
    graph = nirs.to_graph(isofire.quantize_(model, SPEC, images), images[0][:2])
    for holder in (graph, *graph.nodes.values()):
        holder.metadata = {}
    neurons = [
        module for module in nirs.read(graph, nirs.Convention()).modules() if isinstance(module, isofire.neurons.Neuron)
    ]
    assert len(neurons) == 3
    assert all(neuron.membrane is None for neuron in neurons)


def test_models_that_no_graph_describes_are_refused(images: Any, tmp_path: Path) -> None:
    class Twice(nn.Sequential):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    with pytest.raises(ModelError, match="computes something else"):
        nirs.write(tmp_path / "n.nir", Twice(Repeat(2), PerStep(nn.Conv2d(2, 3, 3)), IF(v_threshold=0.1)), images[0])
    with pytest.raises(ModelError, match=r"no node for '1\.0' \(ReLU\)|no node for '1_0' \(ReLU\)"):
        nirs.write(tmp_path / "n.nir", nn.Sequential(Repeat(2), PerStep(nn.ReLU()), IF()), images[0])
    foreign = nn.Sequential(Repeat(2), PerStep(nn.Conv2d(2, 4, 3)), Handwritten())
    for model in (Handwritten(), foreign, nirs.GraphNet({"a": Handwritten()}, {"a": ("input",)}, ("a",))):
        with pytest.raises(ModelError, match=r"Handwritten.* Networks of other libraries are written by their own"):
            nirs.write(tmp_path / "n.nir", model, images[0])
    assert not list(tmp_path.iterdir())


class Handwritten(nn.Module):
    """Runs its loop over time itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a network that cannot be written need not run")


@pytest.mark.parametrize("quantized", [False, True])
def test_layers_that_stand_at_two_places_are_two_nodes(tmp_path, quantized: bool) -> None:
    torch.manual_seed(0)
    linear, neuron = nn.Linear(6, 6), LIF()
    net = nn.Sequential(Repeat(4), PerStep(linear), neuron, PerStep(linear), neuron, PerStep(nn.Linear(6, 3)))
    x = torch.rand(8, 6) * 4
    model: nn.Module = net
    if quantized:
        spec = {"weights": {"method": "lsq", "bits": 4}, "first_layer": "quantize", "last_layer": "quantize",
                "membrane": {"bits": 3, "range": [-1.0, 2.0], "placement": "pre_fire"}}  # fmt: skip
        model = isofire.quantize_(net, isofire.QuantSpec.from_dict(spec), x)
    again = isofire.nir.read(isofire.nir.write(tmp_path / "net.nir", model, x))
    expected = model(x)
    assert expected.std() > 0
    assert torch.equal(again(x), expected)
    kinds = [type(node).__name__ for node in isofire.nir.to_graph(model, x).nodes.values()]
    assert kinds.count("Affine") == 3
    assert kinds.count("LIF") == 2


def test_layers_keep_their_names_so_that_both_networks_can_be_compared(images: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = isofire.models.sew_resnet8(T=4, in_channels=2, num_classes=5)
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4, "range": "minmax"})
    quantized = isofire.quantize_(model, spec, images)
    again = nirs.read(nirs.write(tmp_path / "net.nir", quantized, images[0][:2]))
    assert find_neurons(again).keys() == find_neurons(quantized).keys()
    assert len(find_neurons(again)) == 9
    found = isofire.compare(quantized, again, images)
    # norm and neuron round apart in the graph; no layer is another's
    assert found.overall["emd_layer_mean"] < 1e-3
    # a name with a dot is none that other tools' readers take
    assert not [name for name in nir.read(tmp_path / "net.nir").nodes if "." in name]


def test_names_that_no_module_can_have() -> None:
    names = {"a": "a", "a.b": "a_b", "forward": "forward_", "x.training": "x.training_", "c d": "c_d", ".e": "_.e"}
    net = nirs.read(_chain(list(names)), nirs.Convention())
    assert list(layers_of(net)) == list(names.values())
    with pytest.raises(ModelError, match="two nodes would be called 'a_b'"):
        nirs.read(_chain(["a.b", "a", "a_b"]), nirs.Convention())
    for order in (["a", "a.b"], ["a.b", "a"]):
        with pytest.raises(ModelError, match="inside another one, or in its place"):
            nirs.GraphNet({name: IF() for name in order}, {name: ("input",) for name in order}, ("a",))


def _chain(names: list[str]) -> Any:
    """Linear layers one after the other."""
    import numpy as np

    chain = ["input", *names, "output"]
    ends = {"input": nir.Input(input_type={"input": np.array([3])}),
            "output": nir.Output(output_type={"output": np.array([3])})}  # fmt: skip
    nodes = {name: ends.get(name) or nir.Linear(weight=np.eye(3, dtype=np.float32)) for name in chain}
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(chain)), type_check=False)


@pytest.mark.parametrize("prepared", [True, False])
def test_what_was_quantized_before_the_rest_was_built_around_it_comes_back(
    model: nn.Module, images: Any, tmp_path: Path, prepared: bool
) -> None:
    whole = isofire.calibrate(isofire.prepare(model, SPEC), images)
    expected = isofire.convert(whole)
    inner = whole if prepared else expected
    torch.manual_seed(1)
    net = nn.Sequential(inner, IF(), PerStep(nn.Linear(5, 3)))
    again = nirs.read(nirs.write(tmp_path / "net.nir", net, images[0][:2]))
    with torch.no_grad():
        out = net[2](net[1](expected(images[0])))
        assert torch.equal(again(images[0]), out)
        assert out.std() > 0
    spec = spec_of(again)
    assert spec is not None
    membranes = {name: adapter.membrane(neuron) for name, (neuron, adapter) in find_neurons(again).items()}
    assert [name for name, membrane in membranes.items() if membrane is not None] == ["0.2", "0.4", "0.6"]
    assert isofire.compare(net, again, (images[0], images[1] % 3)).overall["emd_layer_mean"] == 0


def test_what_a_graph_of_another_tool_leaves_open_is_told() -> None:
    with pytest.warns(UserWarning, match=r"leaves open what a spike of a\.b does .* reset to v_reset"):
        nirs.read(_branched())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nirs.read(_branched(), nirs.Convention())
        nirs.read(_chain(["a"]))


def test_an_input_that_arrives_whole_is_not_scaled() -> None:
    import numpy as np

    one = np.ones(3, dtype=np.float32)
    graph = _branched(nodes={"a.b": nir.IF(r=one * 1e4, v_threshold=one, v_reset=0 * one)})
    frames = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0))
    net = nirs.read(graph, nirs.Convention())
    seen: list[torch.Tensor] = []
    net.get_submodule("a.b").register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():
        net(frames)
    # r dt = 1: NIR's dv = r x dt is the input itself; by hand
    v, expected = torch.zeros(5, 3), []
    for x in frames:
        v = v + x
        expected.append((v >= 1).float())
        v = torch.where(v >= 1, 0.0, v)
    assert torch.equal(seen[0], torch.stack(expected))
    assert 0.1 < seen[0].mean() < 0.9


class _Standardised(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "count the padding"),
        (nn.AvgPool2d(3, 2, 1, divisor_override=5), "divisor_override"),
        (_Standardised(2, 2, 3), "a forward of its own"),
    ],
)
def test_layers_that_a_node_would_not_run_are_refused(layer: nn.Module, message: str, images: Any) -> None:
    net = nn.Sequential(Repeat(2), PerStep(layer), IF(v_threshold=0.1)).eval()
    with pytest.raises(ModelError, match=message):
        nirs.to_graph(net, images[0][:2])


def test_averages_without_padding_are_the_same_however_they_count_it(images: Any) -> None:
    net = nn.Sequential(Repeat(2), PerStep(nn.AvgPool2d(2, count_include_pad=False)), IF(v_threshold=0.1)).eval()
    assert torch.equal(nirs.read(nirs.to_graph(net, images[0][:2]))(images[0]), net(images[0]))


@pytest.mark.parametrize("decays", [{"method": "bitshift"}, {"method": "fraction"}, {"method": "fraction", "bits": 5}])
@pytest.mark.parametrize("neuron", [LIF, ParametricLIF])
@pytest.mark.parametrize("decay_input", [True, False])
def test_a_rounded_decay_is_the_one_that_is_written(
    decays: dict[str, Any], neuron: Any, decay_input: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    inputs = (torch.rand(9, 6, 20) < 0.4).float() * 2
    net = nn.Sequential(PerStep(nn.Linear(20, 16)), neuron(2.7, decay_input=decay_input), PerStep(nn.Linear(16, 3)))
    rounded = isofire.quantize_(
        net.eval(), isofire.QuantSpec(decays=decays),  # type: ignore[arg-type]
        (inputs, torch.arange(6) % 3),
    )  # fmt: skip
    nirs.write(tmp_path / "net.nir", rounded, inputs)
    again = nirs.read(tmp_path / "net.nir").eval()
    with torch.no_grad():
        assert rounded(inputs).any()
        assert torch.equal(again(inputs), rounded(inputs))
    (written,) = [node.tau for node in nir.read(tmp_path / "net.nir").nodes.values() if hasattr(node, "tau")]
    assert 1e-4 / float(written.flat[0]) == pytest.approx(float(rounded[1].decays()["membrane"]), rel=1e-6)


def test_a_prepared_network_whose_biases_alone_are_rounded_is_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Linear(4, 3)), IF(), PerStep(nn.Linear(3, 2)), IF()).eval()
    x = (torch.rand(5, 2, 4) < 0.5).float()
    spec = isofire.QuantSpec(biases={"method": "uniform", "bits": 3}, first_layer="quantize", last_layer="quantize")
    prepared = isofire.calibrate(isofire.prepare(net, spec), x)
    again = nirs.read(nirs.write(tmp_path / "net.nir", prepared, x))
    assert torch.equal(again(x), prepared.eval()(x))
    written = [module.bias for module in again.modules() if isinstance(module, nn.Linear)]
    assert [len(bias.unique()) <= 7 for bias in written] == [True, True]
    assert torch.equal(written[0], isofire.convert(prepared)[0][0].bias)


def _lesion(module: nn.Module) -> None:
    module.register_forward_hook(lambda _module, _inputs, output: output * 0.5)


def _gain(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _module, inputs: (0.5 * inputs[0],))


def _replaced(module: nn.Module) -> None:
    own = module.forward
    module.forward = lambda x, *further, **named: own(0.5 * x, *further, **named)  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [_lesion, _gain, _replaced])
@pytest.mark.parametrize("place", ["1", "0.0", "0"])
def test_code_that_a_graph_would_leave_out_is_refused(change: Any, place: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Linear(20, 16)), LIF(), PerStep(nn.Linear(16, 3))).eval()
    change(net.get_submodule(place))
    with pytest.raises(ModelError, match=r"has a hook|a forward of its own|computes something else|its forward must"):
        nirs.write(tmp_path / "net.nir", net, torch.rand(9, 6, 20))
    assert not (tmp_path / "net.nir").exists()
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 4}, first_layer="quantize", last_layer="quantize")
    with pytest.raises(ModelError, match=r"has a hook|has a forward of its own|is not seen to use its weight"):
        lower(isofire.quantize_(net, spec, (torch.rand(9, 6, 20), torch.arange(6) % 3)), torch.rand(9, 6, 20))
