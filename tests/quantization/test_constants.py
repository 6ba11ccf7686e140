"""Decays, thresholds and biases as targets: rounded as methods say, trained, saved, blamed, undone."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire import QuantSpec
from isofire.errors import SpecError
from isofire.firing.cost.memory import memory_of
from isofire.models import build, load_model, save_model
from isofire.neurons import IF, LIF, CubaLIF, Neuron, ParametricLIF, PerStep, Repeat
from isofire.quantization import is_converted, labels_of, make_plan, prepare
from isofire.study import blame

TAUS = (3.0, 5.0)


def net(**_: Any) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        Repeat(6), PerStep(nn.Flatten(), nn.Linear(64, 30)), LIF(TAUS[0], v_threshold=0.3, v_reset=None),
        PerStep(nn.Linear(30, 20)), CubaLIF(TAUS[1], 1.9, v_threshold=torch.linspace(0.4, 0.9, 20)),
        PerStep(nn.Linear(20, 10)), IF(),
    ).eval()  # fmt: skip


def quantized(model: nn.Module | None = None, **spec: Any) -> Any:
    spec = {"last_layer": "quantize", "first_layer": "quantize"} | spec
    return isofire.quantize_(net() if model is None else model, QuantSpec(**spec))


def images(count: int = 40) -> Tensor:
    return next(iter(isofire.data.load("digits", "test").first(count).batches(count)))[0]


def test_shifts_are_the_nearest_powers_of_two() -> None:
    model = quantized(decays={"method": "bitshift"})
    # log2 3 = 1.58 -> 2; log2 5 = 2.32 -> 2; log2 1.9 = 0.93 -> 1
    assert model[2].dynamics.tau == 4.0
    assert (float(model[4].tau_mem), float(model[4].tau_syn)) == (4.0, 2.0)
    # t = -1 / ln(1 - 1 / 3) = 2.47, log2 = 1.30; of 1.9: 1.34, log2 = 0.42 -> 0: the current is forgotten
    model = quantized(decays={"method": "bitshift", "by": "log2"})
    assert model[2].dynamics.tau == 2.0
    assert float(model[4].tau_syn) == 1.0


def test_fractions_are_the_nearest_parts() -> None:
    model = quantized(decays={"method": "fraction", "bits": 4})
    assert model[2].dynamics.tau == pytest.approx(16 / round(16 / 3))
    assert float(model[4].tau_syn) == pytest.approx(16 / round(16 / 1.9))
    # what leaks at all does not come to leak nothing
    slow = nn.Sequential(PerStep(nn.Linear(4, 3)), LIF(500.0))
    assert quantized(slow, decays={"method": "fraction", "bits": 3})[1].dynamics.tau == 8.0


def test_thresholds_and_biases_are_fixed_point_numbers() -> None:
    spec = {"method": "fixed", "bits": 5, "fraction": 3}
    model, before = quantized(thresholds=spec, biases=spec), net()
    assert model[2].dynamics.v_threshold == 0.25
    assert model[4].v_threshold.tolist() == [round(8 * t) / 8 for t in torch.linspace(0.4, 0.9, 20).tolist()]
    expected = (before[1][1].bias * 8).round().clamp(-15, 15) / 8
    assert torch.equal(model[1][1].bias, expected)
    assert is_converted(model)
    assert "fixed" in str(make_plan(net(), QuantSpec(biases=spec, last_layer="quantize")))
    uniform = quantized(biases={"method": "uniform", "bits": 4})
    step = float(before[3][0].bias.detach().abs().max()) / 7
    assert torch.allclose(uniform[3][0].bias, (before[3][0].bias / step).round() * step)


def test_the_l2_gain_corrects_thresholds_as_much_as_an_impulse_is_answered_more() -> None:
    def answered(tau: float) -> float:
        return math.sqrt(sum((1 / tau * (1 - 1 / tau) ** t) ** 2 for t in range(4000)))

    model = quantized(decays={"method": "bitshift", "gain": "l2"})
    assert model[2].dynamics.v_threshold == pytest.approx(0.3 * answered(4.0) / answered(3.0), rel=1e-6)
    ratio = model[4].v_threshold / net()[4].v_threshold
    assert float(ratio.std()) < 1e-6
    learned = nn.Sequential(PerStep(nn.Linear(4, 3)), ParametricLIF(3.0))
    with pytest.raises(SpecError, match="known and not learned"):
        quantized(learned, decays={"method": "bitshift", "gain": "l2"})


def test_a_learned_decay_is_rounded_in_every_call_and_still_learns() -> None:
    model = nn.Sequential(PerStep(nn.Linear(4, 3)), ParametricLIF(3.0), PerStep(nn.Linear(3, 2)))
    spec = QuantSpec(decays={"method": "bitshift"})
    trained = prepare(model, spec)
    assert float(trained[1].decay().detach()) == 0.25
    x = torch.rand(5, 2, 4) * 3
    trained(x).sum().backward()
    assert float(trained[1].w.grad.abs()) > 0
    with torch.no_grad():
        trained[1].w.fill_(0.0)
    assert float(trained[1].decay().detach()) == 0.5
    again = copy.deepcopy(isofire.convert(trained))
    assert torch.equal(again(x), trained(x))
    fast, slow = copy.deepcopy(again), copy.deepcopy(again)
    slow[1].backend = "reference"
    assert torch.equal(fast(x), slow(x))


def test_biases_are_trained_through_their_rounding() -> None:
    spec = QuantSpec(biases={"method": "fixed", "bits": 6, "fraction": 2}, last_layer="quantize")
    trained = prepare(net(), spec)
    assert not is_converted(trained)
    trained(images(4)).sum().backward()
    held: Any = trained[3][0].parametrizations["bias"]
    assert held.original.grad is not None
    assert float((trained[3][0].bias * 4 % 1).abs().max()) == 0.0
    assert not torch.equal(held.original, trained[3][0].bias)
    done = isofire.convert(trained)
    assert type(done[3][0]) is nn.Linear
    assert torch.equal(done(images(4)), trained(images(4)))
    # the copy that it came from is still prepared
    assert not is_converted(trained)


def test_what_fails_leaves_the_network_as_it_was() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SpecError, match=r"thresholds of '2' \(rule 'default'\).*a threshold of 0\.3 rounds to 0"):
        quantized(model, decays={"method": "bitshift"}, thresholds={"method": "fixed", "bits": 4, "fraction": 0})
    assert model[2].dynamics.tau == TAUS[0]
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"decays": {"method": "fixed", "bits": 4, "fraction": 1}}, "decays takes the methods bitshift, fraction"),
        ({"biases": {"method": "bitshift"}}, "biases takes the methods fixed, uniform"),
        ({"decays": {"method": "bitshift", "bits": 9}}, r"bits of a shift must lie in 1\.\.5"),
        ({"decays": {"method": "shift"}}, "unknown method of constants 'shift'"),
        ({"decays": "float"}, "must be a table"),
        ({"correct": "bias", "biases": {"method": "uniform", "bits": 4}}, "leave biases out"),
        ({"rules": [{"match": "6", "decays": {"method": "bitshift"}}]}, "sets decays of '6', which does not leak"),
        ({"rules": [{"match": "1.1", "decays": {"method": "bitshift"}}]}, "matches no layer of neurons"),
    ],
)
def test_settings_that_cannot_be_are_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make_plan(net(), QuantSpec(**spec))


def test_rules_say_which_layer() -> None:
    model = quantized(decays={"method": "bitshift"}, rules=[{"match": "2", "decays": "float"}])
    assert model[2].dynamics.tau == TAUS[0]
    assert float(model[4].tau_mem) == 4.0


def test_specs_without_constants_keep_their_hash_and_content() -> None:
    spec = QuantSpec(weights={"method": "lsq", "bits": 4}, rules=[{"match": "a", "weights": "float"}])
    assert spec.hash() == "d7a8d0bc21a9fb31"
    assert "decays" not in spec.to_dict()
    other = QuantSpec(decays={"method": "fraction"}, thresholds={"method": "uniform", "bits": 4})
    assert QuantSpec.from_dict(other.to_dict()) == other


def test_labels_name_the_targets() -> None:
    assert labels_of(QuantSpec(decays={"method": "bitshift"}))["target"] == "decays"
    labels = labels_of(
        QuantSpec(
            weights={"method": "lsq", "bits": 4}, membrane={"bits": 4}, decays={"method": "fraction", "gain": "l2"}
        )
    )
    assert (labels["target"], labels["method"], labels["bits"]) == (
        "both+decays", "lsq | uniform | fraction", "4 | 4 | 12",
    )  # fmt: skip
    assert "gain=l2" in str(labels["options"])
    # which bits are whose can be read, also where two targets have one method
    fixed = {"method": "fixed", "bits": 6, "fraction": 4}
    labels = labels_of(
        QuantSpec(weights={"method": "lsq", "bits": 4}, decays={"method": "bitshift"}, thresholds=fixed, biases=fixed)
    )
    assert labels["target"] == "weights+decays+thresholds+biases"
    assert (labels["method"], labels["bits"]) == ("lsq | bitshift | fixed | fixed", "4 | 4 | 6 | 6")
    uniform = {"method": "uniform", "bits": 4}
    labels = labels_of(QuantSpec(membrane={"bits": 4}, biases=uniform))
    assert (labels["method"], labels["bits"]) == ("uniform | uniform", "4 | 4")
    # rows of weights and membranes alone are as they were
    labels = labels_of(QuantSpec(weights=uniform, membrane={"bits": 4}))
    assert (labels["target"], labels["method"], labels["bits"]) == ("both", "uniform", 4)


def test_a_saved_file_gives_the_network_again(tmp_path: Path) -> None:
    for neuron, options in (("lif", {"tau": 3.0}), ("plif", {"init_tau": 3.0}), ("cuba_lif", {"tau_mem": 3.0})):
        torch.manual_seed(0)
        model = build({
            "builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1, "neuron": neuron,
            "neuron_options": options,
        })  # fmt: skip
        spec = {"reestimate_bn": "never", "decays": {"method": "bitshift"}, "biases": {"method": "uniform", "bits": 4}}
        quantized(model, thresholds={"method": "fixed", "bits": 8, "fraction": 2}, **spec)
        save_model(tmp_path / f"{neuron}.safetensors", model)
        again, _ = load_model(tmp_path / f"{neuron}.safetensors")
        assert torch.equal(again(images(6)), model(images(6)))
        first = next(module for module in again.modules() if isinstance(module, Neuron))
        assert float(first.decays()["membrane"]) == 0.25


def test_blame_names_the_decay_of_a_layer() -> None:
    torch.manual_seed(3)
    model = net()
    with torch.no_grad():
        for layer in (model[1][1], model[3][0], model[5][0]):
            layer.weight *= 4
    train, test = isofire.data.load("digits", "train"), isofire.data.load("digits", "test").first(60)
    # the decay of one layer is made wrong by far
    spec = QuantSpec(
        weights={"method": "uniform", "bits": 8}, first_layer="quantize", last_layer="quantize",
        rules=[{"match": "2", "decays": {"method": "bitshift", "bits": 1, "by": "log2"}}],
    )  # fmt: skip
    model[2] = LIF(20.0, v_threshold=0.3, v_reset=None, decay_input=False)
    found = blame(model, spec, train, test)
    worst = max(found.quantizers, key=lambda item: item.alone.overall["emd_layer_mean"])
    assert (worst.name, worst.target) == ("2", "decays")
    assert "2 decays" in found.table()


def test_memory_counts_rounded_biases() -> None:
    model = quantized(biases={"method": "uniform", "bits": 4})
    memory = memory_of(model, {"2": 30, "4": 20, "6": 10})
    assert memory.weights["3.0"].bias_bits == 4 * 20 + 32  # and its step


def test_thresholds_that_fixed_numbers_cannot_hold_are_refused_with_what_they_become() -> None:
    # 4 bits, 10 of them after the point: up to 7 / 1024
    with pytest.raises(SpecError, match=r"thresholds of '2' .*a threshold of 0\.3 lies beyond .*less than 0\.00732"):
        quantized(thresholds={"method": "fixed", "bits": 4, "fraction": 10})
    # to the nearest half
    few = {"method": "fixed", "bits": 4, "fraction": 1}
    with pytest.raises(SpecError, match=r"a threshold of 0\.2 rounds to 0, which a membrane at rest \(0\) has reached"):
        isofire.quantize_(nn.Sequential(PerStep(nn.Linear(4, 3)), LIF(2.0, v_threshold=0.2)), QuantSpec(thresholds=few))
    own = CubaLIF(2.0, 2.0, v_threshold=torch.tensor([0.6, 0.1, 0.2]))
    with pytest.raises(SpecError, match=r"a threshold of 0\.2 rounds to 0"):
        isofire.quantize_(nn.Sequential(PerStep(nn.Linear(4, 3)), own), QuantSpec(thresholds=few))
    # half a step beyond the largest rounds to it
    held = nn.Sequential(PerStep(nn.Linear(4, 3)), IF(v_threshold=3.7))
    assert isofire.quantize_(held, QuantSpec(thresholds=few))[1].dynamics.v_threshold == 3.5


def test_biases_that_are_cut_off_are_told() -> None:
    model = nn.Sequential(PerStep(nn.Linear(4, 3)), IF())
    with torch.no_grad():
        model[0][0].bias.copy_(torch.tensor([0.25, -3.0, 2.0]))  # type: ignore[index]
    spec = QuantSpec(
        biases={"method": "fixed", "bits": 4, "fraction": 3}, first_layer="quantize", last_layer="quantize"
    )
    with pytest.warns(UserWarning, match=r"2 of 3 biases of '0\.0' .*less than 0\.9375, and are cut off, .*3;"):
        rounded = isofire.quantize_(model, spec)
    assert rounded[0][0].bias.tolist() == [0.25, -0.875, 0.875]  # type: ignore[index]
