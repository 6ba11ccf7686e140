"""What an adapter says of its neurons is held against what they do, where that can be seen."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import Adapter, Framework, Layout, MembraneMixin, register, run_self_test, unregister
from isofire.adapters.framework import FRAMEWORKS, register_framework
from isofire.errors import ModelError
from isofire.neurons import PerStep, Repeat

PLACEMENTS: list[Any] = ["pre_fire", "post_reset"]


class Cell(nn.Module):
    """Leaky, fires from `at` on (each neuron from its own), several spikes a step if so made; hard reset to `to`."""

    def __init__(self, at: Any = 1.0, to: float | None = 0.0, several: bool = False, noise: float = 0.0) -> None:
        super().__init__()
        self.at, self.to, self.several, self.noise = torch.as_tensor(at), to, several, noise

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            v = self.look(0.5 * v + step, "pre_fire")
            heard = v + self.noise * torch.randn_like(v)
            fired = (heard / self.at).floor().clamp(min=0) if self.several else (heard >= self.at).to(v.dtype)
            v = v - fired * self.at if self.to is None else torch.where(fired > 0, self.to, v)
            v = self.look(v, "post_reset")
            spikes.append(fired)
        return torch.stack(spikes)

    def look(self, v: Tensor, placement: str) -> Tensor:
        return v


class Heard(MembraneMixin):
    def look(self, v: Tensor, placement: str) -> Tensor:
        return self.membrane(v) if self.membrane.placement == placement else v


class Says(Adapter):
    """Answers what it is told to."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"threshold": torch.tensor(1.0), "v_reset": 0.0, "several": False, "host": Heard, **answers}

    def layout(self, neuron: nn.Module) -> Any:
        return self.answers.get("layout", Layout.TIME_FIRST)

    def threshold(self, neuron: nn.Module) -> Any:
        return self.answers["threshold"]

    def v_reset(self, neuron: nn.Module) -> Any:
        return self.answers["v_reset"]

    def several(self, neuron: nn.Module) -> Any:
        return self.answers["several"]

    def host(self, neuron: nn.Module) -> Any:
        if self.answers["host"] is NotImplementedError:
            raise NotImplementedError("no host")
        return self.answers["host"]

    def refusal(self, neuron: nn.Module, placement: Any) -> str | None:
        return self.answers.get(placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    "answer",
    [
        {"threshold": 1.0},
        {"threshold": None},
        {"threshold": torch.tensor(1)},
        {"threshold": torch.tensor(float("nan"))},
        {"threshold": torch.zeros(0)},
        {"v_reset": "a"},
        {"v_reset": float("nan")},
        {"v_reset": torch.tensor(0.0)},
        {"several": None},
        {"layout": "TNC"},
        {"layout": None},
        {"host": None},
        {"host": nn.Module},
        {"host": NotImplementedError},
    ],
    ids=str,
)
def test_an_answer_of_another_kind_is_refused_by_the_name_of_its_method(answer: dict, placement: Any) -> None:
    (method,) = answer
    told = rf"the adapter of 'n' \(Cell\) is wrong: {method}\(\) (must give|failed: NotImpl).*; mend Says of {__name__}"
    with pytest.raises(ModelError, match=told):
        run_self_test("n", Cell(), Says(**answer), placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("true", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("factor", [1e-3, 0.3, 0.9, 1.0, 1.1, 3.0, 1e3])
def test_a_threshold_is_where_the_neuron_begins_to_fire(true: float, factor: float, placement: Any) -> None:
    says = Says(threshold=torch.tensor(true * factor))
    if factor == 1.0:
        run_self_test("n", Cell(true), says, placement)
        return
    with pytest.raises(
        ModelError, match=rf"threshold\(\) gives {true * factor:g}, but from rest it (fires from|does not)"
    ):
        run_self_test("n", Cell(true), says, placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_threshold_of_each_neuron_is_compared_neuron_by_neuron(placement: Any) -> None:
    each = torch.tensor([0.5, 1.0, 2.0])
    run_self_test("n", Cell(each), Says(threshold=each), placement)
    with pytest.raises(ModelError, match=r"threshold\(\) gives 0.5 to 2, but"):
        run_self_test("n", Cell(each), Says(threshold=each.flip(0)), placement)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("true", [0.0, -0.5, None])
@pytest.mark.parametrize("said", [0.0, -0.5, None])
def test_a_reset_is_where_the_membrane_is_after_a_spike(true: Any, said: Any, placement: Any) -> None:
    if true == said:
        run_self_test("n", Cell(to=true), Says(v_reset=said), placement)
        return
    where = "from .* to" if true is None else f"at {true:g}"
    with pytest.raises(
        ModelError, match=rf"v_reset\(\) gives {said if said is None else f'{said:g}'}.* membrane is {where}"
    ):
        run_self_test("n", Cell(to=true), Says(v_reset=said), placement)


def test_several_spikes_a_step_are_said() -> None:
    soft = {"v_reset": None}
    run_self_test("n", Cell(to=None, several=True), Says(several=True, **soft), "pre_fire")
    with pytest.raises(ModelError, match=r"spikes in a step, so several\(\) must give True"):
        run_self_test("n", Cell(to=None, several=True), Says(**soft), "pre_fire")


def test_what_cannot_be_seen_is_not_refused() -> None:
    """A neuron that fires at random, and a place that the adapter refuses."""
    run_self_test("n", Cell(noise=0.1), Says(threshold=torch.tensor(0.9)), "pre_fire")
    run_self_test("n", Cell(), Says(threshold=torch.tensor(0.9), pre_fire="it has no place there"), "post_reset")


class Twice(MembraneMixin):
    def look(self, v: Tensor, placement: str) -> Tensor:
        return self.membrane(self.membrane(v)) if self.membrane.placement == placement else v


@pytest.mark.parametrize(("host", "calls"), [(Twice, 10), (type("Never", (MembraneMixin,), {}), 0)])
def test_a_host_that_is_wrong_is_to_be_mended(host: Any, calls: int) -> None:
    with pytest.raises(
        ModelError, match=rf"called {calls} times in 5 steps .*; mend host\(\) of Says, or leave it float"
    ):
        run_self_test("n", Cell(), Says(host=host), "pre_fire")


def test_an_adapter_that_only_records_needs_no_host() -> None:
    why = "Cell has no place for it"
    register(Cell, Says(host=NotImplementedError, pre_fire=why, post_reset=why))
    try:
        net = nn.Sequential(Repeat(4), PerStep(nn.Linear(8, 6)), Cell(), PerStep(nn.Linear(6, 3)))
        x, y = 3 * torch.rand(40, 8), torch.zeros(40, dtype=torch.long)
        weights = isofire.QuantSpec(weights={"method": "lsq", "bits": 2}, first_layer="quantize")
        quantized = isofire.quantize_(copy.deepcopy(net), weights, x)
        assert isofire.compare(net, quantized, (x, y)).overall["emd_weighted"] > 0
        with pytest.raises(ModelError, match=rf"{why}; leave it float by a rule \(match '2', membrane 'float'\)$"):
            isofire.quantize_(net, isofire.QuantSpec(membrane={"bits": 3}), x)
    finally:
        unregister(Cell)


@pytest.mark.parametrize("layout", ["TNC", None])
def test_a_layout_that_is_none_is_told_where_spikes_are_counted(layout: Any) -> None:
    register(Cell, Says(layout=layout))
    try:
        net = nn.Sequential(Repeat(4), PerStep(nn.Linear(8, 6)), Cell())
        told = r"layout\(\) of Says must give a Layout \(Layout.TIME_FIRST, .*got"
        with pytest.raises(ModelError, match=told), isofire.FiringRecorder(net):
            net(torch.rand(2, 8))
    finally:
        unregister(Cell)


class Odd(Framework):
    title, module = "oddsnn", "oddsnn"

    def __init__(self, answer: Callable[[nn.Module], Any]) -> None:
        self.answer = answer

    def adapter_of(self, module: nn.Module) -> Any:
        return self.answer(module)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[nn.Module], Any]], None]]:
    monkeypatch.setitem(sys.modules, "oddsnn", ModuleType("oddsnn"))
    yield lambda answer: register_framework("oddsnn", Odd(answer))
    FRAMEWORKS.unregister("oddsnn")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda module: "yes", "must give an object of a class of Adapter or None, got 'yes'"),
        (lambda module: Says, "must give an object of a class of Adapter or None, got <class"),
        (lambda module: module.nothing, "failed: AttributeError: .*; mend or uninstall its package"),
    ],
)
def test_a_framework_that_gives_no_adapter_is_named(answer: Any, told: str, odd: Any) -> None:
    odd(answer)
    with pytest.raises(ModelError, match=rf"adapter_of\(\) of the framework oddsnn \({__name__}\), given a .*{told}"):
        isofire.firing.spiking_layers(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_readouts_that_never_fire_are_named_with_the_rule_that_leaves_them(placement: str) -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    membrane = {"bits": 4, "range": (-2.0, 2.0), "placement": placement}

    def build() -> nn.Module:
        readout = neuron.LIFNode(v_threshold=float("inf"), step_mode="m", store_v_seq=True)
        return nn.Sequential(neuron.LIFNode(step_mode="m"), readout)

    with pytest.raises(ModelError, match=r"threshold of '1' \(LIFNode\) is not finite.*match = \"1\""):
        isofire.prepare(build(), isofire.QuantSpec(membrane=membrane))
    rule = {"match": "1", "membrane": "float"}
    assert isofire.prepare(build(), isofire.QuantSpec(membrane=membrane, rules=[rule])) is not None
