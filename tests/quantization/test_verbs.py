"""prepare, calibrate, convert, quantize_ on a small network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import isofire
from isofire.data import TensorSet
from isofire.errors import DataError, ModelError, SpecError
from isofire.neurons import LIF, MembraneQuantizer, PerStep, Repeat
from isofire.quantization import calibrate_, is_converted, labels_of, prepare_, restore_, spec_of, weight_quantizers
from isofire.quantization.temporal import TemporalLayer
from isofire.quantizers import RangeObserver
from isofire.spec import QuantSpec
from isofire.training import Recipe, load_weights, save_weights, train

WEIGHTS = [
    {"method": "uniform", "bits": 3},
    {"method": "uniform", "bits": 4, "range": [-1, 1], "granularity": "tensor"},
    {"method": "uniform", "bits": 4, "range": "minmax", "grid": "midtread", "power_of_two": True},
    {"method": "lsq", "bits": 3},
    {"method": "lqnet", "bits": 2},
    {"method": "lqnet", "bits": 3, "restarts": 2, "clip": [-1, 1], "granularity": "tensor"},
    {"method": "tawq", "steps": 4},
]
RECIPE = Recipe(epochs=1, lr=0.01, batch_size=16)
IDS = [f"{w['method']}-{i}" for i, w in enumerate(WEIGHTS)]


@pytest.mark.parametrize("weights", WEIGHTS, ids=IDS)
def test_converted_weights_are_those_that_the_prepared_model_used(net, images, weights: dict) -> None:
    spec = QuantSpec(weights=weights, membrane={"bits": 4, "placement": "post_reset"}, first_layer="float")
    prepared = isofire.prepare(net, spec)
    calibrate_(prepared, images)
    prepared.eval()
    converted = isofire.convert(prepared)
    assert is_converted(converted)
    assert not is_converted(prepared)
    assert not any(parametrize.is_parametrized(module) for module in converted.modules())
    assert torch.equal(prepared(images[0]), converted(images[0]))
    kept = dict(converted.named_parameters())["conv1.0.weight"]
    assert torch.equal(kept, net.conv1[0].weight)


@pytest.mark.parametrize("weights", WEIGHTS[:-1], ids=IDS[:-1])
def test_integer_codes_and_levels_give_the_weights_back(net, images, weights: dict) -> None:
    prepared = isofire.calibrate(isofire.prepare(net, QuantSpec(weights=weights)), images).eval()
    for name, (codes, levels) in isofire.integer_weights(prepared).items():
        module = prepared.get_submodule(name)
        rows = codes.flatten(1).long() if levels.shape[0] > 1 else codes.reshape(1, -1).long()
        decoded = levels.gather(1, rows).view_as(codes)
        assert torch.equal(decoded, module.weight)
        assert levels.shape[1] <= 2 ** weights["bits"]


@pytest.mark.parametrize("weights", WEIGHTS, ids=IDS)
def test_quantization_aware_training_reaches_the_weights(net, images, weights: dict) -> None:
    spec = QuantSpec(weights=weights, membrane={"bits": 4, "range": [-1, 1]})
    model = isofire.calibrate(isofire.prepare(net, spec), images).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first = None
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(images[0]).mean(0), images[1])
        first = first if first is not None else loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {n for n in moved if n.endswith("original")} == {n for n in before if n.endswith("original")}
    # what a quantizer learns by gradient moves too: LSQ's steps, one a layer; the others have none
    learned = {name for name in before if ".weight.0." in name}
    assert len(learned) == (len(list(weight_quantizers(model))) if weights["method"] == "lsq" else 0)
    assert learned <= moved


def test_copies_leave_the_model_alone_and_in_place_verbs_do_not(net, images) -> None:
    state = copy.deepcopy(net.state_dict())
    spec = QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4})
    prepared = isofire.prepare(net, spec)
    isofire.convert(isofire.calibrate(prepared, images))
    assert spec_of(net) is None
    assert net.fire1.membrane is None
    assert all(torch.equal(a, b) for a, b in zip(state.values(), net.state_dict().values(), strict=True))
    assert isofire.quantize_(net, spec, images) is net
    assert spec_of(net) == spec
    assert not torch.equal(state["hidden.1.weight"], net.hidden[1].weight)


def test_quantize_equals_the_three_verbs(net, images) -> None:
    spec = QuantSpec(weights={"method": "lqnet", "bits": 2}, membrane={"bits": 3, "range": "percentile"})
    whole = isofire.quantize_(copy.deepcopy(net), spec, images)
    parts = isofire.convert(isofire.calibrate(isofire.prepare(net, spec), images))
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_batch_norm_is_measured_anew_with_quantized_weights_or_left(net, images) -> None:
    weights = {"method": "uniform", "bits": 2}
    fresh = isofire.quantize_(copy.deepcopy(net), QuantSpec(weights=weights), images)
    left = isofire.quantize_(copy.deepcopy(net), QuantSpec(weights=weights, reestimate_bn="never"))
    assert torch.equal(left.conv2[1].running_var, net.conv2[1].running_var)
    with torch.no_grad():
        x = fresh.fire1(fresh.conv1(images[0].unsqueeze(0).expand(4, -1, -1, -1, -1)))
        conv = fresh.conv2[0](x.flatten(0, 1))
    # one batch of 96 images: the cumulative average is that batch's own statistics, except that conv1's own norm also
    # ran on batch statistics while it was measured
    assert torch.allclose(fresh.conv2[1].running_mean, conv.mean((0, 2, 3)), atol=0.15)
    assert not torch.allclose(left.conv2[1].running_mean, conv.mean((0, 2, 3)), atol=0.15)


def test_membranes_alone_leave_batch_norm_unless_always(net, images) -> None:
    before = net.conv2[1].running_mean.clone()
    only = QuantSpec(membrane={"bits": 2, "range": [0, 1]})
    assert torch.equal(isofire.quantize_(copy.deepcopy(net), only).conv2[1].running_mean, before)
    always = QuantSpec(membrane={"bits": 2, "range": [0, 1]}, reestimate_bn="always")
    assert not torch.equal(isofire.quantize_(copy.deepcopy(net), always, images).conv2[1].running_mean, before)


def test_calibrated_membrane_range_is_that_of_the_full_precision_states(net, images) -> None:
    spec = QuantSpec(membrane={"bits": 4, "range": "minmax", "placement": "pre_fire"})
    model = isofire.calibrate(isofire.prepare(net, spec), images)
    with torch.no_grad():
        x = net.conv1(images[0].unsqueeze(0).expand(4, -1, -1, -1, -1))
        v, largest = torch.zeros_like(x[0]), 0.0
        for step in x:
            h = v + (step - v) / 2.0
            largest = max(largest, h.abs().max().item())
            v = torch.where(h >= 1.0, 0.0, h)
    quantizer = model.fire1.membrane.quantizer
    assert quantizer.hi.item() == pytest.approx(largest, rel=1e-6)
    assert quantizer.lo.item() == pytest.approx(-largest, rel=1e-6)


def test_per_channel_membrane_ranges(net, images) -> None:
    spec = QuantSpec(membrane={"bits": 4, "range": "minmax", "granularity": "channel", "placement": "post_reset"})
    model = isofire.quantize_(copy.deepcopy(net), spec, images)
    with torch.no_grad():
        x = net.conv1(images[0].unsqueeze(0).expand(4, -1, -1, -1, -1))
        v, largest = torch.zeros_like(x[0]), torch.zeros(4)
        for step in x:
            h = v + (step - v) / 2.0
            v = torch.where(h >= 1.0, 0.0, h)
            largest = torch.maximum(largest, v.abs().amax((0, 2, 3)))
    torch.testing.assert_close(model.fire1.membrane.quantizer.hi, largest)
    torch.testing.assert_close(model.fire1.membrane.quantizer.lo, -largest)
    assert model.fire3.membrane.quantizer.hi.unique().numel() == 8


def test_data_is_asked_for_only_when_it_is_needed(net, images) -> None:
    spec = QuantSpec(weights={"method": "uniform", "bits": 4})
    with pytest.raises(SpecError, match=r"batch-norm statistics are estimated from data: pass data"):
        isofire.quantize_(copy.deepcopy(net), spec)
    with pytest.raises(SpecError, match="membrane ranges are estimated from data"):
        isofire.quantize_(copy.deepcopy(net), QuantSpec(membrane={"bits": 4, "range": "mse"}))
    isofire.quantize_(copy.deepcopy(net), QuantSpec(membrane={"bits": 4, "range": [0, 1]}))
    isofire.quantize_(copy.deepcopy(net), spec, images[0])


def test_a_model_can_be_prepared_only_once_and_only_then_calibrated(net) -> None:
    with pytest.raises(ModelError, match="call prepare"):
        isofire.calibrate(net)
    with pytest.raises(ModelError, match="call prepare"):
        isofire.convert(net)
    prepare_(net, QuantSpec(membrane={"bits": 4}))
    with pytest.raises(ModelError, match="already prepared"):
        isofire.prepare(net, QuantSpec(membrane={"bits": 2}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_and_nothing_is_changed(net, bad: float) -> None:
    with torch.no_grad():
        net.hidden[1].weight[0, 0] = bad
    with pytest.raises(ModelError, match=r"'hidden\.1\.weight' of SmallNet has 1 NaN or infinite"):
        prepare_(net, QuantSpec(weights={"method": "lsq", "bits": 4}, membrane={"bits": 4}))
    assert spec_of(net) is None
    assert net.fire1.membrane is None
    assert not list(weight_quantizers(net))


def test_tawq_needs_the_right_number_of_steps(net, images) -> None:
    model = isofire.prepare(net, QuantSpec(weights={"method": "tawq", "steps": 3}))
    with pytest.raises(ModelError, match="made for T=3 steps"):
        model(images[0])


def test_tawq_refuses_a_layer_outside_of_per_step() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3), Repeat(4), LIF())
    spec = QuantSpec(weights={"method": "tawq", "steps": 4}, last_layer="quantize")
    with pytest.raises(ModelError, match="made for T=4 steps"):
        isofire.prepare(model, spec)(torch.zeros(96, 1, 6, 6))


def test_ten_lines_of_a_newcomer(images) -> None:
    model = nn.Sequential(
        Repeat(4), PerStep(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), LIF(), PerStep(nn.Flatten(), nn.Linear(64, 3))
    )
    quantized = copy.deepcopy(model.eval())
    spec = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, last_layer="quantize", membrane={"bits": 4})
    isofire.quantize_(quantized, spec, images)
    result = isofire.compare(model, quantized, images)
    assert result.n_images == 96
    assert result.to_dict()["overall"]["emd_layer_mean"] > 0
    # the first layer stays in full precision unless asked for
    assert torch.equal(quantized[1][0].weight, model[1][0].weight)
    assert not torch.equal(quantized[3][1].weight, model[3][1].weight)
    assert all(row.unique().numel() <= 16 for row in quantized[3][1].weight)


def test_a_spec_that_cannot_be_attached_leaves_the_model_as_it_was(net) -> None:
    spec = QuantSpec(weights={"method": "tawq", "steps": 4}, membrane={"bits": 2}, rules=[])
    net.conv2[0] = nn.utils.parametrizations.weight_norm(net.conv2[0])
    with pytest.raises(ModelError, match=r"'conv2\.0' is already parametrized"):
        prepare_(net, spec)
    assert net.fire1.membrane is None
    assert not any(isinstance(m, TemporalLayer) for m in net.modules())


def test_a_part_that_is_already_prepared_is_found(net) -> None:
    prepare_(net, QuantSpec(weights={"method": "lsq", "bits": 4}))
    with pytest.raises(ModelError, match="its part '0' is already prepared"):
        prepare_(nn.Sequential(net), QuantSpec(membrane={"bits": 4}))


def test_forgetting_the_data_costs_nothing(net, images) -> None:
    spec = QuantSpec(weights={"method": "uniform", "bits": 4})
    state, fresh = copy.deepcopy(net.state_dict()), copy.deepcopy(net)
    with pytest.raises(SpecError, match="pass data"):
        isofire.quantize_(net, spec)
    assert spec_of(net) is None
    assert not any(parametrize.is_parametrized(module) for module in net.modules())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    isofire.quantize_(net, spec, images)
    isofire.quantize_(fresh, spec, images)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in net.state_dict().items())


def test_batch_norm_is_measured_by_native_kernels_whatever_is_done_to_membranes(net, images, monkeypatch) -> None:
    """The same statistics as without membrane quantizers, and not one neuron stepped one by one."""
    weights = {"method": "uniform", "bits": 4}
    plain = isofire.quantize_(copy.deepcopy(net), QuantSpec(weights=weights), images)
    prepared = prepare_(net, QuantSpec(weights=weights, membrane={"bits": 4, "range": [-1, 1]}))
    monkeypatch.setattr("isofire.neurons.reference.run", lambda *_: pytest.fail("the reference has run"))
    both = isofire.convert(calibrate_(prepared, images))
    norms = [name for name in plain.state_dict() if "running" in name]
    assert norms
    assert all(torch.equal(plain.state_dict()[name], both.state_dict()[name]) for name in norms)
    # and afterwards they quantize
    assert not any(module.passes for module in both.modules() if isinstance(module, MembraneQuantizer))


def test_a_network_of_membranes_with_ranges_of_their_own_is_not_run_to_be_calibrated(net, images) -> None:
    runs = []
    net.register_forward_hook(lambda *_: runs.append(1))
    isofire.quantize_(net, QuantSpec(membrane={"bits": 4, "range": [-1, 1]}), images)
    assert runs == []


def test_membrane_ranges_are_those_of_the_finished_network(net, images) -> None:
    spec = QuantSpec(weights={"method": "uniform", "bits": 2}, membrane={"bits": 8, "range": "minmax"})
    model = isofire.calibrate(isofire.prepare(net, spec), images).eval()
    ranges = {name: m.membrane.quantizer.hi.item() for name, m in model.named_modules() if isinstance(m, LIF)}
    for module in model.modules():
        if isinstance(module, LIF):
            module.membrane.observer = RangeObserver("tensor", channel_axis=1)
    with torch.no_grad():
        model(images[0])
    for name, hi in ranges.items():
        seen = model.get_submodule(name).membrane.observer.extremes().abs().max().item()
        assert hi == pytest.approx(seen, rel=1e-6)


def test_frames_given_alone_are_cut_into_images_not_steps(net) -> None:
    class Framed(type(net)):
        def forward(self, x):
            return self.head(self.fire3(self.hidden(self.fire2(self.conv2(self.fire1(self.conv1(x)))))))

    net.__class__ = Framed
    frames = torch.randn(4, 40, 1, 6, 6)
    seen = []
    net.conv1[0].register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    isofire.quantize_(net, QuantSpec(membrane={"bits": 4, "range": "minmax"}), frames, max_images=7)
    # to find the ranges, and to see whether a layer has gone silent
    assert set(seen) == {4 * 7}


@pytest.mark.parametrize(
    "weights",
    [
        {"method": "lsq", "bits": 4}, {"method": "lsq", "bits": 3, "granularity": "channel"},
        {"method": "uniform", "bits": 4, "grid": "endpoint"}, {"method": "uniform", "bits": 2, "grid": "midrise"},
        {"method": "uniform", "bits": 16, "grid": "midtread"}, {"method": "uniform", "bits": 16, "grid": "endpoint"},
        {"method": "lqnet", "bits": 2},
        {"method": "uniform", "bits": 4, "range": "minmax", "grid": "midtread", "power_of_two": True},
    ],
)  # fmt: skip
def test_integer_weights_of_a_converted_model_give_its_values(net, images, weights) -> None:
    spec = QuantSpec(weights=weights, first_layer="quantize", last_layer="quantize")
    prepared = isofire.calibrate(isofire.prepare(net, spec), images)
    model = isofire.convert(prepared)
    kept, before = isofire.integer_weights(model), isofire.integer_weights(prepared)
    assert kept.keys() == before.keys() != set()
    for name, found in kept.items():
        weight = model.get_submodule(name).weight.detach()
        # by hand: the level of each code, of one group or one for each output
        rows = found.levels.expand(len(weight), -1)
        again = torch.stack([row[code] for row, code in zip(rows, found.codes.flatten(1).long(), strict=True)])
        assert torch.equal(again, weight.flatten(1))
        assert found.codes.dtype == torch.int32
        assert int(found.codes.min()) >= 0
        if weights["method"] == "lqnet":
            with pytest.raises(ModelError, match="no common step"):
                _ = found.scale
            continue
        # bits as the spec says, also where no level is 0
        assert int(found.codes.max()) < 2 ** weights["bits"]
        scale, zero = found.scale.view(-1, 1), found.zero_point.view(-1, 1)
        assert torch.equal(2 * zero, (2 * zero).round())
        values = scale * (found.codes.flatten(1) - zero)
        assert torch.allclose(values, weight.flatten(1).double(), rtol=0, atol=float(weight.abs().max()) * 2**-20)
        signed = isofire.signed_weights(model)[name]
        ends = {"endpoint": 2, "midrise": 2}.get(weights.get("grid", ""), 1)
        assert torch.equal(signed.codes.flatten(1), (ends * (found.codes.flatten(1) - zero)).round().int())


@pytest.mark.parametrize("weights", [WEIGHTS[0], WEIGHTS[1], WEIGHTS[3], {"method": "lqnet", "bits": 1}])
@pytest.mark.parametrize("rows", [[1 / 9] * 6, [-1 / 9] * 6, [0.1, 0.2, -0.3, 0.1, 0.2, 0.5], [0.0, 0.2] * 3])
def test_outputs_whose_weights_are_one_number_have_a_scale(rows: list[float], weights: dict) -> None:
    """A mean filter: scale * (codes - zero_point) is the weight, before conversion and after."""
    layer = nn.Conv2d(6, 6, 3, groups=6, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows).view(6, 1, 1, 1))
    net = nn.Sequential(Repeat(2), PerStep(layer), LIF(), PerStep(nn.Flatten(), nn.Linear(6, 2)))
    spec = QuantSpec(weights=weights, first_layer="quantize", last_layer="float")
    prepared = isofire.calibrate(isofire.prepare(net, spec))
    for model in (prepared.eval(), isofire.convert(prepared)):
        found, weight = isofire.integer_weights(model)["1.0"], model[1][0].weight.detach().double().flatten(1)
        values = found.scale.view(-1, 1) * (found.codes.flatten(1) - found.zero_point.view(-1, 1))
        torch.testing.assert_close(values, weight, rtol=0, atol=2**-20)


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "2", None])
def test_numbers_of_images_are_whole_and_positive(net, images, count: object) -> None:
    for membrane in ({"bits": 4}, {"bits": 4, "range": "minmax"}, {"method": "firing", "bits": 2}):
        with pytest.raises(SpecError, match=r"max_images must be (at least 1|a whole number)"):
            isofire.quantize_(net, QuantSpec(membrane=membrane), images, max_images=count)  # type: ignore[arg-type]
    assert spec_of(net) is None


@pytest.mark.parametrize("spec", [None, {"weights": {"method": "lsq", "bits": 4}}, "quant.toml"])
def test_what_is_no_spec_is_told_as_such(net, images, spec: object) -> None:
    for verb in (isofire.prepare, isofire.quantize_, isofire.explain):
        with pytest.raises(SpecError, match=r"a spec is an isofire\.QuantSpec, got .*QuantSpec\.from_dict"):
            verb(net, spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [*WEIGHTS[:4], {"method": "lqnet", "bits": 1}])
def test_outputs_of_very_unlike_weights_keep_their_levels(net, images, weights) -> None:
    """A pruned output has the level 0 alone, and the rounding of one with huge weights hides no others."""
    layer = net.hidden[1]
    with torch.no_grad():
        layer.weight[0] *= 1e9
        layer.weight[1] = 0.0
    model = isofire.quantize_(net, QuantSpec(weights=weights), images)
    codes, levels = isofire.integer_weights(model)["hidden.1"]
    rows = levels.expand(len(codes), -1).gather(1, codes.flatten(1).long())
    assert torch.equal(rows, layer.weight.flatten(1))
    assert levels.shape[1] <= 2 ** weights["bits"]
    assert bool((levels.diff(dim=1) >= 0).all())


class Growing(nn.Module):
    """Makes its last layers when it sees how many features there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Sequential(Repeat(4), PerStep(nn.Flatten(), nn.LazyLinear(8)), LIF()), None

    def forward(self, x):
        h = self.first(x)
        if self.last is None:
            self.last = nn.Sequential(nn.Linear(h.shape[-1], 6), LIF(), nn.Linear(6, 3))
        return self.last(h)


