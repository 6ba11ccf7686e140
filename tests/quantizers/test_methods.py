"""What every registered method promises, for weights and for membranes, whoever registered it."""

from __future__ import annotations

import copy
import math
import typing

import pytest
import torch
from torch import Tensor

from isofire.adapters import adapter_of
from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, MembraneQuantizer
from isofire.quantization import labels_of
from isofire.quantizers import (
    MEMBRANES,
    WEIGHTS,
    Levels,
    MembraneSetting,
    NeuronFacts,
    Quantizer,
    RangeObserver,
    Setting,
    TemporalQuantizer,
    WeightSetting,
    register_membrane,
    register_weights,
)
from isofire.quantizers.weight_scale import WeightScale
from isofire.spec import QuantSpec

LAYOUTS = ("tensor", "channel")


def settings_of(kind: type[Setting], granularity: str = "channel") -> dict[str, object]:
    """3 bits, where the method has such a choice."""
    given = {"bits": 3, "granularity": granularity, "range": "mse"}
    return {key: value for key, value in given.items() if key in kind.__struct_fields__}


def setting_of(kind: type[Setting], granularity: str = "channel") -> Setting:
    return kind(**settings_of(kind, granularity))


def weights() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-2, 0, 6)[:, None, None, None]


@pytest.mark.parametrize("name", list(WEIGHTS))
@pytest.mark.parametrize("granularity", LAYOUTS)
def test_a_weight_method(name: str, granularity: str) -> None:
    setting = setting_of(WEIGHTS[name], granularity)
    assert setting.method == name
    w = weights()
    quantizer = setting.build(6)
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.calibrate(w)
    # a state dict fits what is freshly built, and copies are independent
    assert {key: value.shape for key, value in before.items()} == {
        key: value.shape for key, value in quantizer.state_dict().items()
    }
    quantizer.eval()
    with torch.no_grad():
        q, codes, levels = quantizer(w), quantizer.codes(w), quantizer.levels()
    steps = setting.time_steps
    assert isinstance(quantizer, TemporalQuantizer) == (steps is not None)
    assert q.shape == (w.shape if steps is None else (steps, *w.shape))
    assert codes.shape == q.shape
    assert torch.equal(quantizer.decode(codes), q)
    count = levels.shape[-1]
    assert 0 <= int(codes.min()) <= int(codes.max()) < count
    assert setting.stored_bits == math.ceil(math.log2(count))
    assert levels.shape[-2] == setting.groups(6)
    assert setting.table_numbers(setting.groups(6)) >= 1
    shared = levels.expand(*q.shape[: q.ndim - 3], count)
    assert torch.equal(shared.gather(-1, codes.flatten(-3).long()).view_as(q), q)
    fresh = setting.build(6).eval()
    fresh.load_state_dict(quantizer.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(w), q)
    x = w.clone().requires_grad_()
    quantizer.train()(x).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    spoiled = w.clone()
    spoiled[0, 0, 0, 0] = math.nan
    with pytest.raises(ModelError, match="NaN"):
        quantizer(spoiled)


NEURONS = {
    "hard": lambda: LIF(),
    "rest": lambda: LIF(3.0, v_threshold=0.6, v_reset=-0.2),
    "soft": lambda: IF(v_threshold=1.5, v_reset=None),
}


def calibrated(setting: MembraneSetting, states: Tensor, facts: NeuronFacts) -> Quantizer:
    quantizer = setting.build_for(1, facts)
    if setting.shares_scale:
        setting.take_scale(quantizer, WeightScale(torch.linspace(0.05, 0.2, 5).double(), 7, 1.0))
    elif setting.is_estimated:
        observer = RangeObserver(quantizer.granularity, channel_axis=1)
        for part in states.split(3):
            observer.observe(part)
        setting.calibrate(quantizer, observer)
    return quantizer


