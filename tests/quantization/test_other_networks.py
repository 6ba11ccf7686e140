"""Networks that are built in other ways than isofire's own: what comes out is what is reported, or it is refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import isofire
from isofire.adapters import copy_of, input_axis
from isofire.errors import DataError, ModelError, SpecError
from isofire.firing.cost import measure_cost
from isofire.neurons import IF, LIF, PerStep, Repeat
from isofire.quantization import calibrate_, prepare_, reestimate_batch_norm, restore_, spec_of
from isofire.quantizers import Uniform
from isofire.spec import QuantSpec
from isofire.training import load_weights, save_weights


class Tied(nn.Module):
    """Layers `a` and `b` share one weight; [N, 6] -> [4, N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.n0 = nn.Linear(6, 8), LIF()
        self.a, self.n1 = nn.Linear(8, 8, bias=False), LIF()
        self.b, self.n2 = nn.Linear(8, 8, bias=False), LIF()
        self.out = nn.Linear(8, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.n0(self.inp(x.unsqueeze(0).expand(4, *x.shape) * 3))
        return self.out(self.n2(self.b(self.n1(self.a(x * 4) * 4) * 4)))


class Frames(nn.Module):
    """Takes frames [T, N, 20]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n0 = nn.Linear(20, 16), IF(v_threshold=50.0)
        self.b, self.n1 = nn.Linear(16, 16), IF(v_threshold=5.0)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.n1(self.b(self.n0(self.a(x)))))


def flat(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(Repeat(4), PerStep(nn.Linear(6, 8)), LIF(), *middle, LIF(), PerStep(nn.Linear(8, 3)))


X = torch.rand(64, 6, generator=torch.Generator().manual_seed(0)) * 4
Y = torch.arange(64) % 3


@pytest.mark.parametrize("weights", [{"method": "lsq", "bits": 3}, {"method": "lqnet", "bits": 2}])
def test_tied_weights_stay_tied_and_are_those_of_training(weights: dict, tmp_path) -> None:
    model = isofire.calibrate(isofire.prepare(Tied(), QuantSpec(weights=weights))).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(X).mean(0), Y).backward()
        optimizer.step()
    model.eval()
    converted = isofire.convert(model)
    assert torch.equal(model(X), converted(X))
    assert converted.a.weight is converted.b.weight
    assert converted.a.weight[0].unique().numel() <= 8
    save_weights(tmp_path / "tied.safetensors", converted)
    again = restore_(Tied(), spec_of(model), converted=True)
    load_weights(tmp_path / "tied.safetensors", again)
    assert torch.equal(again(X), converted(X))


@pytest.mark.parametrize("twin", ["float", {"method": "uniform", "bits": 8}, {"method": "tawq", "steps": 4}])
def test_layers_that_share_a_weight_under_different_rules_part(twin: object, tmp_path) -> None:
    model = Tied()
    weight = model.a.weight.detach().clone()
    spec = QuantSpec(weights={"method": "uniform", "bits": 2}, rules=({"match": "b", "weights": twin},))  # type: ignore[arg-type]
    prepared = isofire.calibrate(isofire.prepare(model, spec)).eval()
    converted = isofire.convert(prepared)
    assert torch.equal(prepared(X), converted(X))
    alone = Uniform(2, range="mse", granularity="channel", refresh=0)
    alone.calibrate(weight)
    assert torch.equal(converted.a.weight, alone(weight))
    if twin == "float":
        assert torch.equal(converted.b.weight, weight)
    # the network that was not to be changed still shares, and a file brings both back
    assert model.a.weight is model.b.weight
    save_weights(tmp_path / "parted.safetensors", converted)
    again = restore_(Tied(), spec, converted=True)
    load_weights(tmp_path / "parted.safetensors", again)
    assert torch.equal(again(X), converted(X))


TIES = {
    "transposed": lambda a: nn.Parameter(a.weight.detach().T),
    "a slice": lambda a: nn.Parameter(a.weight.data[:, :8]),
    "data": lambda a: nn.Parameter(a.weight.data),
}


@pytest.mark.parametrize("how", TIES)
@pytest.mark.parametrize("rules", [(), ({"match": "b", "weights": "float"},)])
def test_weights_that_are_views_of_others_are_refused(how: str, rules: tuple) -> None:
    model = Tied()
    model.b.weight = TIES[how](model.a)
    before = model.a.weight.detach().clone()
    spec = QuantSpec(weights={"method": "uniform", "bits": 3}, rules=rules)
    with pytest.raises(ModelError, match=r"the weight of 'a' lies in the memory of 'b\.weight'"):
        isofire.quantize_(model, spec, X)
    assert torch.equal(model.a.weight, before)
    # the cure that the error names
    model.b.weight = nn.Parameter(model.b.weight.detach().clone())
    assert isofire.quantize_(model, spec, X).a.weight[0].unique().numel() <= 8


def test_a_buffer_that_is_a_view_of_a_weight_is_told_and_biases_too() -> None:
    model = flat()
    model.register_buffer("kept", model[1][0].weight.data[0])
    first = {"match": "1.0", "weights": {"method": "uniform", "bits": 3}}
    with pytest.raises(ModelError, match=r"lies in the memory of 'kept'"):
        isofire.prepare(model, QuantSpec(rules=(first,)))
    model = Tied()
    model.out.bias = nn.Parameter(model.inp.bias.data[2:5])
    with pytest.raises(ModelError, match=r"the bias of 'inp' lies in the memory of 'out\.bias'"):
        isofire.prepare(model, QuantSpec(biases={"method": "uniform", "bits": 8}, first_layer="quantize"))


def test_copies_keep_views_of_weights_as_views() -> None:
    model = Tied()
    model.b.weight = nn.Parameter(model.a.weight.detach().T, requires_grad=False)
    twin: Tied = copy_of(model)  # type: ignore[assignment]
    with torch.no_grad():
        twin.a.weight.add_(1.0)
    assert torch.equal(twin.b.weight, twin.a.weight.T)
    assert torch.equal(model.b.weight + 1, twin.b.weight)
    assert [twin.a.weight.requires_grad, twin.b.weight.requires_grad] == [True, False]
    with pytest.raises(ModelError, match="lies in the memory of"):
        isofire.prepare(model, QuantSpec(weights={"method": "uniform", "bits": 3}))


def test_parameters_of_one_flat_vector_are_apart() -> None:
    model, vector = flat(PerStep(nn.Linear(8, 8))).eval(), flat(PerStep(nn.Linear(8, 8))).eval()
    vector.load_state_dict(model.state_dict())
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(vector.parameters()), vector.parameters())
    spec = QuantSpec(weights={"method": "uniform", "bits": 3})
    for net in (model, vector):
        # 6 x 8, 8 x 8 and 8 x 3 weights, 19 biases
        memory = measure_cost(net, (X, Y)).memory
        assert memory.weight_bits == 32 * (48 + 64 + 24 + 19)
        assert all(layer.stored_in is None for layer in memory.weights.values())
    plain, found = (isofire.quantize_(net, spec) for net in (model, vector))
    assert all(map(torch.equal, plain.state_dict().values(), found.state_dict().values()))


def test_memory_counts_views_of_a_weight_once() -> None:
    model = Tied()
    model.b.weight = nn.Parameter(model.a.weight.detach().T)
    memory = measure_cost(model.eval(), (X, Y)).memory
    assert memory.weights["b"].stored_in == "a"
    assert memory.weight_bits == 32 * (48 + 8 + 64 + 24 + 3)


class Standardised(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
        return F.linear(input, weight, self.bias)


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * 0.5, self.bias)


class Behind(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight.tanh(), bias)


class Elsewhere(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return input


class Rectified(nn.Linear):
    """Its own forward uses the weight as it is."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(input @ self.weight.T + self.bias)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Standardised(8, 8), r"'3\.0' \(Standardised\) changes its weight \(mean\) before it multiplies"),
        (Scaled(8, 8), r"changes its weight \(mul\)"),
        (Elsewhere(8, 8), "is not seen to use its weight when it multiplies"),
        (nn.Sequential(nn.Unflatten(1, (2, 2, 2)), Behind(2, 2, 1), nn.Flatten()), r"\(Behind\) changes its weight"),
    ],
)
def test_layers_that_change_their_weight_are_refused(layer: nn.Module, message: str) -> None:
    model = flat(PerStep(layer))
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ModelError, match=message):
        prepare_(model, QuantSpec(weights={"method": "lsq", "bits": 3}))
    assert model.state_dict().keys() == state.keys()
    name = next(name for name, module in model.named_modules() if name.startswith("3.0") and hasattr(module, "weight"))
    spec = QuantSpec(membrane={"bits": 4}, rules=({"match": name, "weights": "float"},))  # type: ignore[arg-type]
    isofire.quantize_(model, spec)