def test_layers_that_the_first_forward_makes_are_not_taken_for_quantized(images) -> None:
    model = Growing()
    model.first(images[0])
    spec = QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize", last_layer="quantize")
    with pytest.raises(
        ModelError, match=r"Growing made its layers last\.0, last\.1, last\.2 in its first forward pass"
    ):
        isofire.quantize_(model, spec, images)
    assert spec_of(model) is None
    isofire.quantize_(model, spec, images)
    assert all(len(row.unique()) <= 16 for row in model.last[0].weight)


def test_integer_weights_are_those_of_a_quantized_network(net, images) -> None:
    with pytest.raises(ModelError, match="in full precision"):
        isofire.integer_weights(net)
    with pytest.raises(ModelError, match="quantizes other things"):
        isofire.integer_weights(isofire.quantize_(net, QuantSpec(membrane={"bits": 4, "range": [-1, 1]}), images))


@pytest.mark.parametrize("weights", WEIGHTS[:-1], ids=IDS[:-1])
def test_weights_that_were_changed_after_conversion_are_told(net, images, weights) -> None:
    """A cast moves levels, which are those in use then; training leaves none."""
    spec = QuantSpec(weights=weights, first_layer="quantize", last_layer="quantize")
    model = isofire.quantize_(net, spec, images)
    with pytest.raises(ModelError, match=r"hidden\.1.* are written in, and training would"):
        train(model, TensorSet.of(images, "mine", "train"), None, RECIPE, progress=False)
    cast = copy.deepcopy(model).half()
    for name, (codes, levels) in isofire.integer_weights(cast).items():
        rows = levels.expand(len(codes), -1).gather(1, codes.flatten(1).long())
        assert torch.equal(rows, cast.get_submodule(name).weight.flatten(1))
        assert levels.shape[1] <= 2 ** weights["bits"]
    with torch.no_grad():
        net.hidden[1].weight.add_(torch.randn(net.hidden[1].weight.shape) * 1e-3)
    with pytest.raises(ModelError, match=r"'hidden\.1' have \d+ values where .* levels at most: they were changed"):
        isofire.integer_weights(model)


