from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from isofire.errors import ModelError
from isofire.neurons import Neuron
from isofire.quantization import calibrate_, convert, prepare, quantize_
from isofire.spec import QuantSpec
from isofire.study.distributions import BINS, MOST_LEVELS, distributions, histogram

CHANNEL = QuantSpec(weights={"method": "lsq", "bits": 3})
NARROW = QuantSpec(weights={"method": "uniform", "bits": 2, "range": (-1.0, 1.0)})
BASIS = QuantSpec(weights={"method": "lqnet", "bits": 2})
MEMBRANE = QuantSpec(membrane={"bits": 2, "range": (0.0, 1.0), "signed": False})


@pytest.fixture(scope="module")
def images(splits) -> torch.Tensor:
    batch, _ = next(iter(splits.train.batches(16)))
    return batch


def quantized(baseline: nn.Module, spec: QuantSpec, images: torch.Tensor) -> nn.Module:
    return quantize_(copy.deepcopy(baseline), spec, images)


@pytest.mark.parametrize("spec", [CHANNEL, NARROW, BASIS, MEMBRANE], ids=["lsq", "fixed", "lqnet", "membrane"])
def test_entries_are_plain_and_count_every_value(baseline, images, spec):
    found = distributions(baseline, quantized(baseline, spec, images), images)
    assert json.loads(json.dumps(found)) == found
    assert found
    for entry in found:
        assert set(entry) == {"module", "target", "bits", "edges", "counts", "levels", "threshold", "note"}
        assert len(entry["edges"]) == BINS + 1
        assert (np.diff(entry["edges"]) > 0).all()
        assert entry["levels"] == sorted(set(entry["levels"]))
        if entry["target"] == "weights":
            assert sum(entry["counts"]) == baseline.get_submodule(entry["module"]).weight.numel()


def test_fixed_range_against_numpy(baseline, images):
    entry = distributions(baseline, quantized(baseline, NARROW, images), images)[0]
    assert entry["levels"] == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert entry["note"] is None
    weight = baseline.get_submodule(entry["module"]).weight.detach().double().flatten().numpy()
    edges = np.array(entry["edges"])
    expected, _ = np.histogram(np.clip(weight, edges[0], edges[-1]), edges)
    assert entry["counts"] == expected.tolist()


def test_per_channel_weights_are_divided_by_their_highest_level(baseline, images):
    prepared = calibrate_(prepare(baseline, CHANNEL), images)
    entry = distributions(baseline, prepared, images)[0]
    layer = prepared.get_submodule(entry["module"])
    top = layer.parametrizations["weight"][0].levels().abs().amax(1)
    divided = baseline.get_submodule(entry["module"]).weight.detach().flatten(1) / top[:, None]
    inner = np.array(entry["edges"])[1:-1]
    expected = np.bincount(np.searchsorted(inner, divided.double().flatten().numpy(), side="right"), minlength=BINS)
    assert entry["counts"] == expected.tolist()
    assert entry["levels"] == pytest.approx([-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75])
    assert "each channel divided by its highest level" in entry["note"]
    assert "middle" not in entry["note"]


@pytest.mark.parametrize("spec", [CHANNEL, BASIS], ids=["lsq", "lqnet"])
def test_converted_network_shows_the_levels_of_the_prepared_one(baseline, images, spec):
    prepared = calibrate_(prepare(baseline, spec), images)
    assert distributions(baseline, convert(prepared), images) == distributions(baseline, prepared, images)


def test_a_basis_of_its_own_per_channel_is_shown_for_the_middle_one(baseline, images):
    assert (
        "levels of the middle channel" in distributions(baseline, quantized(baseline, BASIS, images), images)[0]["note"]
    )


def test_trained_levels_are_read_off_the_weights(baseline, images):
    prepared = calibrate_(prepare(baseline, CHANNEL), images)
    with torch.no_grad():
        for name, parameter in prepared.named_parameters():
            if name.endswith("step"):
                parameter.mul_(1.1)
    entry = distributions(baseline, convert(prepared), images)[0]
    assert "quantized weights take" in entry["note"]
    assert len(entry["levels"]) <= 8
    assert max(abs(level) for level in entry["levels"]) == pytest.approx(1)