@pytest.mark.parametrize("kind", list(NEURONS))
@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
@pytest.mark.parametrize("granularity", LAYOUTS)
@pytest.mark.parametrize("name", list(MEMBRANES))
def test_a_membrane_method(name: str, granularity: str, placement: str, kind: str) -> None:
    for field, value in (("granularity", granularity), ("placement", placement)):
        allowed = typing.get_type_hints(MEMBRANES[name])[field].__args__
        if value not in allowed:
            with pytest.raises(SpecError, match=rf"{field}: must be {allowed[0]}, got '{value}'"):
                MEMBRANES[name](**{**settings_of(MEMBRANES[name], "channel"), field: value})
            return
    setting = MEMBRANES[name](**{**settings_of(MEMBRANES[name], granularity), "placement": placement})
    assert isinstance(setting, MembraneSetting)
    assert setting.method == name
    neuron = NEURONS[kind]()
    adapter = adapter_of(neuron)
    assert adapter is not None
    states = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.3, 1.5, 5)[:, None]
    quantizer = calibrated(setting, states, adapter.facts(neuron)).eval()
    with torch.no_grad():
        q = quantizer(states)
        assert q.shape == states.shape
        assert torch.equal(quantizer.decode(quantizer.codes(states)), q)
        assert quantizer.levels().shape[1] <= 2**setting.stored_bits
        assert setting.stored_bits == math.ceil(math.log2(quantizer.levels().shape[1]))
        table = quantizer.table()
        assert table is not None
        assert torch.equal(table.quantize(states, quantizer.axis), q)
    assert setting.table_numbers(setting.groups(5)) >= 1
    # a quantizer that was built for any number of channels takes those of a file
    fresh = setting.build_for(1, adapter.facts(neuron)).eval()
    fresh.load_state_dict(quantizer.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(states), q)
    # the compiled kernels, torch's path and the reference are one
    neuron.membrane = MembraneQuantizer(quantizer, placement)
    x = torch.randn(4, 8, 5, 4, generator=torch.Generator().manual_seed(2)) * 1.5 + 0.5
    with torch.no_grad():
        spikes = neuron(x)
        for backend in ("native", "torch", "reference"):
            neuron.backend = backend
            assert torch.equal(neuron(x), spikes), backend
    # and in training there is a gradient, for inputs and for what the method learns
    neuron.backend = "auto"
    quantizer.train()
    leaf = x.clone().requires_grad_()
    neuron(leaf).square().sum().backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())
    assert float(leaf.grad.abs().sum()) > 0
    for parameter in quantizer.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())
        assert float(parameter.grad.abs().sum()) > 0


@pytest.mark.parametrize("target", ["weights", "membrane"])
def test_the_label_of_a_row_begins_with_the_tag(target: str) -> None:
    for name, kind in (WEIGHTS if target == "weights" else MEMBRANES).items():
        spec = QuantSpec(**{target: setting_of(kind)})
        labels = labels_of(spec)
        assert str(labels["method"]).startswith(name)
        assert QuantSpec.from_dict(spec.to_dict()) == spec
        assert getattr(spec, target).describe().startswith(name)


def test_a_method_of_ones_own() -> None:
    class Halves(WeightSetting, frozen=True, kw_only=True, tag="halves"):
        width: float = 1.0

        def build(self, channels: int) -> Levels:
            return Levels([-self.width, self.width])

    register_weights(Halves)
    try:
        spec = QuantSpec.from_dict({"weights": {"method": "halves", "width": 2}})
        assert spec.weights == Halves(width=2.0)
        assert labels_of(spec)["options"] == "width=2.0"
        with pytest.raises(SpecError, match=r"^weights.widht: unknown key; did you mean 'width'"):
            QuantSpec(weights={"method": "halves", "widht": 2})
        with pytest.raises(SpecError, match=r"^weights.width: expected `float`, got 'wide'"):
            QuantSpec(weights={"method": "halves", "width": "wide"})
        with pytest.raises(SpecError, match=r"^width: expected `float`, got 'wide'"):
            Halves(width="wide")
    finally:
        WEIGHTS.unregister("halves")
    with pytest.raises(SpecError, match="unknown weight method 'halves'"):
        QuantSpec.from_dict(spec.to_dict())