def test_a_converted_network_of_full_precision_weights_can_be_trained(net, images) -> None:
    model = isofire.quantize_(net, QuantSpec(membrane={"bits": 4, "range": [-1, 1]}), images)
    train(model, TensorSet.of(images, "mine", "train"), None, RECIPE, progress=False)
    with pytest.raises(DataError, match=r"train_set must be an ImageSet.* got tuple; isofire\.data\.TensorSet\.of"):
        train(model, images, None, RECIPE, progress=False)


def test_post_training_lsq_is_close_to_the_least_squared_error(net) -> None:
    errors = {}
    weight = net.hidden[1].weight
    for init in ("mse", "mean"):
        spec = QuantSpec(weights={"method": "lsq", "bits": 6, "init": init}, reestimate_bn="never")
        errors[init] = (isofire.quantize_(copy.deepcopy(net), spec).hidden[1].weight - weight).square().mean()
    assert errors["mse"] < 0.5 * errors["mean"]


def test_nan_images_leave_batch_norm_as_it_was(net, images) -> None:
    spoiled = images[0].clone()
    spoiled[3] = float("nan")
    before = net.conv1[1].running_mean.clone()
    model = isofire.prepare(net, QuantSpec(weights={"method": "uniform", "bits": 4}))
    with pytest.raises(DataError, match="measured as NaN or infinite; look for such values in the images"):
        calibrate_(model, spoiled)
    assert torch.equal(model.conv1[1].running_mean, before)


