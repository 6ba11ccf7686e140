"""Which rule each module gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isofire import explain
from isofire.errors import ModelError, SpecError
from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import make_plan
from isofire.spec import QuantSpec

SPEC = QuantSpec(
    weights={"method": "lsq", "bits": 4},
    membrane={"bits": 4},
    rules=[
        {"match": "re:conv.*", "weights": {"method": "lsq", "bits": 8}},
        {"match": "re:conv2.*", "weights": {"method": "lsq", "bits": 6}},
        {"match": "conv2.0", "weights": {"method": "lsq", "bits": 2}},
        {"match": "fire2", "membrane": "float"},
    ],
)


def choices(net: nn.Module, spec: QuantSpec) -> dict[str, tuple]:
    return {c.name: (getattr(c.setting, "bits", None), c.rule) for c in make_plan(net, spec).choices}


def test_exact_beats_pattern_beats_policy_beats_default(net) -> None:
    assert choices(net, SPEC) == {
        "conv1.0": (8, "re:conv.*"),
        "fire1": (4, "default"),
        "conv2.0": (2, "conv2.0"),
        "fire2": (None, "fire2"),
        "hidden.1": (4, "default"),
        "fire3": (4, "default"),
        "head.0": (None, "last_layer = 'float'"),
    }


def test_first_and_last_layer_policy(net) -> None:
    spec = QuantSpec(weights={"method": "lsq", "bits": 4}, last_layer="quantize")
    found = choices(net, spec)
    assert found["conv1.0"] == (None, "first_layer = 'float'")
    assert found["head.0"] == (4, "default")
    assert found["fire1"] == (None, "default")


def test_an_earlier_pattern_beats_a_later_one(net) -> None:
    rules = [{"match": f"re:{m}.*", "weights": {"method": "lsq", "bits": b}} for m, b in (("conv2", 3), ("conv", 5))]
    found = choices(net, QuantSpec(weights={"method": "lsq", "bits": 4}, rules=rules))
    assert found["conv2.0"][0] == 3
    assert found["conv1.0"][0] == 5


def test_explain_prints_every_module_with_its_rule(net, capsys) -> None:
    explain(net, SPEC)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["module", "kind", "target", "setting", "rule"]
    assert [line.split()[0] for line in lines[2:]] == list(choices(net, SPEC))
    assert "uniform 4 bit endpoint [-1, 1] pre_fire per layer" in lines[3]
    assert lines[5].split()[-2:] == ["float", "fire2"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"match": "conv9", "weights": "float"},
            r"matches no layer with weights \(rules\[0\], match 'conv9'\); there are: conv1.0",
        ),
        ({"match": "re:conv1.*", "membrane": "float"}, "matches no layer of neurons"),
        ({"match": "re:conv1", "weights": "float"}, "matches no layer"),
        ({"match": "re:(", "weights": "float"}, "not a valid regular expression"),
        ({"match": "conv1.0"}, "must set weights, membrane, decays, thresholds or biases"),
    ],
)
def test_rules_that_do_nothing_are_errors(net, rule: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_plan(net, QuantSpec(weights={"method": "lsq", "bits": 4}, rules=[rule]))


def test_a_model_without_spiking_neurons_is_refused() -> None:
    with pytest.raises(ModelError, match="got Sequential without any"):
        make_plan(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), SPEC)


def test_a_default_that_reaches_nothing_is_an_error() -> None:
    model = nn.Sequential(Repeat(2), PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)))
    with pytest.raises(SpecError, match=r"weights setting reaches no module \('1\.0': first_layer = 'float'; '3\.0'"):
        make_plan(model, QuantSpec(weights={"method": "lsq", "bits": 4}))
    with pytest.raises(SpecError, match="quantizes nothing in this model"):
        make_plan(model, QuantSpec(rules=[{"match": "1.0", "weights": "float"}]))


def test_kinds_that_cannot_be_quantized_are_shown() -> None:
    model = nn.Sequential(PerStep(nn.ConvTranspose2d(1, 1, 3)), LIF())
    shown = make_plan(model, QuantSpec(membrane={"bits": 4})).choices
    assert [(c.name, c.rule) for c in shown] == [("0.0", "kind not supported"), ("1", "default")]


class Holder(nn.Module):
    """Weights of its own, beside attention that holds some."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention, self.fire = nn.Linear(4, 4), nn.MultiheadAttention(4, 2), LIF()
        self.back, self.gain, self.norm = (
            nn.Parameter(torch.ones(4, 4)),
            nn.Parameter(torch.ones(4)),
            nn.LayerNorm((2, 4)),
        )


def test_weights_that_a_module_holds_itself_are_listed() -> None:
    plan = make_plan(nn.Sequential(Holder()), QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize"))
    shown = [(item.name, item.kind) for item in plan.choices if item.rule == "kind not supported"]
    assert shown == [("0.back", "Holder"), ("0.attention.in_proj_weight", "MultiheadAttention")]
    assert [item.name for item in plan.choices if item.target == "membrane"] == ["0.fire"]