def test_a_forward_of_its_own_that_uses_the_weight_is_quantized() -> None:
    model = isofire.quantize_(flat(PerStep(Rectified(8, 8))), QuantSpec(weights={"method": "lsq", "bits": 2}))
    assert model[3][0].weight[0].unique().numel() <= 4


def test_a_forward_set_on_the_object_counts_too() -> None:
    layer = nn.Linear(8, 8)
    layer.forward = lambda x: F.linear(x, layer.weight.sign())  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"'3\.0'"):
        prepare_(flat(PerStep(layer)), QuantSpec(weights={"method": "lsq", "bits": 3}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), r"prune\.remove\(layer, 'weight'\)"),
        (nn.utils.parametrizations.weight_norm, r"parametrized \(_WeightNorm\).*remove_parametrizations"),
        (nn.utils.parametrizations.spectral_norm, r"parametrized \(_SpectralNorm\)"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
    ],
)
def test_computed_weights_are_refused_with_the_way_out(change, message: str) -> None:
    layer = nn.Linear(8, 8)
    change(layer)
    with pytest.raises(ModelError, match=message):
        isofire.quantize_(flat(PerStep(layer)), QuantSpec(weights={"method": "lsq", "bits": 3}))
    if not parametrize.is_parametrized(layer):
        with pytest.raises(ModelError, match=r"prune\.remove|remove_spectral_norm"):
            isofire.prepare(flat(PerStep(layer)), QuantSpec(weights={"method": "lsq", "bits": 3}))