def test_an_iterator_that_would_be_used_up_is_refused(net, images) -> None:
    spec = QuantSpec(weights={"method": "uniform", "bits": 4}, membrane={"bits": 4, "range": "minmax"})
    with pytest.raises(SpecError, match="walks through the data 2 times"):
        calibrate_(isofire.prepare(net, spec), iter([images]))
    calibrate_(isofire.prepare(net, spec), [images])


def test_labels_name_every_setting_that_is_not_the_default() -> None:
    plain = {"weights": {"method": "lqnet", "bits": 4}}
    variants = [
        plain,
        plain | {"first_layer": "quantize"},
        plain | {"reestimate_bn": "never"},
        {"weights": {"method": "lqnet", "bits": 4, "restarts": 8}},
        {"membrane": {"bits": 4, "range": "mse"}},
        {"membrane": {"bits": 4, "range": "mse", "signed": False}},
        {"membrane": {"bits": 4, "range": "mse", "ste": "clipped"}},
    ]
    labels = [tuple(labels_of(QuantSpec(**variant)).items()) for variant in variants]
    assert len(set(labels)) == len(variants)


def test_a_range_below_the_threshold_would_silence_every_neuron(net) -> None:
    silent = QuantSpec(membrane={"bits": 6, "range": [-1, 0.9]})
    with pytest.raises(SpecError, match=r"'fire1' could never fire: .* 0\.9, lies below its threshold, 1"):
        prepare_(net, silent)
    assert spec_of(net) is None
    prepare_(net, QuantSpec(membrane={"bits": 6, "range": [-1, 0.9], "placement": "post_reset"}))


