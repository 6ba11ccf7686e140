"""Whole networks by tables: the spikes of every layer, whatever the path, the batch and the threads."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
import torch
from scripts.look_ups.count import definition
from torch import Tensor, nn

import isofire
from isofire.errors import ModelError, SpecError
from isofire.firing import FiringRecorder
from isofire.firing.cost.routes import Routes
from isofire.lookup import native
from isofire.models import SEWResNet, sew_resnet8
from isofire.neurons import IF, LIF, CubaLIF, Neuron, ParametricLIF, PerStep, Recurrent, Repeat
from isofire.running import evaluating

compiled = pytest.mark.skipif(native.library() is None, reason="the look-ups were not compiled")
KNOWN = native.known()
W4 = isofire.QuantSpec(weights={"method": "uniform", "bits": 4})


def _network(**options: Any) -> SEWResNet:
    """A small network whose neurons fire, in eval mode with statistics of its own inputs."""
    model = sew_resnet8(width=0.3, alpha=2.0, **options)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 12, 12))
    return model.eval()


def _quantized(spec: isofire.QuantSpec = W4, **options: Any) -> nn.Module:
    return isofire.quantize_(_network(**options), spec, torch.randn(16, 3, 12, 12))


def _spikes(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: kept.update({name: output + 0.0}))
        for name, module in model.named_modules()
        if isinstance(module, Neuron)
    ]
    with evaluating(model), torch.no_grad():
        logits = model(x)
    for handle in handles:
        handle.remove()
    return kept, logits


def _equal(a: tuple[dict[str, Tensor], Tensor], b: tuple[dict[str, Tensor], Tensor]) -> bool:
    same = all(torch.equal(spikes, b[0][name]) for name, spikes in a[0].items())
    return same and a[0].keys() == b[0].keys() and torch.allclose(a[1], b[1], atol=1e-5)


def _by_tables(model: Any) -> int:
    return sum(path.startswith("tables") for _, path, _ in model.paths())


@compiled
@pytest.mark.parametrize("connect", ["add", "and", "iand"])
@pytest.mark.parametrize("path", native.ISAS)
def test_every_way_of_joining_gives_the_reference_s_spikes(connect: str, path: Any) -> None:
    if path not in KNOWN:
        pytest.skip(f"no {path} here")
    model = _quantized(connect=connect, T=5)
    x = torch.randn(37, 3, 13, 11)
    quick = isofire.fast(model, path=path)
    found = _spikes(quick, x)
    assert _by_tables(quick) == 8
    assert _equal(found, _spikes(definition(model), x))
    assert all(0.0 < float(spikes.mean()) < 1.0 for spikes in found[0].values())


@compiled
@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_all_bits(bits: int) -> None:
    method = "lsq" if bits > 1 else "uniform"
    model = _quantized(isofire.QuantSpec(weights={"method": method, "bits": bits}, first_layer="quantize"))
    x = torch.randn(33, 3, 12, 12)
    quick = isofire.fast(model)
    assert _equal(_spikes(quick, x), _spikes(definition(model), x))
    assert _by_tables(quick) == 8


@compiled
@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_quantized_membranes_of_every_neuron(neuron: str, placement: str) -> None:
    spec = isofire.QuantSpec(
        weights={"method": "lsq", "bits": 4}, membrane={"bits": 3, "placement": placement, "range": [-1.0, 1.6]}
    )
    model = _quantized(spec, neuron=neuron)
    x = torch.randn(32, 3, 12, 12)
    quick = isofire.fast(model)
    assert _equal(_spikes(quick, x), _spikes(definition(model), x))
    assert _by_tables(quick) == 8


@compiled
def test_spikes_do_not_depend_on_batch_or_threads() -> None:
    quick = isofire.fast(_quantized())
    x = torch.randn(70, 3, 12, 12)
    whole, _ = _spikes(quick, x)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert all(torch.equal(spikes, whole[name]) for name, spikes in _spikes(quick, x)[0].items())
    finally:
        torch.set_num_threads(threads)
    for some in (1, 5, 9, 32):
        part, _ = _spikes(quick, x[:some])
        assert all(torch.equal(spikes, whole[name][:, :some]) for name, spikes in part.items())


@compiled
def test_frames_are_taken_as_images_are() -> None:
    model = _quantized()
    frames = torch.randn(3, 20, 3, 12, 12)
    assert _equal(_spikes(isofire.fast(model), frames), _spikes(definition(model), frames))


@compiled
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1)])
def test_pools_and_flat_layers_in_a_sequence(pool: nn.Module) -> None:
    size = 8 if pool.stride == 1 else 4
    model = nn.Sequential(
        Repeat(4), PerStep(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)), LIF(),
        PerStep(pool, nn.Conv2d(6, 7, 3, padding=1, groups=1), nn.BatchNorm2d(7)), LIF(v_reset=None),
        PerStep(nn.Flatten(), nn.Dropout(), nn.Linear(7 * size * size, 12)), IF(v_threshold=0.5),
        PerStep(nn.Linear(12, 4)),
    )  # fmt: skip
    x = torch.rand(40, 2, 8, 8)
    with torch.no_grad():
        model(x)
    model = isofire.quantize_(model.eval(), W4, x)
    quick = isofire.fast(model)
    assert _equal(_spikes(quick, x), _spikes(definition(model), x))
    assert _by_tables(quick) == 2


@compiled
@pytest.mark.parametrize("axes", [(1, 2), (2, 3), (1, 3)])
def test_axes_are_joined_behind_an_average_pool(axes: tuple[int, int]) -> None:
    model = nn.Sequential(
        Repeat(2), PerStep(nn.Conv2d(2, 4, 3)), IF(v_threshold=0.3), PerStep(nn.AvgPool2d(3)),
        PerStep(nn.Flatten(*axes)), PerStep(nn.Flatten(), nn.Linear(16, 4)),
    )  # fmt: skip
    x = torch.rand(8, 2, 9, 9)
    spec = isofire.QuantSpec(weights=W4.weights, first_layer="quantize", last_layer="quantize")
    model = isofire.quantize_(model.eval(), spec, x)
    quick = isofire.fast(model)
    assert _equal(_spikes(quick, x), _spikes(model, x))
    assert torch.allclose(quick(x), model(x), atol=1e-5)


@compiled
def test_recorders_and_comparisons_find_the_layers() -> None:
    model = _network()
    quantized = isofire.quantize_(copy.deepcopy(model), W4, torch.randn(16, 3, 12, 12))
    quick, x = isofire.fast(quantized), torch.randn(40, 3, 12, 12)
    counts = []
    for network in (quick, definition(quantized)):
        with FiringRecorder(network) as recorder:
            network(x)
        counts.append(recorder.counts)
    names = list(counts[0].layers)
    assert names == list(counts[1].layers)
    assert all(torch.equal(counts[0].counts[name], counts[1].counts[name]) for name in names)
    data = (x, torch.zeros(40, dtype=torch.int64))
    drifts = isofire.compare(model, quick, data).layers, isofire.compare(model, definition(quantized), data).layers
    assert [(drift.layer, drift.emd) for drift in drifts[0]] == [(drift.layer, drift.emd) for drift in drifts[1]]


@compiled
def test_spikes_stay_packed_for_who_only_counts_and_follows_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, x = isofire.fast(_quantized()), torch.randn(9, 3, 12, 12)
    with FiringRecorder(quick, blocks=1) as recorder:
        quick(x)
    expected = {name: counts.clone() for name, counts in recorder.counts.counts.items()}
    assert sum(int(counts.sum()) for counts in expected.values()) > 0
    monkeypatch.setattr(native, "unpack", lambda *_: pytest.fail("spikes were unpacked"))
    with FiringRecorder(quick, blocks=1) as recorder, Routes(quick).listening() as routes:
        quick(x)
    assert {name for name, _ in routes.products} == {"conv2d", "linear"}
    assert all(torch.equal(counts, expected[name]) for name, counts in recorder.counts.counts.items())


@compiled
@pytest.mark.parametrize("made", [isofire.fast, lambda model: model])
def test_what_a_hook_of_the_user_makes_of_spikes_is_what_counts(made: Any) -> None:
    model = made(_quantized())
    model.stem_sn.register_forward_hook(lambda _m, _i, output: output * 0.0)
    with FiringRecorder(model, blocks=1) as recorder:
        model(torch.randn(9, 3, 12, 12))
    assert int(recorder.counts.counts["stem_sn"].sum()) == 0


@compiled
def test_who_follows_each_operation_sees_the_quantized_network() -> None:
    model, x = _network(), torch.randn(12, 3, 12, 12)
    quantized = isofire.quantize_(copy.deepcopy(model), W4, x)
    quick, data = isofire.fast(quantized), (x, torch.zeros(12, dtype=torch.int64))
    found, expected = (isofire.compare(model, network, data).synops for network in (quick, quantized))
    assert found is not None
    assert expected is not None
    assert not found.left_out
    assert {name: drift.baseline for name, drift in found.layers.items()} == {
        name: drift.baseline for name, drift in expected.layers.items()
    }
    assert sum(drift.baseline for drift in found.layers.values()) > 0
    others = torch.randn(12, 3, 12, 12)
    assert torch.equal(torch.export.export(quick, (x,)).module()(others), quantized(others))
    with torch.no_grad():
        assert torch.equal(torch.jit.trace(quick, (x,))(others), quantized(others))


@compiled
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_inputs_that_are_not_finite_go_the_reference_s_way(value: float) -> None:
    model, x = _quantized(), torch.randn(9, 3, 12, 12)
    x[2, 1, 5, 5] = value
    assert _equal(_spikes(isofire.fast(model), x), _spikes(definition(model), x))


def test_without_compiled_look_ups_the_spikes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = _quantized(), torch.randn(10, 3, 12, 12)
    expected = _spikes(definition(model), x)
    monkeypatch.setattr(native, "library", lambda: None)
    quick = isofire.fast(model)
    assert _equal(_spikes(quick, x), expected)
    assert not _by_tables(quick)
    assert {why for name, _, why in quick.paths() if name.endswith("sn1")} == {  # type: ignore[operator]
        "the compiled look-ups are absent or not wanted"
    }
    with pytest.raises(SpecError, match="not compiled"):
        isofire.fast(model, path="portable")


def test_what_cannot_be_looked_up_is_said() -> None:
    model = isofire.quantize_(
        _network(), isofire.QuantSpec(weights={"method": "lqnet", "bits": 3}), torch.randn(8, 3, 12, 12)
    )
    with pytest.raises(ModelError, match="no multiples of a step"):
        isofire.fast(model)
    assert "full precision" in repr(isofire.fast(_quantized()))


class OtherLinear(nn.Linear):
    """A class of its own, as SpikingJelly's layers are."""


