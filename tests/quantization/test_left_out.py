"""Weights of kinds that no method takes are named where they stay in full precision."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire import QuantSpec
from isofire.errors import SpecError
from isofire.neurons import LIF, Repeat
from isofire.quantization import calibrate_, convert, left_out, make_plan, prepare_, restore_


class Mixed(nn.Module):
    """All kinds of weights: 4 x 4 that is quantized, and 4 x 8, 12 x 4 and 4 x 3 that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Linear(4, 4), nn.ConvTranspose1d(4, 4, 2)
        self.attention, self.fire = nn.MultiheadAttention(4, 2), LIF()
        self.mix, self.again, self.last = nn.Parameter(torch.ones(4, 3)), self.up, nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.up(x.unsqueeze(-1)).mean(-1)
        x = self.attention(*[x.unsqueeze(0)] * 3, need_weights=False)[0][0]
        return self.last(self.fire(x.expand(3, *x.shape)) @ self.mix)


WEIGHTS: dict[str, Any] = {"method": "lsq", "bits": 4}
TOTAL = 4 * 4 + 4 * 4 * 2 + 12 * 4 + 4 * 4 + 4 * 3 + 2 * 3
X = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))


def test_they_are_told_with_their_shares(caplog: pytest.LogCaptureFixture) -> None:
    model, spec = Mixed(), QuantSpec(weights=WEIGHTS, first_layer="quantize")
    found = left_out(model, make_plan(model, spec))
    assert [(item.name, item.kind, item.weights) for item in found] == [
        ("mix", "Mixed", 12), ("up", "ConvTranspose1d", 32), ("attention.in_proj_weight", "MultiheadAttention", 48),
    ]  # fmt: skip
    assert [item.share for item in found] == pytest.approx([12 / TOTAL, 32 / TOTAL, 48 / TOTAL])
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(model, spec, X)
    (told,) = [record.getMessage() for record in caplog.records if "not quantized" in record.message]
    assert "'up' (ConvTranspose1d, 24.6% of the weights)" in told
    assert "70.8 % of the network's weights" in told


def test_once_where_a_network_is_prepared_and_never_where_one_is_restored(caplog: pytest.LogCaptureFixture) -> None:
    spec = QuantSpec(weights=WEIGHTS, first_layer="quantize")
    with caplog.at_level(logging.WARNING):
        prepare_(Mixed(), spec)
        assert caplog.text.count("not quantized") == 1
        restore_(Mixed(), spec, converted=False)
        restore_(Mixed(), spec, converted=True)
    assert caplog.text.count("not quantized") == 1


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ([{"match": "up", "weights": "float"}], ["mix", "attention.in_proj_weight"]),
        ([{"match": "re:.*in_proj.*", "weights": "float"}], ["mix", "up"]),
        ([{"match": "re:up|mix|attention.*", "weights": "float"}], []),
        ([{"match": "re:.*", "membrane": "float"}], ["mix", "up", "attention.in_proj_weight"]),
    ],
)
def test_what_a_rule_leaves_float_is_not(rules: Any, left: list[str], caplog: pytest.LogCaptureFixture) -> None:
    spec = QuantSpec(weights=WEIGHTS, first_layer="quantize", rules=rules)
    model = Mixed()
    plan = make_plan(model, spec)
    assert [item.name for item in left_out(model, plan)] == left
    assert {choice.rule for choice in plan.choices if not choice.supported} <= {
        "kind not supported",
        rules[0]["match"],
    }
    with caplog.at_level(logging.WARNING):
        prepare_(model, spec)
    assert ("not quantized" in caplog.text) == bool(left)


def test_a_spec_of_membranes_alone_leaves_nothing_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepare_(Mixed(), QuantSpec(membrane={"bits": 4}))
    assert "not quantized" not in caplog.text