@pytest.mark.parametrize(
    ("membrane", "told"),
    [
        (
            {"method": "levels", "levels": [1.5, 2.0]},
            "would fire at every step, whatever it is given: at pre_fire the lowest level, 1.5, reaches its threshold, "
            "1 (rule 'default'); give levels with one below the threshold",
        ),
        # what equals the threshold fires
        ({"method": "levels", "levels": [1.0, 2.0]}, "would fire at every step"),
        (
            {"bits": 2, "range": [2, 3]},
            "would fire at every step, whatever it is given: at pre_fire the lowest level, 2",
        ),
        (
            {"method": "levels", "levels": [5, 6, 7], "placement": "post_reset"},
            "could store nothing below its threshold: at post_reset the lowest level, 5, reaches its threshold, 1, so",
        ),
        (
            {"method": "levels", "levels": [0, 0.5]},
            "could never fire: at pre_fire the highest level, 0.5, lies below its threshold, 1 (rule 'default'); give "
            "levels with one above the threshold, or use placement 'post_reset'",
        ),
    ],
)
def test_levels_that_leave_a_neuron_no_choice_are_refused(net, membrane, told: str) -> None:
    with pytest.raises(SpecError) as error:
        prepare_(net, QuantSpec(membrane=membrane))
    assert str(error.value).startswith(f"'fire1' {told}")
    assert spec_of(net) is None