def test_a_buffer_as_a_weight_is_told_as_one() -> None:
    layer = nn.Linear(8, 8)
    weight = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", weight)
    spec = QuantSpec(weights={"method": "lsq", "bits": 3})
    with pytest.raises(ModelError, match=r"is a buffer, and weights are parameters; make it one") as found:
        isofire.quantize_(flat(PerStep(layer)), spec)
    assert "norm" not in str(found.value)
    del layer.weight
    layer.weight = nn.Parameter(weight, requires_grad=False)
    isofire.quantize_(flat(PerStep(layer)), spec)
    assert not torch.equal(layer.weight, weight)


@pytest.mark.parametrize("own", [None, True, nn.Identity()])
def test_an_attribute_of_the_networks_own_is_kept(own: object) -> None:
    model = flat(PerStep(nn.Linear(8, 8)))
    model.quantization = own  # type: ignore[assignment]
    isofire.quantize_(model, QuantSpec(weights={"method": "lsq", "bits": 3}))
    assert model.quantization is own


def test_layers_without_a_shape_yet_and_masks() -> None:
    spec = QuantSpec(weights={"method": "lsq", "bits": 3})
    with pytest.raises(ModelError, match=r"'3\.0\.weight' of Sequential gets its own from the first batch"):
        isofire.prepare(flat(PerStep(nn.LazyLinear(8))), spec)
    model = flat(PerStep(nn.Linear(8, 8)))
    model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    isofire.prepare(model, spec)
    model.register_buffer("late", torch.tensor([torch.nan, -torch.inf]))
    with pytest.raises(ModelError, match=r"'late' of Sequential has 1 NaN or infinite.*training diverged"):
        isofire.prepare(model, spec)
    model = flat(PerStep(nn.Linear(8, 8)))
    model.register_parameter("mask", nn.Parameter(torch.full((3, 3), -torch.inf).triu(1), requires_grad=False))
    with pytest.raises(
        ModelError, match=r"'mask' of Sequential has 3 NaN or infinite values; a mask, .*register_buffer"
    ):
        isofire.prepare(model, spec)


