"""Neurons that see some images of a batch alone, or are called inside of vmap, are refused by name, with what helps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn
from torch.func import grad, vmap

from isofire.adapters import input_axis
from isofire.errors import ModelError
from isofire.firing import FiringRecorder, compare
from isofire.firing.cost import measure_cost
from isofire.firing.timing import compare_timing
from isofire.neurons import LIF

T, X, Y = 5, torch.rand(17, 6, generator=torch.Generator().manual_seed(0)) * 3, torch.arange(17) % 3
DATA = X, Y
MASK = r"give each of these all images and mask what comes out"
OUT = r"'n' is called inside of torch.func.vmap.*take the neuron out of vmap"


class Experts(nn.Module):
    """Two experts with neurons of their own.

    Parameters
    ----------
    how
        rows: each gets those sent to it; steps: all steps in one call; mask: each gets all, and is masked.
    last
        A layer that sees all images comes after the experts, and not before them.
    """

    def __init__(self, how: str, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.how, self.last = how, last
        self.a, self.gate, self.out = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.n = Step()
        self.each = nn.ModuleList(LIF(v_threshold=0.3) if how == "steps" else Step() for _ in range(2))
        with torch.no_grad():
            self.gate.bias.sub_(self.gate(X).mean(0))

    def forward(self, x: Tensor) -> Tensor:
        sent = self.gate(x).argmax(1)
        if self.how == "steps":
            hidden = torch.stack([self.n(self.a(x)) for _ in range(T)])
            made = torch.zeros_like(hidden)
            for i, (expert, neuron) in enumerate(zip(self.experts, self.each, strict=True)):
                made[:, sent == i] = neuron(expert(hidden[:, sent == i]))
            return self.out(made)
        return torch.stack([self.step(x, sent) for _ in range(T)])

    def step(self, x: Tensor, sent: Tensor) -> Tensor:
        hidden = self.a(x) if self.last else self.n(self.a(x))
        made = torch.zeros_like(hidden)
        for i, (expert, neuron) in enumerate(zip(self.experts, self.each, strict=True)):
            if self.how == "mask":
                made = made + neuron(expert(hidden)) * (sent == i)[:, None]
            else:
                made[sent == i] = neuron(expert(hidden[sent == i]))
        return self.out(self.n(made) if self.last else made)


class Mapped(nn.Module):
    """Steps of a neuron inside of vmap, or outside, on the same numbers."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.how, self.a, self.n, self.out = how, nn.Linear(6, 6), Step(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "around":
            return torch.stack([vmap(self.out)(self.n(vmap(self.a)(x))) for _ in range(T)])
        if self.how == "inside":
            return torch.stack([vmap(lambda row: self.out(self.n(self.a(row))))(x) for _ in range(T)])
        each = vmap(grad(lambda row: self.out(self.n(self.a(row))).sum()))
        return torch.stack([self.out(each(x)) for _ in range(T)])


def record(model: nn.Module) -> object:
    with FiringRecorder(model) as recorder, torch.no_grad():
        model(X)
    return recorder.counts


CALLERS: dict[str, Callable[[nn.Module], object]] = {
    "record": record,
    "compare": lambda model: compare(model, model, DATA),
    "compare one by one": lambda model: compare(model, model, DATA, batch_size=1),
    "timing": lambda model: compare_timing(model, model, DATA),
    "cost": lambda model: measure_cost(model, DATA),
    "cost one by one": lambda model: measure_cost(model, DATA, batch_size=1),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("how", ["rows", "steps"])
def test_experts_that_see_some_images_are_named_with_a_cure(how: str, last: bool, caller: str) -> None:
    model = Experts(how, last).eval()
    assert model(X).isfinite().all()
    with pytest.raises(ModelError, match=rf"neurons must see all images of the batch, .*'each\.\d'.*{MASK}"):
        CALLERS[caller](model)


def test_both_numbers_of_images_and_the_batch_are_given() -> None:
    seen = int((Experts("rows").gate(X).argmax(1) == 0).sum())
    assert 0 < seen < 17
    with pytest.raises(ModelError, match=rf"'n' saw N = 17 and 'each.0' N = {seen} of a batch \[17, 6\]; "):
        record(Experts("rows"))
    with pytest.raises(ModelError, match=rf"'each.0' saw N = {seen} and 'each.1' N = {17 - seen} of a batch"):
        record(Experts("rows", last=True))
    model = Experts("rows")
    with pytest.raises(ModelError, match=r"'each\.\d' saw N = 0 of a batch \[1, 6\]; "), FiringRecorder(model):
        model(X[:1])


def test_parts_that_one_layer_sees_as_images_are_to_have_an_axis() -> None:
    class Folds(Mapped):
        def __init__(self) -> None:
            super().__init__("folds")
            self.last = Step()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.n(self.a(x)).view(2 * len(x), 3))

    with pytest.raises(ModelError, match=r"'n' saw N = 17 and 'last' N = 34 .*parts .* an axis of their own"):
        record(Folds())


@pytest.mark.parametrize("caller", CALLERS)
def test_masked_experts_are_the_cure(caller: str) -> None:
    routed, masked = Experts("rows").eval(), Experts("mask").eval()
    assert torch.allclose(routed(X), masked(X), atol=1e-5)
    CALLERS[caller](masked)


@pytest.mark.parametrize("images", [1, 5, 17])
def test_layers_that_see_all_images_are_compared_alone(images: int) -> None:
    found = compare(Experts("rows").eval(), Experts("mask").eval(), DATA, batch_size=images, layers=["n"])
    assert found.n_images == 17
    assert found.overall["emd_layer_mean"] == 0
    assert found.agreement == 1


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("how", ["inside", "of a gradient"])
def test_neurons_inside_of_vmap_are_named_with_a_cure(how: str, caller: str) -> None:
    with pytest.raises(ModelError, match=OUT):
        CALLERS[caller](Mapped(how).eval())


@pytest.mark.parametrize("caller", CALLERS)
def test_vmap_around_the_layers_alone_is_the_cure(caller: str) -> None:
    CALLERS[caller](Mapped("around").eval())


def test_an_axis_that_cannot_be_told_for_vmap_says_so() -> None:
    with pytest.raises(ModelError, match=OUT):
        input_axis(Mapped("inside").eval(), X[:6])