def test_membrane_states_are_those_of_a_network_stepped_by_hand(baseline, images):
    """The first layer of neurons, with its input taken by a hook and its states stepped here."""
    model = quantized(baseline, MEMBRANE, images)
    entry = distributions(baseline, model, images)[0]
    neuron = model.get_submodule(entry["module"])
    neuron.backend = "reference"
    seen: list[torch.Tensor] = []

    def keep(_module, arguments, keywords):
        x, norm = arguments[0], keywords.get("norm", arguments[1] if len(arguments) > 1 else None)
        repeat = keywords.get("repeat", arguments[2] if len(arguments) > 2 else None)
        with torch.no_grad():
            if norm is not None:
                x = norm(x) if repeat is not None else torch.stack([norm(step) for step in x])
            seen.append(x.expand(repeat, *x.shape) if repeat is not None else x)

    handle = neuron.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(images)
    handle.remove()
    v, states = torch.zeros_like(seen[0][0]), []
    for x in seen[0]:
        (h,) = neuron.dynamics.charge(x, (v,))
        states.append(h.flatten())
        h = neuron.membrane.quantizer(h)
        (v,) = neuron.dynamics.reset((h,), neuron.dynamics.fire((h,)))
    edges, counts = histogram(torch.cat(states), neuron.membrane.quantizer.levels()[0], neuron.dynamics.v_threshold)
    assert entry["edges"] == pytest.approx(edges)
    assert entry["counts"] == counts
    assert entry["threshold"] == neuron.dynamics.v_threshold
    assert entry["levels"] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_networks_are_left_as_they_were(baseline, images):
    model = quantized(baseline, MEMBRANE, images)
    model.train()
    some = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    some.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = hooks_of(model)
    first = distributions(baseline, model, images)
    assert model.training
    assert not some.training
    for module in model.modules():
        assert not isinstance(module, Neuron) or module.backend == "auto"
    assert hooks_of(model) == hooks
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        model.eval()
        torch.manual_seed(99)
        assert distributions(baseline, model, images) == first


def hooks_of(model: nn.Module) -> list[list[int]]:
    """The hooks of every module; some layers guard their operation with one of their own."""
    return [[*module._forward_pre_hooks, *module._forward_hooks] for module in model.modules()]


def test_hooks_are_removed_when_the_network_fails(baseline, images):
    model = quantized(baseline, MEMBRANE, images)
    hooks = hooks_of(model)
    with pytest.raises(ModelError):
        distributions(baseline, model, images[:, :0])
    assert hooks_of(model) == hooks


def test_many_levels_are_thinned_evenly(baseline, images):
    spec = QuantSpec(membrane={"bits": 10})
    entry = distributions(baseline, quantized(baseline, spec, images), images)[0]
    assert len(entry["levels"]) == MOST_LEVELS
    assert (entry["levels"][0], entry["levels"][-1]) == pytest.approx((-1, 1))
    assert entry["note"] == f"{MOST_LEVELS} of 1024 levels"


def test_ternary_weights_that_change_with_the_step(baseline, images):
    entry = distributions(
        baseline, quantized(baseline, QuantSpec(weights={"method": "tawq", "steps": 3}), images), images
    )[0]
    assert entry["levels"] == [-1, 0, 1]
    assert entry["bits"] == pytest.approx(1.585, abs=1e-3)
    assert "first step" in entry["note"]


def test_a_control_has_none(baseline, images):
    assert distributions(baseline, copy.deepcopy(baseline), images) == []


def test_networks_that_do_not_belong_together(baseline, images):
    model = quantized(baseline, MEMBRANE, images)
    name = next(name for name, module in model.named_modules() if isinstance(module, Neuron))
    model.get_submodule(name).membrane = None
    with pytest.raises(ModelError, match="has no membrane quantizer"):
        distributions(baseline, model, images)


def test_axis_shows_the_data_between_levels():
    values = torch.linspace(-0.2, 0.3, 5000)
    wide = torch.linspace(-10, 10, 256)
    edges, counts = histogram(values, wide)
    below, above = wide[wide <= -0.1995].max(), wide[wide >= 0.2995].min()
    assert edges[0] == pytest.approx(float(below), abs=0.02)
    assert edges[-1] == pytest.approx(float(above), abs=0.02)
    assert sum(counts) == 5000
    assert histogram(values, wide, threshold=1.0)[0][-1] == 1.0


def test_axis_of_equal_values():
    edges, counts = histogram(torch.zeros(7), torch.zeros(1))
    assert (edges[0], edges[-1], sum(counts)) == (-0.5, 0.5, 7)