def test_what_cannot_be_a_method() -> None:
    class NoPlace(MembraneSetting, frozen=True, kw_only=True, tag="no_place"):
        bits: int = 2

        def build(self, channels: int) -> Levels:
            return Levels(2**self.bits)

    with pytest.raises(SpecError, match="must have the fields placement, granularity, placement is missing"):
        register_membrane(NoPlace)
    with pytest.raises(SpecError, match=r"must be a subclass of isofire\.quantizers\.WeightSetting"):
        register_weights(NoPlace)
    with pytest.raises(SpecError, match="a method is a subclass of"):
        register_weights(Levels)  # type: ignore[type-var]
    with pytest.raises(SpecError, match="registered already"):
        register_weights(type("Other", (WEIGHTS["lsq"],), {"__module__": __name__}, tag="lsq", frozen=True))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({}, r"weights: needs a method, one of gptq, levels, lqnet, lsq, tawq, uniform"),
        ({"method": 3}, "unknown weight method 3"),
        ("lsq", "weights: must be a table"),
        ({"method": "levels"}, "give either bits or levels"),
        ({"method": "levels", "bits": 2, "levels": 3}, "give either bits or levels"),
        ({"method": "levels", "levels": [0, 1], "edges": [0, 1]}, "2 levels have 1 edges"),
        ({"method": "levels", "levels": 300}, "2 to 256 levels"),
        ({"method": "lsq", "bits": True}, "weights.bits: expected `int`, got True"),
    ],
)
def test_weights_that_are_no_setting(setting: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        QuantSpec(weights=setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "place", "message"),
    [
        ({"options": {"bits": 3}}, "options.bits", "is a key of gptq itself (bits = 2), got 3 as an option; give bits"),
        ({"options": {"granularity": "tensor"}}, "options.granularity", "is a key of gptq itself"),
        ({"options": {"method": "lsq"}}, "options.method", "is a key of gptq itself (levels = 'uniform')"),
        ({"options": {"gird": "midtread"}}, "options.gird", "unknown key; did you mean 'grid'? known here: grid,"),
        ({"options": {"grid": "mdtread"}}, "options.grid", "must be endpoint, midrise"),
        ({"levels": "lqnett"}, "levels", "unknown weight method 'lqnett'; did you mean 'lqnet'?"),
        ({"levels": "gptq"}, "levels", "those of gptq must be another method's, got 'gptq'"),
        (
            {"levels": "tawq"},
            "levels",
            "those of gptq must be a method's that has the keys bits and granularity, 'tawq' has no bits and no "
            "granularity; take levels or lqnet or lsq or uniform",
        ),
        ({"levels": "tawq", "options": {"steps": 2}}, "levels", "those of gptq must be a method's that has"),
    ],
)
def test_options_of_gptq_are_the_levels_own_and_their_place_is_told_once(
    setting: dict[str, object], place: str, message: str
) -> None:
    given = {"method": "gptq", "bits": 2, **setting}
    with pytest.raises(SpecError) as told:
        QuantSpec(weights=given)
    assert str(told.value).startswith(f"weights.{place}: {message}")
    with pytest.raises(SpecError) as told:
        QuantSpec.from_dict({"membrane": {"bits": 2}, "rules": [{"match": "fc", "weights": given}]})
    assert str(told.value).startswith(f"rules[0].weights.{place}: {message}")


def test_settings_of_the_other_target_are_refused() -> None:
    with pytest.raises(SpecError, match="membrane: takes no LSQWeights"):
        QuantSpec(membrane=WEIGHTS["lsq"](bits=2))  # type: ignore[arg-type, call-arg]


@pytest.mark.parametrize(
    ("grid", "numbers"), [("endpoint", 2), ("midtread", 1), ("twos_complement", 1), ("midrise", 1)]
)
def test_grids_that_are_a_step_and_bits_store_no_offset(grid: str, numbers: int) -> None:
    for quantized in ("weights", "membrane"):
        spec = QuantSpec.from_dict({quantized: {"method": "uniform", "bits": 4, "grid": grid}})
        assert getattr(spec, quantized).table_numbers(6) == 6 * numbers
    compensated = QuantSpec.from_dict({"weights": {"method": "gptq", "bits": 4, "options": {"grid": grid}}})
    assert compensated.weights is not None
    assert compensated.weights.table_numbers(6) == 6 * numbers