class LowRank(nn.Linear):
    """A product of two thin matrices beside the weight."""

    def __init__(self) -> None:
        super().__init__(4, 6)
        self.down, self.up = nn.Parameter(torch.rand(2, 4)), nn.Parameter(torch.rand(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


@pytest.mark.parametrize("names", [("weight_down", "weight_up"), ("weight_g", "weight_v"), ("weight_orig", "bias_up")])
def test_they_are_told_whatever_they_are_called(names: tuple[str, str]) -> None:
    layer = nn.Linear(6, 6)
    for name, shape in zip(names, [(2, 6), (6, 2)], strict=True):
        layer.register_parameter(name, nn.Parameter(torch.rand(shape)))
    model = nn.Sequential(layer, Repeat(2), LIF(), nn.Linear(6, 3))
    plan = make_plan(model, QuantSpec(weights=WEIGHTS, first_layer="quantize", last_layer="quantize"))
    assert [item.name for item in left_out(model, plan)] == [f"0.{name}" for name in names]


@pytest.mark.parametrize(
    ("rules", "left"), [([], ["0.down", "0.up"]), ([{"match": "0.up", "weights": "float"}], ["0.down"])]
)
def test_matrices_that_a_subclass_holds_beside_its_weight_are_told(
    rules: Any, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(LowRank(), Repeat(2), LIF(), nn.Linear(6, 3))
    spec = QuantSpec(weights=WEIGHTS, rules=rules, first_layer="quantize", last_layer="quantize")
    found, total = left_out(model, plan := make_plan(model, spec)), 4 * 6 + 2 * 4 + 6 * 2 + 6 * 3
    assert [(item.name, item.kind) for item in found] == [(name, "LowRank") for name in left]
    assert found[0].share == pytest.approx(2 * 4 / total)
    assert [choice.name for choice in plan.chosen("weights")] == ["0", "3"]
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(model, spec, X)
    assert f"'{left[0]}' (LowRank" in caplog.text
    assert [item.share for item in left_out(model, plan)] == [item.share for item in found]


class Tied(nn.Module):
    """Tokens are looked up in the weights that read out."""

    def __init__(self, between: bool = False) -> None:
        super().__init__()
        self.look, self.fire, self.read = nn.Embedding(11, 6), LIF(), nn.Linear(6, 11, bias=False)
        self.read.weight = self.look.weight
        self.again = nn.Linear(6, 11, bias=False) if between else self.read
        self.again.weight = self.look.weight

    def forward(self, x: Tensor) -> Tensor:
        z = self.fire(self.look(x).mean(1).repeat(3, 1, 1))
        return self.read(z) + self.again(z)


TOKENS = torch.randint(11, (8, 5), generator=torch.Generator().manual_seed(0))
ENDS = {"first_layer": "quantize", "last_layer": "quantize"}


def test_what_shares_its_weight_with_a_quantized_layer_is_told_to_be_parted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = isofire.quantize_(Tied(), QuantSpec(weights=WEIGHTS, **ENDS), TOKENS)
    assert "hold one each from now on" in caplog.text
    assert "'look' (float), 'read' (lsq 4 bit" in caplog.text
    assert "'look' (Embedding, 50.0% of the weights): 50.0 % of the network's" in caplog.text
    assert net.look.weight is not net.read.weight
    assert [item.share for item in left_out(net, make_plan(Tied(), QuantSpec(weights=WEIGHTS, **ENDS)))] == [0.5]


@pytest.mark.parametrize(("apart", "rules", "parted"), [
    (True, [], False),
    (True, [{"match": "again", "weights": {"method": "lsq", "bits": 2}}], True),
    (False, [{"match": "look", "weights": "float"}], True),
    (False, [{"match": "re:read|again", "weights": "float"}], False),
])  # fmt: skip
def test_layers_that_are_quantized_alike_stay_one(
    apart: bool, rules: Any, parted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    net = Tied(between=True)
    net.look = nn.Embedding(11, 6) if apart else net.look
    net.more = nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING):
        prepare_(net, QuantSpec(weights=WEIGHTS, rules=rules, **ENDS))
    assert ("hold one each from now on" in caplog.text) == parted


def test_bits_for_them_are_refused_as_before() -> None:
    with pytest.raises(SpecError, match=r"matches no layer with weights .*'up'"):
        make_plan(Mixed(), QuantSpec(weights=WEIGHTS, rules=[{"match": "up", "weights": WEIGHTS}]))


def test_shares_stay_once_a_network_is_prepared_and_converted() -> None:
    model = Mixed()
    spec = QuantSpec(weights=WEIGHTS | {"granularity": "channel"}, first_layer="quantize")
    plan = make_plan(model, spec)
    before = left_out(model, plan)
    prepare_(model, spec)
    assert left_out(model, plan) == before
    calibrate_(model, X)
    assert left_out(convert(model), plan) == before


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm,
                                    nn.utils.parametrizations.spectral_norm])  # fmt: skip
def test_normed_weights_count_as_those_that_they_make(normed: Any) -> None:
    model = Mixed()
    normed(model.last)
    normed(model.up)
    spec = QuantSpec(weights=WEIGHTS, first_layer="quantize", last_layer="float")
    found = left_out(model, make_plan(model, spec))
    assert {item.name: item.share for item in found} == pytest.approx(
        {"mix": 12 / TOTAL, "up": 32 / TOTAL, "attention.in_proj_weight": 48 / TOTAL}
    )


def test_a_weight_that_two_layers_share_counts_with_the_first() -> None:
    model = Mixed()
    model.tied = nn.ConvTranspose1d(4, 4, 2)
    model.tied.weight = model.up.weight
    found = left_out(model, make_plan(model, QuantSpec(weights=WEIGHTS, first_layer="quantize")))
    assert {item.name: item.share for item in found} == pytest.approx(
        {"mix": 12 / TOTAL, "up": 32 / TOTAL, "attention.in_proj_weight": 48 / TOTAL}
    )


class Plain(nn.Module):
    """Layers of 8 x 8 and 8 x 4 that no container of torch's holds, beside 6 x 8 and 8 x 3 that are parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fire, self.last = nn.Linear(6, 8), LIF(), nn.Linear(8, 3)
        self.mids = [(nn.Linear(8, 8), LIF()) for _ in range(2)]
        self.ways = {"a": nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8)), "again": self.mids[0][0]}
        self.known, self.round = [self.first], list[object]()
        self.round.append(self.round)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fire(self.first(x))
        for layer, fire in self.mids:
            x = fire(layer(x))
        return self.last(self.ways["a"](x))


def test_layers_in_plain_lists_and_dicts_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model, spec = Plain(), QuantSpec(weights=WEIGHTS, first_layer="quantize", last_layer="quantize")
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(model, spec, torch.rand(5, 8, 6))
    total = 6 * 8 + 8 * 3 + 2 * 8 * 8 + 2 * 8 * 4
    found = left_out(model, make_plan(model, spec))
    assert {item.name: item.share for item in found} == pytest.approx(
        {"mids[0][0]": 64 / total, "mids[1][0]": 64 / total, "ways['a'].0": 32 / total, "ways['a'].1": 32 / total}
    )
    assert f"{100 * 192 / total:.1f} % of the network's weights" in caplog.text
    assert "hold it in nn.ModuleList or nn.ModuleDict" in caplog.text
    assert "no weight method takes these kinds" not in caplog.text


class Reservoir(nn.Module):
    """4 x 6 weights that are no parameters; a table that is added, and a mask, are no weights."""

    def __init__(self, held: str, scaled: bool) -> None:
        super().__init__()
        self.held, self.scaled, weights = held, scaled, torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        self.register_buffer("buffer", weights)
        self.register_buffer("table", torch.rand(1, 6))
        self.register_buffer("mask", torch.ones(1, 6))
        self.plain, self.fire, self.last = weights.clone(), LIF(), nn.Linear(6, 2)
        self.register_buffer("radius", torch.tensor(0.9))

    def forward(self, x: Tensor) -> Tensor:
        weights = getattr(self, self.held)
        x = x @ (weights * self.radius if self.scaled else weights).t() + self.table
        return self.last(self.fire((x * self.mask).expand(3, *x.shape)))


@pytest.mark.parametrize("held", ["buffer", "plain"])
@pytest.mark.parametrize("scaled", [False, True])
def test_weights_that_are_no_parameters_are_told_where_a_pass_multiplies_with_them(
    held: str, scaled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    spec = QuantSpec(weights=WEIGHTS, first_layer="quantize", last_layer="quantize")
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(Reservoir(held, scaled), spec, X)
    (told,) = [record.getMessage() for record in caplog.records if "not quantized" in record.message]
    assert told.startswith(f"not quantized: '{held}' (24 numbers): multiplied like weights")


class Added(nn.Module):
    """Numbers that products add, and a parameter under a second name."""

    def __init__(self, product: str) -> None:
        super().__init__()
        self.product, self.fire, self.last = product, LIF(), nn.Linear(4, 2)
        self.register_buffer("table", torch.rand(8, 4))
        self.register_buffer("square", torch.rand(4, 4))
        self.weight = nn.Parameter(torch.rand(4, 4))
        self.__dict__["same"], self.seen = self.weight, self.weight.detach()

    def forward(self, x: Tensor) -> Tensor:
        table = self.table[: len(x)]
        match self.product:
            case "addmm":
                x = torch.addmm(table, x, self.weight)
            case "baddbmm":
                x = torch.baddbmm(table.unsqueeze(0), x.unsqueeze(0), self.weight.unsqueeze(0))[0]
            case "linear":
                x = nn.functional.linear(x, self.weight, self.table[1])
            case "shape":
                x = x + x @ torch.zeros_like(self.square)
            case _:
                x = x @ self.seen
        return self.last(self.fire(x.expand(3, *x.shape)))


@pytest.mark.parametrize("product", ["addmm", "baddbmm", "linear", "shape", "mm"])
def test_what_a_product_adds_and_parameters_by_another_name_are_not_told(
    product: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = QuantSpec(weights=WEIGHTS, first_layer="quantize", last_layer="quantize")
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(Added(product), spec, X)
    assert "multiplied like weights" not in caplog.text


@pytest.mark.parametrize("in_place", [True, False])
def test_a_memory_that_the_network_writes_is_not_told(in_place: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Hebbian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fire, self.last = nn.Linear(4, 4), LIF(), nn.Linear(4, 2)
            self.register_buffer("memory", torch.eye(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x) @ self.memory
            new = 0.9 * self.memory + 0.1 * x.t() @ x
            if in_place:
                self.memory.copy_(new)
            else:
                self.memory = new
            return self.last(self.fire(x.expand(3, *x.shape)))

    with caplog.at_level(logging.WARNING):
        isofire.quantize_(Hebbian(), QuantSpec(weights=WEIGHTS, first_layer="quantize"), X)
    assert "multiplied like weights" not in caplog.text


@pytest.mark.parametrize("tied", [lambda net: net.last.weight, lambda net: net.last.weight.detach()])
def test_quantized_weights_by_a_second_name_are_told(tied: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fire, self.last = nn.Linear(4, 4), LIF(), nn.Linear(4, 3)
            self.__dict__["tied"] = tied(self)

        def forward(self, x: Tensor) -> Tensor:
            x = self.last(self.fire(self.first(x).expand(3, *x.shape)))
            return x @ self.tied @ self.tied.t()

    spec = QuantSpec(weights=WEIGHTS, first_layer="quantize", last_layer="quantize")
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(Tied(), spec, X)
    assert "'tied' (12 numbers): multiplied like weights" in caplog.text


def test_a_spec_of_states_alone_tells_no_such_numbers(caplog: pytest.LogCaptureFixture) -> None:
    spec = QuantSpec(membrane={"method": "uniform", "bits": 4, "range": (-2, 2)})  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        isofire.quantize_(Reservoir("buffer", False), spec, X)
    assert "multiplied like weights" not in caplog.text