def test_layers_of_classes_of_their_own_are_told_as_that() -> None:
    """Their weights may be quantized, so that quantizing them is no cure."""
    torch.manual_seed(0)
    net = nn.Sequential(Repeat(2), PerStep(OtherLinear(6, 5)), IF(), PerStep(OtherLinear(5, 3)))
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize")
    quantized = isofire.quantize_(net, spec, (torch.rand(8, 6), torch.arange(8) % 3))
    with pytest.raises(
        ModelError, match=r"derived from nn\.Linear, which may do otherwise\); run the network as it is"
    ):
        isofire.fast(quantized)


def test_levels_that_tables_cannot_take_are_not_to_be_quantized_first() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Linear(6, 8)), IF(), nn.Linear(8, 3))
    spec = isofire.QuantSpec(weights={"method": "lqnet", "bits": 3}, first_layer="quantize")
    quantized = isofire.quantize_(net, spec, torch.rand(4, 8, 6))
    with pytest.raises(ModelError) as told:
        isofire.fast(quantized)
    assert str(told.value).endswith(
        "quantize the weights of '2' first, or take 'uniform' or 'lsq' of up to 8 bits for those of '0.0', or run the "
        "network as it is"
    )


def test_each_layer_has_its_own_reason() -> None:
    """Convolutions of one axis are quantized and not looked up; the last layer is looked up and not quantized."""
    torch.manual_seed(0)
    conv, last = nn.Conv1d(2, 4, 3), nn.Linear(4 * 6, 3)
    net = nn.Sequential(Repeat(2), PerStep(conv), IF(), PerStep(nn.Flatten(), OtherLinear(24, 24), last))
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize")
    data = (torch.rand(8, 2, 8), torch.arange(8) % 3)
    quantized = isofire.quantize_(copy.deepcopy(net), spec, data)
    with pytest.raises(ModelError) as told:
        isofire.fast(quantized)
    assert str(told.value) == (
        "no layer of this network can be looked up ('1.0' (Conv1d): of a kind that is not looked up, as nn.Conv2d and "
        "nn.Linear are; '3.1' (OtherLinear): of a class derived from nn.Linear, which may do otherwise; '3.2' "
        "(Linear): weights are in full precision, or on levels that are no multiples of a step); quantize the weights "
        "of '3.2' first, or run the network as it is"
    )
    quick = isofire.fast(isofire.quantize_(net, msgspec.structs.replace(spec, last_layer="quantize"), data))
    assert {name: why.split(",")[0] for name, path, why in quick.paths() if path != "codes" and "." in name} == {  # type: ignore[operator]
        "1.0": "of a kind that is not looked up",
        "3.1": "of a class derived from nn.Linear",
    }


