"""Membrane methods in a network: from the spec to a saved file, and what is refused on the way."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire import nir
from isofire.adapters import find_neurons
from isofire.errors import SpecError
from isofire.integer import differences, lower
from isofire.models import build, load_model, save_model
from isofire.neurons import IF, LIF
from isofire.quantization import calibrate, prepare, prepare_, quantize_
from isofire.quantization.shared_scale import weight_scale
from isofire.quantizers import MEMBRANES, StateLQNet, StateLSQ
from isofire.spec import QuantSpec

W4 = {"method": "lsq", "bits": 4}


def spec_of(method: str, **more: Any) -> QuantSpec:
    bits = {"bits": 2} if "bits" in MEMBRANES[method].__struct_fields__ else {}
    membrane = {"method": method, **bits, **more}
    shares = method in ("mint", "ptq4snn")
    return QuantSpec(weights=W4 if shares else None, membrane=membrane, first_layer="quantize")


def takes(method: str, placement: str) -> bool:
    return placement == "post_reset" or method not in ("mint", "ptq4snn", "qsnn", "spquant")


def levels(model: nn.Module, name: str) -> Tensor:
    neuron, adapter = find_neurons(model)[name]
    membrane = adapter.membrane(neuron)
    assert membrane is not None
    return membrane.quantizer.levels()


@pytest.mark.parametrize("name", list(MEMBRANES))
def test_a_saved_network_fires_as_before(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
    x = torch.randn(64, 1, 8, 8)
    net.train()(x)
    model = quantize_(net.eval(), spec_of(name, placement="post_reset"), x[:32])
    save_model(tmp_path / "m.safetensors", model)
    loaded, _ = load_model(tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    for layer in find_neurons(model):
        assert torch.equal(levels(loaded, layer), levels(model, layer))


@pytest.mark.parametrize("name", [name for name in MEMBRANES if takes(name, "pre_fire")])
@pytest.mark.parametrize("by_layer", [False, True])
def test_levels_that_never_reach_the_threshold_are_refused(net, images, name: str, by_layer: bool) -> None:
    for neuron, value in ((net.fire1, 9.0), (net.fire2, 7.0), (net.fire3, 5.0)):
        kind = type(neuron)
        neuron.dynamics = kind(v_threshold=value).dynamics
    # currents that make the first layer fire now and then
    with torch.no_grad():
        net.conv1[1].weight.fill_(12.0)
        assert float(net.fire1(net.conv1(images[0].expand(4, *images[0].shape))).mean()) > 0.001
    given = {"levels": [-1.0, 0.0, 1.0], "bits": None} if name == "levels" else {}
    spec = QuantSpec(
        membrane={
            k: v for k, v in {"method": name, "bits": 2, "placement": "pre_fire", **given}.items() if v is not None
        },
        correct="bias" if by_layer else "never",
    )
    if name in ("uniform", "levels"):
        with pytest.raises(
            SpecError, match=r"'fire1' could never fire: at pre_fire the highest level, 1, lies below .* 9"
        ):
            quantize_(net, spec, images[0])
        return
    quantize_(net, spec, images[0])
    for layer, value in (("fire1", 9.0), ("fire2", 7.0), ("fire3", 5.0)):
        assert float(levels(net, layer).max()) >= value


def test_estimated_levels_below_the_threshold_are_refused_layer_by_layer_too(net, images) -> None:
    with torch.no_grad():
        net.conv1[1].weight.fill_(1.6)
    spec = QuantSpec(membrane={"bits": 2, "range": "ksigma", "k": 0.5}, correct="bias")
    with pytest.raises(SpecError, match=r"'fire1' could never fire: .*another rule"):
        quantize_(copy.deepcopy(net), spec, images[0])


@pytest.mark.parametrize("method", ["mint", "ptq4snn", "qsnn", "spquant"])
def test_a_place_that_a_method_cannot_have(method: str) -> None:
    with pytest.raises(SpecError, match=r"membrane\.placement: must be post_reset, got 'pre_fire'"):
        spec_of(method, placement="pre_fire")


def test_an_unknown_method_lists_those_that_are_known() -> None:
    known = "anchored, firing, levels, lqnet, lsq, mint, ptq4snn, qsnn, spquant, squat, uniform"
    with pytest.raises(SpecError, match=rf"unknown membrane method 'achored'; .*known: {known}"):
        QuantSpec(membrane={"method": "achored", "bits": 2})


@pytest.mark.parametrize("name", ["anchored", "lsq", "lqnet"])
def test_the_layer_is_named_where_its_neurons_do_not_fit(net, name: str) -> None:
    net.fire2.dynamics = IF(v_reset=None, several=True).dynamics
    with pytest.raises(SpecError, match=r"means 'fires', but this LIF may fire .* \(layer 'fire2', rule 'default'\)"):
        prepare_(net, QuantSpec(membrane={"method": name, "bits": 2, "placement": "pre_fire"}))


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
@pytest.mark.parametrize("name", ["lsq", "lqnet"])
def test_what_is_learned_moves_in_training_and_is_saved(net, images, name: str, placement: str, tmp_path: Path) -> None:
    membrane = {"method": name, "bits": 2, "placement": placement, "granularity": "channel"}
    model = calibrate(prepare(net, QuantSpec(membrane=membrane)), images[0]).train()
    before = {layer: levels(model, layer).clone() for layer in find_neurons(model)}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[0]).mean(0), images[1]).backward()
        optimizer.step()
    model.eval()
    moved = [not torch.equal(levels(model, layer), before[layer]) for layer in before]
    assert any(moved)
    fresh = prepare(net, QuantSpec(membrane=membrane))
    isofire.quantizers.fit_quantizers_(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    for layer in before:
        assert torch.equal(levels(fresh, layer), levels(model, layer))
    kind = StateLSQ if name == "lsq" else StateLQNet
    assert all(isinstance(n.membrane.quantizer, kind) for n, _ in find_neurons(model).values())


# -- scales shared with weights ----------------------------------------------------------------------------------------


def test_the_scale_of_weights_norms_and_charge(net, images) -> None:
    spec = QuantSpec(
        weights=W4, membrane={"method": "ptq4snn", "bits": 4}, first_layer="quantize", last_layer="quantize"
    )
    model = calibrate(prepare(net, spec), images[0])
    # the layers by hand: a norm, a linear layer without one, a leak of 1/2 and none
    for layer, weighted, norm, unit in (
        ("fire1", model.conv1[0], model.conv1[1], 1.0),
        ("fire2", model.conv2[0], model.conv2[1], 1.0),
        ("fire3", model.hidden[1], None, 1.0),
    ):
        found = weight_scale(model, layer, images[0][:16])
        step = weighted.parametrizations.weight[0].affine().step.double()
        gain = 1.0 if norm is None else norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        torch.testing.assert_close(found.step, (step * gain * unit).detach(), rtol=1e-4, atol=0)
        assert (found.largest, found.unit) == (7, pytest.approx(unit, rel=1e-4))
        # steps that are powers of two times that
        ratio = (levels(model, layer).diff(dim=1)[:, 0].double() / found.step).log2()
        torch.testing.assert_close(ratio, ratio.round(), atol=1e-3, rtol=0)


def test_the_charge_is_part_of_the_scale(net, images) -> None:
    net.fire1 = LIF(4.0)
    spec = QuantSpec(weights=W4, membrane={"method": "mint", "bits": 4}, first_layer="quantize")
    found = weight_scale(calibrate(prepare(net, spec), images[0]), "fire1", images[0][:16])
    # H = 3/4 V + 1/4 X
    assert found.unit == pytest.approx(1 / 3, rel=1e-4)


def test_the_same_scale_layer_by_layer(net, images) -> None:
    whole = quantize_(copy.deepcopy(net), spec_of("ptq4snn", bits=4), images[0])
    spec = QuantSpec(weights=W4, membrane={"method": "ptq4snn", "bits": 4}, first_layer="quantize", correct="bias")
    layered = quantize_(copy.deepcopy(net), spec, images[0])
    # norms measured on quantized input scale a little differently
    torch.testing.assert_close(levels(layered, "fire1"), levels(whole, "fire1"), rtol=0.02, atol=1e-6)


def test_weights_without_a_scale_to_share(net, images) -> None:
    with pytest.raises(
        SpecError, match=r"'fire1' shares its scale with the weights of 'conv1\.0', which are full prec"
    ):
        quantize_(copy.deepcopy(net), QuantSpec(weights=W4, membrane={"method": "mint", "bits": 4}), images[0])
    for weights in ({"method": "lqnet", "bits": 2}, {"method": "uniform", "bits": 2}):
        spec = QuantSpec(weights=weights, membrane={"method": "mint", "bits": 4}, first_layer="quantize")
        with pytest.raises(SpecError, match=r"whose levels must be multiples of one step, got .*; take") as told:
            quantize_(copy.deepcopy(net), spec, images[0])
        assert "\n" not in str(told.value)
    spec = QuantSpec(weights=W4, membrane={"method": "mint", "bits": 4}, first_layer="quantize", reestimate_bn="always")
    with pytest.raises(SpecError, match=r"'fire1' share the scale .* use reestimate_bn = 'weights'"):
        quantize_(copy.deepcopy(net), spec, images[0])
    with torch.no_grad():
        net.conv1[1].weight[2] = 0.0
    with pytest.raises(SpecError, match="'fire1' has no scale to share in channel 2"):
        quantize_(copy.deepcopy(net), spec_of("mint"), images[0])


# -- what comes after quantization -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "placement"), [("lsq", "pre_fire"), ("lqnet", "post_reset"), ("mint", "post_reset")])
def test_integers_and_graphs_fire_as_the_network(name: str, placement: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
    x = torch.randn(48, 1, 8, 8)
    net.train()(x)
    membrane = {"method": name, "bits": 3, "placement": placement}
    spec = QuantSpec.from_dict(
        {"weights": W4, "membrane": membrane, "first_layer": "quantize", "last_layer": "quantize"}
    )
    model = quantize_(net.eval(), spec, x)
    found = differences(model, lower(model, x[:8]), [x[:16]])
    assert sum(layer.differ for layer in found.layers.values()) == 0
    nir.write(tmp_path / "net.nir", model, x[:1])
    with torch.no_grad():
        assert torch.equal(nir.read(tmp_path / "net.nir")(x), model(x))
