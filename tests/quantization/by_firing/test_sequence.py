"""Whole networks calibrated layer by layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import SpecError
from isofire.models import sew_resnet8
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import calibrate, convert, integer_weights, prepare, quantize_
from isofire.quantization.by_firing.bypass import Bypass
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.by_firing.trace import calls_of, trace

W2 = {"method": "gptq", "bits": 2}
M2 = {"method": "firing", "bits": 2}


@pytest.fixture(scope="module")
def images() -> Tensor:
    train = isofire.data.load("digits", "train")
    (batch, _), *_ = train.first(96).batches(96)
    return batch


@pytest.fixture(scope="module")
def network(images: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = sew_resnet8(width=0.5, in_channels=1, neuron_options={"detach_reset": True})
    # statistics of real images, so that every layer fires
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.constant_(module.bias, 0.3)
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def drift(model: nn.Module, baseline: nn.Module, images: Tensor) -> float:
    after, before = firing_of(model, [images]).counts, firing_of(baseline, [images]).counts
    samples = 4 * len(images)
    return sum(float((after[n] - before[n]).abs().double().mean()) for n in before) / samples / len(before)


def quantized(network: nn.Module, images: Tensor, **spec: object) -> nn.Module:
    return quantize_(copy.deepcopy(network), isofire.QuantSpec(**spec), images)  # type: ignore[arg-type]


def test_rounding_that_compensates_drifts_less_and_corrected_least(network: nn.Module, images: Tensor):
    nearest = drift(quantized(network, images, weights={"method": "uniform", "bits": 2}), network, images)
    rounded = drift(quantized(network, images, weights=W2), network, images)
    corrected = drift(quantized(network, images, weights=W2, correct="bias"), network, images)
    assert corrected < rounded < nearest


def test_levels_chosen_by_firing_drift_less_than_a_fixed_grid(network: nn.Module, images: Tensor):
    fixed = {"method": "uniform", "bits": 2, "range": (0.0, 1.0), "placement": "post_reset"}
    grid = drift(quantized(network, images, membrane=fixed), network, images)
    assert drift(quantized(network, images, membrane=M2), network, images) < 0.7 * grid


def test_the_same_twice_and_nothing_of_it_in_the_argument(network: nn.Module, images: Tensor):
    before = copy.deepcopy(network.state_dict())
    one, two = (quantized(network, images, weights=W2, membrane=M2, correct="bias") for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_settings_are_hashable():
    kinds = {isofire.QuantSpec(weights={**W2, "options": {"grid": grid}}).weights for grid in ("midtread", "endpoint")}
    assert len(kinds) == 2


def test_weights_are_levels_and_stay_so_through_convert(network: nn.Module, images: Tensor):
    prepared = calibrate(prepare(network, isofire.QuantSpec(weights=W2)), images)
    codes = integer_weights(prepared)
    fixed = convert(prepared)
    for name, (code, levels) in codes.items():
        rows = levels.gather(1, code.flatten(1).long())
        assert torch.equal(fixed.get_submodule(name).weight.flatten(1), rows)
    assert torch.equal(prepared(images), fixed(images))


def test_a_saved_network_computes_the_same(network: nn.Module, images: Tensor, tmp_path):
    made = quantized(network, images, weights=W2, membrane={**M2, "granularity": "channel"}, correct="bias")
    isofire.models.save_model(tmp_path / "q.safetensors", made, {})
    again, _ = isofire.models.load_model(tmp_path / "q.safetensors")
    assert torch.equal(again(images), made(images))


def test_too_few_images_for_the_inverse_are_told_and_nothing_is_left_half_done(network: nn.Module, images: Tensor):
    model = nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.Linear(64, 32)), LIF(), PerStep(nn.Linear(32, 10)))
    before = copy.deepcopy(model.state_dict())
    spec = isofire.QuantSpec(weights=W2, first_layer="quantize")
    told = (
        r"got 40 for 64; damping = 0\.01 would .*layer '1\.1', rule 'default'.*calibrate on 32 images or more, not 20"
    )
    with pytest.raises(SpecError, match=told):
        quantize_(model, spec, images[:20])
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_as_many_images_as_the_error_says_are_enough(images: Tensor):
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.Linear(64, 32)), LIF(), PerStep(nn.Linear(32, 10)))

    spec = isofire.QuantSpec(weights=W2, first_layer="quantize")
    with pytest.raises(SpecError, match="calibrate on 32 images or more, not 31"):
        quantize_(model(), spec, images[:31])
    quantize_(model(), spec, images[:32])


def test_a_layer_that_no_number_of_images_is_enough_for_is_told_its_way_out():
    network = nn.Sequential(nn.Linear(300, 8), LIF(), nn.Linear(8, 3))
    spec = isofire.QuantSpec(weights=W2, first_layer="quantize")
    told = r"got 40 for 300.*; quantize the layer by another method by a rule, such as 'lsq', as the 256 images that"
    with pytest.raises(SpecError, match=told):
        quantize_(network, spec, torch.rand(1, 40, 300))


def test_images_that_do_not_fit_are_not_asked_for(images: Tensor, monkeypatch: pytest.MonkeyPatch):
    model = nn.Sequential(Repeat(2), PerStep(nn.Flatten(), nn.Linear(64, 32)), LIF(), PerStep(nn.Linear(32, 10)))
    # 20 images of 64 numbers at two steps
    monkeypatch.setattr("isofire.quantization.by_firing.images.MOST_BYTES", 20 * 2 * 64 * 4)
    with pytest.raises(SpecError, match="as the 20 images that are used at most do not give so many"):
        quantize_(model, isofire.QuantSpec(weights=W2, first_layer="quantize"), images)


def test_the_trace_has_the_order_of_the_calls(network: nn.Module, images: Tensor):
    found = trace(network, [images[:2]], ["stem", "fc", "stages.0.0.conv1"])
    order = [name for name in found.order if name in ("stem", "stem_bn", "stem_sn", "stages.0.0.conv1", "fc")]
    assert order == ["stem", "stem_bn", "stem_sn", "stages.0.0.conv1", "fc"]
    assert found.norms["stem_sn"] == "stem_bn"
    assert set(found.calls.values()) == {1}


def test_calls_are_those_that_the_network_makes(network: nn.Module, images: Tensor):
    (early,), (whole,) = (calls_of(network, "stages.1.0.sn1", [images], expected) for expected in (1, 0))
    assert torch.equal(early[0].input, whole[0].input)
    assert early[0].kwargs["norm"] is network.get_submodule("stages.1.0.bn1")


def test_a_bypassed_network_is_the_full_precision_one(network: nn.Module, images: Tensor):
    nearest = {"method": "uniform", "bits": 2}
    prepared = calibrate(prepare(network, isofire.QuantSpec(weights=nearest, membrane=M2)), images)
    # statistics were measured anew
    with Bypass(prepared):
        off = firing_of(prepared, [images]).counts
    plain = copy.deepcopy(network)
    for name, buffer in plain.named_buffers():
        buffer.copy_(prepared.get_buffer(name))
    assert all(torch.equal(off[name], counts) for name, counts in firing_of(plain, [images]).counts.items())
    assert not torch.equal(prepared(images), plain(images))


def test_a_network_in_training_mode_is_calibrated_as_one_in_eval_mode(network: nn.Module, images: Tensor):
    spec = {"weights": W2, "membrane": {"method": "firing", "bits": 1}, "correct": "bias"}
    expected = quantized(network, images[:32], **spec).state_dict()
    training = copy.deepcopy(network).train()
    found = quantize_(training, isofire.QuantSpec(**spec), images[:32]).state_dict()  # type: ignore[arg-type]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