def test_one_value_a_channel_is_no_batch_to_measure_a_norm_on() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Repeat(4), LIF(), PerStep(nn.Linear(8, 3)))
    spec = QuantSpec(weights={"method": "lsq", "bits": 3}, first_layer="quantize")
    before = copy.deepcopy(model.state_dict())
    told = r"the norm '1' cannot be measured on one value a channel, got inputs \[1, 8\]; give more images"
    with pytest.raises(DataError, match=told):
        isofire.quantize_(model, spec, (X[:1], Y[:1]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    isofire.quantize_(model, spec, (X[:2], Y[:2]))


def test_a_neuron_that_eval_skips_is_named() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux = flat(PerStep(nn.Linear(8, 8))), LIF()

        def forward(self, x: Tensor) -> Tensor:
            return self.main(self.aux(x.unsqueeze(0))[0] if self.training else x)

    spec = QuantSpec(membrane={"bits": 4, "range": "minmax"})
    with pytest.raises(ModelError, match=r"neuron 'aux' is not called in eval mode.*match = 'aux', membrane = 'float'"):
        isofire.quantize_(Skips(), spec, (X, Y))


def test_explain_refuses_what_quantize_refuses(capsys) -> None:
    """Weights that change with the step, in a layer that they have no form for."""
    model = flat(PerStep(Rectified(8, 8)))
    spec = QuantSpec(weights={"method": "tawq", "steps": 4}, first_layer="float")
    for ask in (isofire.explain, isofire.prepare):
        with pytest.raises(SpecError, match=r"'3\.0' is Rectified"):
            ask(model, spec)
    assert capsys.readouterr().out == ""


def test_inside_inference_mode() -> None:
    spec = QuantSpec(weights={"method": "lsq", "bits": 3}, membrane={"bits": 4, "range": "minmax"})
    model = flat(PerStep(nn.Linear(8, 8), nn.BatchNorm1d(8)))
    with torch.inference_mode():
        prepared = isofire.calibrate(isofire.prepare(model, spec), (X, Y))
        with pytest.raises(ModelError, match=r"made inside torch\.inference_mode"):
            isofire.quantize_(flat(PerStep(nn.Linear(8, 8))), spec, (X, Y))
    F.cross_entropy(prepared.train()(X).mean(0), Y).backward()
    assert all(parameter.grad is not None for parameter in prepared.parameters())


def test_a_failure_changes_nothing_and_a_second_try_succeeds() -> None:
    spec = QuantSpec(weights={"method": "lsq", "bits": 3}, membrane={"bits": 4, "range": "minmax"})
    model = flat(PerStep(nn.Linear(8, 8), nn.BatchNorm1d(8))).eval()
    before, expected = copy.deepcopy(model.state_dict()), model(X)
    good = [(X, Y), (X, Y)]
    for bad in ([*good, (X * torch.nan, Y)], [*good, (X[:, :5], Y)]):
        with pytest.raises((DataError, ModelError)):
            isofire.quantize_(model, spec, bad)
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(model(X), expected)
        assert spec_of(model) is None
    prepared = isofire.prepare(model, spec)
    state = copy.deepcopy(prepared.state_dict())
    with pytest.raises((DataError, ModelError)):
        calibrate_(prepared, [*good, (X[:, :5], Y)])
    assert all(torch.equal(value, state[name]) for name, value in prepared.state_dict().items())
    isofire.convert(calibrate_(prepared, good))
    isofire.quantize_(model, spec, good)


def test_norms_that_no_image_reaches_keep_their_statistics(caplog) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(8))
            self.neuron = IF()

        def forward(self, x: Tensor, T: int = 4) -> Tensor:
            return self.neuron(torch.stack([self.norms[t](x) for t in range(T)]))

    model = Steps().train()
    for _ in range(5):
        model(X, 8)
    before = copy.deepcopy(model.eval().state_dict())
    assert reestimate_batch_norm(model, [X + 3]) == 4
    for t, norm in enumerate(model.norms):
        mean = (X + 3).mean(0) if t < 4 else before[f"norms.{t}.running_mean"]
        torch.testing.assert_close(norm.running_mean, mean)
    assert "norms.4, norms.5, norms.6, norms.7" in caplog.text


@pytest.mark.parametrize("frames", [True, False])
def test_which_axis_holds_the_images(frames: bool) -> None:
    torch.manual_seed(1)
    model = Frames() if frames else nn.Sequential(Repeat(3), Frames())
    steps = 50 if frames else 3
    x = (torch.rand(*([50] if frames else []), 16, 20) < 0.3).float()
    v, top = torch.zeros(16, 16), 0.0
    net = model if frames else model[1]
    with torch.no_grad():
        for current in net.a(x if frames else x.expand(steps, *x.shape)):
            v = v + current
            v = torch.where(v >= 50, 0.0, v)
            top = max(top, float(v.abs().max()))
    spec = QuantSpec(membrane={"bits": 4, "range": "minmax", "placement": "post_reset"})
    labels = torch.zeros(16, dtype=torch.long)
    for data in (x, (x, labels), [(x, labels)]):
        quantized = isofire.quantize_(copy.deepcopy(model), spec, data)
        hi = (quantized if frames else quantized[1]).n0.membrane.quantizer.hi
        assert float(hi) == pytest.approx(top, rel=1e-6)
    few = [isofire.quantize_(copy.deepcopy(model), spec, d, max_images=5).state_dict() for d in (x, (x, labels))]
    assert all(torch.equal(a, b) for a, b in zip(few[0].values(), few[1].values(), strict=True))


def test_as_many_images_as_steps_or_channels() -> None:
    assert input_axis(Frames(), torch.rand(16, 16, 20), 16) == 1
    volumes = nn.Sequential(nn.Conv3d(4, 2, 3), nn.Flatten(), nn.Linear(16, 5), Repeat(4), LIF())
    assert input_axis(volumes, torch.rand(4, 4, 4, 4, 4), 4) == 0
    images = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), Repeat(4), LIF())
    assert input_axis(images, torch.rand(3, 3, 8, 8), 3) == 0
    with pytest.raises(DataError, match="must hold 7 images"):
        input_axis(images, torch.rand(3, 3, 8, 8), 7)
    with pytest.raises(ModelError, match="fails on inputs"):
        input_axis(images, torch.rand(5, 5, 8))


