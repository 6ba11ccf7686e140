"""Rounded weights moved on by what the neurons behind them do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import SpecError
from isofire.neurons import LIF, Repeat
from isofire.quantization.by_firing.reconstruct import Block, Rounded, rates_of
from isofire.quantization.by_firing.sequence import Step

IMAGES = torch.rand(96, 12, generator=torch.Generator().manual_seed(0)) * 2
T = 6


class Two(nn.Module):
    """Two layers of neurons, the first behind a norm; a third layer that only the output reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.repeat = Repeat(T)
        self.a, self.norm, self.first = nn.Linear(12, 24), nn.BatchNorm1d(24), LIF(v_threshold=0.7)
        self.b, self.second = nn.Linear(24, 20), LIF(v_threshold=0.2)
        self.out = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.repeat(self.norm(self.a(x)))
        return self.out(self.second(self.b(self.first(steps)))).mean(0)


def network() -> nn.Module:
    model = Two()
    model.norm.momentum = None
    with torch.no_grad():
        model.train()(IMAGES)
    return model.eval()


def quantized(model: nn.Module, steps: int, told: list[Step] | None = None) -> nn.Module:
    asked = isofire.QuantSpec(
        weights={"method": "gptq", "bits": 2, "reconstruct": steps},
        first_layer="quantize",
        last_layer="quantize",
    )
    return isofire.quantize_(copy.deepcopy(model), asked, IMAGES, on_step=None if told is None else told.append)


def rates(model: nn.Module, weights: dict[str, Tensor], name: str) -> Tensor:
    """Spikes of each image's neurons in a loop of our own, `[N, C]`: leaky neurons with hard reset to 0, batch norm by
    the batch where weights are given."""
    state = {k: v.detach() for k, v in model.state_dict().items()}
    state |= {f"{layer}.weight": weight for layer, weight in weights.items()}
    x = IMAGES @ state["a.weight"].T + state["a.bias"]
    mean, var = (
        (x.mean(0), x.var(0, unbiased=False)) if weights else (state["norm.running_mean"], state["norm.running_var"])
    )
    x = (x - mean) / (var + model.norm.eps).sqrt() * state["norm.weight"] + state["norm.bias"]
    total = {"first": 0.0, "second": 0.0}
    v, u = torch.zeros(96, 24), torch.zeros(96, 20)
    for _ in range(T):
        v = v + (x - v) / 2
        first = (v >= 0.7).float()
        v = v * (1 - first)
        current = first @ state["b.weight"].T + state["b.bias"]
        u = u + (current - u) / 2
        second = (u >= 0.2).float()
        u = u * (1 - second)
        total["first"], total["second"] = total["first"] + first, total["second"] + second
    return total[name]


def loss(found: Tensor, target: Tensor) -> float:
    off = (found - target) / T
    return float(off.square().mean() + off.mean(0).square().mean())


def rounded(model: nn.Module, layer: str) -> tuple[nn.Module, Rounded]:
    """Prepared with this layer on four levels, and what it was."""
    weight = model.get_submodule(layer).weight.detach().clone()
    spec = isofire.QuantSpec(
        weights={"method": "uniform", "bits": 2, "range": (-0.3, 0.3)},
        rules=[{"match": other, "weights": "float"} for other in ("a", "b", "out") if other != layer],
        first_layer="quantize",
        last_layer="quantize",
        reestimate_bn="never",
    )
    prepared = isofire.calibrate(isofire.prepare(copy.deepcopy(model), spec), IMAGES)
    table = prepared.get_submodule(layer).parametrizations["weight"][0].table()
    held = prepared.get_submodule(layer).parametrizations["weight"]
    with torch.no_grad():
        held.original.copy_(prepared.get_submodule(layer).weight)
    return prepared.eval(), Rounded(weight, table.levels)


@pytest.mark.parametrize(("layer", "name"), [("a", "first"), ("b", "second"), ("a", "second")])
def test_errors_told_are_those_of_a_plain_loop_and_fall(layer: str, name: str) -> None:
    model = network()
    prepared, was = rounded(model, layer)
    target = rates_of(model, [IMAGES])[name]
    assert torch.equal(target[0], rates(model, {}, name))
    start = prepared.get_submodule(layer).weight.detach().clone()
    block = Block(prepared, name, {layer: was}, [prepared.norm], [IMAGES], target, 1)
    found = block.improve_(75)
    end = prepared.get_submodule(layer).weight.detach()
    assert found.layers == (layer,)
    assert found.before == pytest.approx(loss(rates(model, {layer: start}, name), target[0]), rel=1e-4)
    assert found.after == pytest.approx(loss(rates(model, {layer: end}, name), target[0]), rel=1e-4)
    assert found.after < found.before
    assert not torch.equal(start, end)
    assert set(end.unique().tolist()) <= set(was.levels.flatten().tolist())