def test_the_number_of_levels_that_data_put_below_the_threshold_has_a_cure_of_its_own(net, images) -> None:
    # all states of the first layer lie a little above and below the threshold, and two levels at their means
    with torch.no_grad():
        net.conv1[1].weight.fill_(1.6)
    membrane = {"method": "levels", "levels": 2}
    for more in ({}, {"correct": "bias"}):
        with pytest.raises(SpecError, match=r"'fire1' could never fire: .*; give the levels themselves with one above"):
            isofire.quantize_(copy.deepcopy(net), QuantSpec(membrane=membrane, **more), images)


@pytest.mark.parametrize("more", [{}, {"correct": "bias"}])
def test_levels_off_all_states_are_told_when_the_data_are_seen(net, images, caplog, more) -> None:
    far = {"method": "levels", "levels": [-9, -8], "placement": "post_reset"}
    rules = [{"match": "fire1", "membrane": far}]
    isofire.quantize_(copy.deepcopy(net), QuantSpec(rules=rules, **more), images)
    told = [text for text in caplog.messages if "membrane states on a few images" in text]
    assert len(told) == 1
    assert "fire1: all " in told[0]
    assert "lie above the highest of its levels, which go from -9 to -8" in told[0]
    caplog.clear()
    near = {"method": "levels", "levels": [-0.1, 0.5], "placement": "post_reset"}
    isofire.quantize_(copy.deepcopy(net), QuantSpec(rules=[{"match": "fire1", "membrane": near}], **more), images)
    assert not [text for text in caplog.messages if "membrane states" in text]


def test_own_models_are_saved_and_loaded_converted(net, images, tmp_path) -> None:
    spec = QuantSpec(weights={"method": "lsq", "bits": 3}, membrane={"bits": 4, "range": "minmax"})
    fresh = copy.deepcopy(net)
    model = isofire.quantize_(net, spec, images)
    save_weights(tmp_path / "own.safetensors", model)
    restored = restore_(fresh, spec, converted=True)
    load_weights(tmp_path / "own.safetensors", restored)
    assert torch.equal(model(images[0]), restored(images[0]))


def test_given_levels_of_a_prepared_model_are_read_again() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Repeat(4), PerStep(nn.Linear(12, 20)), LIF(), PerStep(nn.Linear(20, 4)))

    images = torch.randn(24, 12)
    spec = QuantSpec(weights={"method": "levels", "levels": [-0.3, 0.0, 0.2]}, last_layer="quantize")
    prepared = isofire.calibrate(isofire.prepare(network(), spec), images)
    again = restore_(network(), spec, converted=False)
    again.load_state_dict(prepared.state_dict())
    assert torch.equal(again.eval()(images), prepared.eval()(images))