def test_one_image_left_over_has_no_variance_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Repeat(2), LIF())
    x = torch.rand(129, 6)
    reestimate_batch_norm(model, [x[:128], x[128:]])
    whole = copy.deepcopy(model)
    reestimate_batch_norm(whole, [x])
    torch.testing.assert_close(model[1].running_var, whole[1].running_var)


def test_an_estimated_range_that_silences_a_layer_is_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.n, self.out, self.a = LIF(), nn.Linear(200, 3), nn.Linear(6, 200)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.n(self.a(x.unsqueeze(0).expand(4, *x.shape))))

    torch.manual_seed(0)
    x, _ = torch.rand(64, 6) * 4, torch.randint(3, (64,))
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.a.weight.mul_(0.28)
    spec = QuantSpec(membrane={"bits": 4, "range": "mse"})
    with pytest.raises(SpecError, match=r"'n' could never fire: .* 0\.88.*, lies below its threshold.*another rule"):
        isofire.quantize_(model, spec, x)
    assert spec_of(model) is None
    # a layer that is silent by itself is no fault of its levels
    with torch.no_grad():
        model.a.weight.mul_(0.1)
    isofire.quantize_(model, spec, x)


def test_membranes_per_channel_behind_a_concatenation_are_loaded(tmp_path) -> None:
    class Concatenated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n0 = nn.Conv2d(1, 3, 3, padding=1), LIF()
            self.b, self.n1 = nn.Conv2d(3, 5, 3, padding=1), LIF()
            self.out = nn.Linear(8 * 64, 3)

        def forward(self, x: Tensor) -> Tensor:
            a = self.n0(self.a(x).expand(4, -1, -1, -1, -1))
            b = self.b(a.flatten(0, 1)).unflatten(0, a.shape[:2])
            return self.out(self.n1(torch.cat([a, b], 2)).flatten(2))

    images = torch.rand(32, 1, 8, 8) * 4
    for method in ({"bits": 4, "range": "minmax"}, {"method": "levels", "bits": 2}):
        spec = QuantSpec(membrane={**method, "granularity": "channel", "placement": "post_reset"})
        model = isofire.quantize_(Concatenated(), spec, images)
        assert model.n1.membrane.quantizer.channels == 8
        save_weights(tmp_path / "q.safetensors", model)
        again = restore_(Concatenated(), spec, converted=True)
        load_weights(tmp_path / "q.safetensors", again)
        assert torch.equal(again(images), model(images))


def test_weights_of_each_step_under_a_network_that_asks_its_first_layer() -> None:
    model = isofire.models.build({"builder": "sew_resnet8", "width": 0.25, "T": 4, "in_channels": 1}).eval()
    spec = QuantSpec(weights={"method": "tawq", "steps": 4}, first_layer="quantize")
    # presented once: as many images as steps are no steps
    for images in (4, 8):
        with pytest.raises(ModelError, match=r"made for T=4 steps \[T, N, \.\.\.\].*must stay float"):
            isofire.quantize_(model, spec, torch.rand(images, 1, 8, 8))
        assert spec_of(model) is None
    frames = torch.rand(4, 8, 1, 8, 8)
    assert isofire.quantize_(model, spec, frames)(frames).shape[:2] == (4, 8)