def test_a_changed_tensor_is_a_tensor_like_any_other() -> None:
    """In-place operations and views of spikes, in a network that does to them what nobody foresaw."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)
            self.sn1, self.sn2 = LIF(), LIF(v_threshold=0.3)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.sn1(self.first(x), repeat=3)
            spikes[:, 0].zero_()
            spikes += 1.0
            return self.sn2(self.second(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])).flip(0)

    model = Odd().eval()
    with torch.no_grad():
        model.second.weight.copy_(torch.randint(-7, 8, (4, 4, 1, 1)) / 8)
        x = torch.randn(9, 1, 6, 6) * 3
        quick = isofire.fast(model)
        assert torch.equal(quick(x), definition(model)(x))
        assert float((quick(x) != model(x)).float().mean()) < 0.01
        assert type(quick(x)) is Tensor


@compiled
class Twice(LIF):
    """Steps of its own: what comes in counts twice."""

    def _fire(self, x: Tensor, *further: Any) -> Tensor:
        return super()._fire(2 * x, *further)


@pytest.mark.parametrize("membrane", [None, {"bits": 4, "range": [-1, 1.5], "placement": "post_reset"}])
@pytest.mark.parametrize(
    "neurons",
    [
        lambda: Recurrent(LIF(4.0, v_threshold=0.3), nn.Linear(20, 20)),
        lambda: Recurrent(IF(v_reset=None), nn.Linear(20, 20, bias=False)),
        lambda: Recurrent(ParametricLIF(3.0), nn.Linear(20, 20)),
        lambda: Recurrent(CubaLIF(6.0, 3.0, v_threshold=0.6, v_reset=None), nn.Linear(20, 20)),
        lambda: CubaLIF(6.0, 3.0, v_threshold=0.6),
        lambda: IF(v_reset=None, v_floor=-0.5),
        Twice,
    ],
    ids=["lif", "if", "plif", "cuba", "no recurrence", "floor", "own steps"],
)
def test_neurons_behind_codes_take_the_steps_that_they_take(neurons: Any, membrane: Any) -> None:
    torch.manual_seed(13)
    model = nn.Sequential(
        PerStep(nn.Linear(40, 24)),
        LIF(v_threshold=0.3),
        PerStep(nn.Linear(24, 20)),
        neurons(),
        PerStep(nn.Linear(20, 5)),
    ).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.mul_(2.0)
    x = torch.poisson(torch.full((10, 6, 40), 0.4))
    spec = isofire.QuantSpec(
        weights={"method": "uniform", "bits": 4}, membrane=membrane, first_layer="quantize", last_layer="quantize"
    )
    quantized = isofire.quantize_(model, spec, (x, torch.arange(6) % 5))
    expected, logits = _spikes(quantized, x)
    found, others = _spikes(isofire.fast(quantized), x)
    assert 0 < float(expected["3"].mean()) < 1
    assert all(torch.equal(found[name], spikes) for name, spikes in expected.items())
    assert torch.allclose(others, logits, atol=1e-5)


def test_neurons_with_a_forward_of_their_own_keep_it() -> None:
    class Inverted(LIF):
        def forward(self, x: Tensor, norm: Any = None, repeat: int | None = None) -> Tensor:
            return 1.0 - super().forward(x, norm, repeat)

    model = nn.Sequential(Repeat(2), PerStep(nn.Conv2d(1, 4, 3)), LIF(), PerStep(nn.Conv2d(4, 4, 3)), Inverted()).eval()
    with torch.no_grad():
        model[3][0].weight.copy_(torch.randint(-7, 8, (4, 4, 3, 3)) / 8)  # type: ignore[index, operator]
        x = torch.randn(9, 1, 8, 8) * 3
        assert torch.equal(isofire.fast(model)(x), definition(model)(x))


@compiled
@pytest.mark.parametrize("T", [4, 260])
def test_recorded_counts_are_those_of_the_spikes(T: int) -> None:
    """Counted from packed spikes; above 255 steps a byte would not hold them."""
    model = nn.Sequential(
        Repeat(T), PerStep(nn.Conv2d(1, 5, 3)), IF(v_threshold=0.3), PerStep(nn.Flatten(), nn.Linear(80, 6)), IF()
    )
    with torch.no_grad():
        model[3][1].weight.copy_(torch.randint(-3, 8, (6, 80)) / 8)  # type: ignore[index, operator]
    quick, x = isofire.fast(model.eval()), torch.rand(35, 1, 6, 6)
    spikes, _ = _spikes(quick, x)
    with FiringRecorder(quick, blocks=1) as recorder:
        quick(x)
    for name, each in spikes.items():
        assert torch.equal(recorder.counts.counts[name][0], each.sum((0, 1)).int())
    assert max(int(each.sum((0, 1)).max()) for each in spikes.values()) > 255 * (T > 255)


def test_a_fast_network_is_left_in_peace() -> None:
    model = _quantized()
    quick = isofire.fast(model)
    assert quick.state_dict().keys() == model.state_dict().keys()
    assert type(model).__mro__[0] is SEWResNet
    assert isinstance(quick, SEWResNet)
    with pytest.raises(ModelError, match="fast already"):
        isofire.fast(quick)
    with pytest.raises(ModelError, match="inference alone"):
        quick.train()(torch.randn(2, 3, 12, 12))
    x = torch.randn(12, 3, 12, 12)
    twin = copy.deepcopy(quick.eval())
    assert torch.equal(twin(x), quick(x))
    with torch.no_grad():
        twin.stages[0][0].conv1.weight.mul_(-1.0)  # type: ignore[index, union-attr]
    assert not torch.equal(twin(x), quick(x))


@compiled
@pytest.mark.parametrize("layers", ["last_layer", "first_layer"])
def test_a_pooled_head_by_tables_has_steps_as_the_network_has(layers: str) -> None:
    """Looked at, a layer may compute otherwise and round otherwise, which changes no step."""
    torch.manual_seed(0)
    head = PerStep(nn.AvgPool2d(3), nn.Flatten(), nn.Linear(8 * 25, 10))
    net = nn.Sequential(Repeat(4), PerStep(nn.Conv2d(3, 8, 3, 2)), IF(), head).eval()
    with torch.no_grad():
        for weight in (parameter for parameter in net.parameters() if parameter.ndim > 1):
            weight.mul_(3)
    images, labels = torch.rand(30, 3, 32, 32), torch.arange(30) % 10
    spec = isofire.QuantSpec.from_dict({"weights": {"method": "lsq", "bits": 4}, layers: "quantize"})
    quantized = isofire.quantize_(copy.deepcopy(net), spec, images)
    found = [isofire.compare(net, model, (images, labels)) for model in (quantized, isofire.fast(quantized))]
    assert found[0].agreement == found[1].agreement
    assert found[0].to_dict()["overall"]["mfr"] == found[1].to_dict()["overall"]["mfr"]