def test_layers_behind_the_neurons_stay_and_nothing_else_is_changed() -> None:
    model = network()
    prepared, was = rounded(model, "b")
    prepared.train()
    prepared.a.weight.requires_grad_(False)
    before = copy.deepcopy(prepared.state_dict())
    modes = [module.training for module in prepared.modules()]
    block = Block(prepared, "first", {"b": was}, [prepared.norm], [IMAGES], rates_of(model, [IMAGES])["first"], 1)
    assert block.improve_(30).layers == ()
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
    assert [module.training for module in prepared.modules()] == modes
    assert prepared.norm.momentum is None
    assert [p.requires_grad for p in prepared.parameters()].count(False) == 1
    assert isinstance(prepared.b.parametrizations["weight"][0], isofire.quantizers.Quantizer)


def test_weights_stay_on_levels_and_each_layer_of_neurons_is_looked_at_once() -> None:
    model, told = network(), []
    plain, moved = quantized(model, 0), quantized(model, 50, told)
    steps = [step for step in told if step.done == "weights reconstructed"]
    assert [step.layer for step in steps] == ["first", "second"]
    assert all(step.note is None for step in steps)
    for layer in ("a", "b", "out"):
        levels = isofire.integer_weights(moved)[layer]
        assert levels.codes.unique().numel() <= 4
    assert not torch.equal(plain.b.weight, moved.b.weight)
    assert torch.equal(plain.a.bias, moved.a.bias)


def test_the_same_twice_on_several_batches() -> None:
    model = network()
    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 2, "reconstruct": 30}, correct="bias")
    batches = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in IMAGES.split(40)]
    one, two = (isofire.quantize_(copy.deepcopy(model), spec, batches) for _ in range(2))
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_neurons_of_another_library_whose_gradient_needs_train_mode() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    model = nn.Sequential(
        Repeat(T), nn.Linear(12, 24), neuron.LIFNode(v_threshold=0.3, step_mode="m"), nn.Linear(24, 5)
    ).eval()
    told: list[Step] = []
    quantized(model, 50, told)
    (step,) = [step for step in told if step.done == "weights reconstructed"]
    assert step.note is None


class Cut(Two):
    """No gradient comes back through its first neurons' currents."""

    def forward(self, x: Tensor) -> Tensor:
        steps = self.repeat(self.norm(self.a(x))).detach()
        return self.out(self.second(self.b(self.first(steps)))).mean(0)


def test_where_no_gradient_arrives_the_rounding_stays_and_it_is_said() -> None:
    model, told = Cut().eval(), []
    plain, moved = quantized(model, 0), quantized(model, 50, told)
    notes = {step.layer: step.note for step in told if step.done == "weights reconstructed"}
    assert notes == {"first": "no gradient from these neurons reaches a rounded layer", "second": None}
    assert torch.equal(plain.a.weight, moved.a.weight)
    assert not torch.equal(plain.b.weight, moved.b.weight)


class Drawing(Two):
    """Images are encoded by chance."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.bernoulli((x / 2).clamp(0, 1)))


def measured(model: nn.Module, name: str, batches: list[Tensor], targets: list[Tensor]) -> float:
    """The error over all images, with the norms' own statistics."""
    found = rates_of(model, batches)[name]
    each = [loss(rate, target) * len(target) for rate, target in zip(found, targets, strict=True)]
    return sum(each) / len(IMAGES)


def test_a_network_that_draws_draws_the_same_for_a_batch() -> None:
    model, batches = Drawing().eval(), list(IMAGES.split(40))
    one, two = (rates_of(model, batches)["first"] for _ in range(2))
    assert all(map(torch.equal, one, two))
    assert quantized(model, 25) is not None


@pytest.mark.parametrize("sizes", [[48, 48], [16] * 6, [95, 1], [1] * 3 + [93]])
@pytest.mark.parametrize("unlike", [False, True])
def test_the_error_with_norms_measured_anew_does_not_grow(sizes: list[int], unlike: bool) -> None:
    """Also where batches are of unlike kind, or of one image."""
    torch.manual_seed(1)
    images = IMAGES * torch.linspace(0.3, 2, 96).unsqueeze(1) if unlike else IMAGES
    batches = list(images.split(sizes))
    model = Two()
    model.norm.momentum = None
    with torch.no_grad():
        model.train()(images)
    model.eval()
    targets = {name: found for name, found in rates_of(model, batches).items()}
    data = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in batches]
    errors: dict[int, dict[str, float]] = {}
    for steps in (0, 50):
        weights = {"method": "gptq", "bits": 2, "reconstruct": steps}
        # the first layer alone, so that what the second is given is the same before and after
        spec = isofire.QuantSpec(weights=weights, first_layer="quantize", rules=[{"match": "b", "weights": "float"}])
        result = isofire.quantize_(copy.deepcopy(model), spec, data)
        errors[steps] = {"first": measured(result, "first", batches, targets["first"])}
    assert errors[50]["first"] <= errors[0]["first"]


@pytest.mark.parametrize(
    ("value", "says"), [(-1, "at least 0 steps"), (1.5, "reconstruct"), ("many", "reconstruct"), (True, "reconstruct")]
)
def test_what_is_no_number_of_steps_is_refused(value: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        isofire.QuantSpec(weights={"method": "gptq", "bits": 2, "reconstruct": value})


def test_it_is_told_in_the_settings_text() -> None:
    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 2, "reconstruct": 150})
    assert "reconstruct=150" in spec.weights.describe()
    assert "reconstruct" not in isofire.QuantSpec(weights={"method": "gptq", "bits": 2}).weights.describe()
