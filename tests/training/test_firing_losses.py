"""Losses on rates, logits and membranes of two networks, against what they are by hand and by finite differences."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import wasserstein_distance
from torch import Tensor

from isofire.errors import ModelError, SpecError
from isofire.training import Pass, Step, register_loss
from isofire.training.losses import LOSSES, Loss, read_loss

SHAPES = {"a": (3, 2), "b": (5,)}


def layers(seed: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def step(rates: dict[str, Tensor], teacher: dict[str, Tensor] | None, **more: Any) -> Step:
    logits = torch.zeros(2, 4, 3)
    found = None if teacher is None else Pass(logits=logits, presentations=8, rates_=teacher)
    return Step(
        logits=logits, labels=torch.zeros(4, dtype=torch.int64), presentations=8, rates_=rates, teacher_=found, **more
    )


def by_hand(kind: str, own: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    found = []
    for name, rates in own.items():
        a, b = rates.flatten().numpy(), theirs[name].flatten().numpy()
        found.append({
            "paired": lambda a=a, b=b: abs(a - b).mean(),
            "emd": lambda a=a, b=b: wasserstein_distance(a, b),
            "mean_rate": lambda a=a, b=b: abs(a.mean() - b.mean()),
        }[kind]())  # fmt: skip
    scale = sum(float(rates.mean()) for rates in theirs.values()) / len(theirs)
    return sum(found) / len(found) / scale


@pytest.mark.parametrize("kind", ["paired", "emd", "mean_rate"])
def test_it_is_the_mean_over_layers_in_units_of_the_teachers_mean_rate(kind: str) -> None:
    own, theirs = layers(0), layers(1)
    assert read_loss(kind)(step(own, theirs)).item() == pytest.approx(by_hand(kind, own, theirs), rel=1e-6)
    assert read_loss(kind)(step(theirs, theirs)).item() == 0


@pytest.mark.parametrize("kind", ["paired", "emd", "mean_rate"])
@pytest.mark.parametrize("cost", ["absolute", "squared", "huber"])
@pytest.mark.parametrize("weighted", ["equal", "neurons", "synops"])
def test_gradients_are_those_of_finite_differences(kind: str, cost: str, weighted: str) -> None:
    loss = read_loss(kind, {"cost": cost, "layers": weighted, "huber_delta": 0.5})
    synops = {"a": torch.full((6,), 9.0), "b": torch.full((5,), 3.0)}
    own = [rates.requires_grad_() for rates in layers(2).values()]
    assert torch.autograd.gradcheck(
        lambda *rates: loss(step(dict(zip(SHAPES, rates, strict=True)), layers(3), synops_=synops)), own, eps=1e-7,
        atol=1e-4,
    )  # fmt: skip


def test_layers_weigh_by_neurons_or_synaptic_operations() -> None:
    own, theirs = layers(0), layers(1)
    parts = {name: float((own[name] - theirs[name]).abs().mean()) for name in own}
    means = {name: float(theirs[name].mean()) for name in own}
    synops = {"a": torch.full((6,), 9.0), "b": torch.full((5,), 3.0)}
    for kind, weights in (("neurons", {"a": 6, "b": 5}), ("synops", {"a": 54, "b": 15})):
        top, below = (sum(weights[n] * values[n] for n in weights) for values in (parts, means))
        found = read_loss("paired", {"layers": kind})(step(own, theirs, synops_=synops))
        assert found.item() == pytest.approx(top / below, rel=1e-6)


def test_emd_takes_layers_of_other_sizes_and_paired_refuses_them() -> None:
    own, theirs = layers(0), layers(1, {"a": (4,), "b": (5,)})
    assert read_loss("emd")(step(own, theirs)).item() == pytest.approx(by_hand("emd", own, theirs), rel=1e-6)
    with pytest.raises(ModelError, match=r"'paired' compares neuron by neuron, but layer 'a' has shape \[3, 2\] and"):
        read_loss("paired")(step(own, theirs))


@pytest.mark.parametrize("kind", ["paired", "emd", "mean_rate"])
def test_a_teacher_of_other_layers_is_refused(kind: str) -> None:
    with pytest.raises(ModelError, match=f"'{kind}' compares layers by name, but only one of .* has 'b', 'c'"):
        read_loss(kind)(step(layers(0), layers(1, {"a": (3, 2), "c": (5,)})))


def test_permuted_neurons_cost_nothing_in_emd_and_much_in_paired() -> None:
    own = {"a": torch.tensor([0.1, 0.9])}
    swapped = step(own, {"a": torch.tensor([0.9, 0.1])})
    assert read_loss("emd")(swapped).item() == pytest.approx(0, abs=1e-7)
    assert read_loss("mean_rate")(swapped).item() == pytest.approx(0, abs=1e-6)
    assert read_loss("paired")(swapped).item() == pytest.approx(0.8 / 0.5)


def test_stored_rates_are_compared_with_where_they_are_asked_for() -> None:
    own, stored = layers(0), layers(1)
    loss = read_loss("emd", {"against": "stored"})
    assert loss.asks() == {"rates", "stored"}
    assert loss(step(own, None, stored_=stored)).item() == pytest.approx(by_hand("emd", own, stored), rel=1e-6)


def test_a_silent_teacher_gives_a_finite_loss() -> None:
    silent = {name: torch.zeros_like(rates) for name, rates in layers(0).items()}
    assert torch.isfinite(read_loss("paired")(step(silent, silent)))


def test_logits_is_the_divergence_of_softened_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    own, theirs = (torch.randn(3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    found = read_loss("logits", {"temperature": 3.0})(
        Step(logits=own, labels=torch.zeros(4), teacher_=Pass(logits=theirs))
    )
    p, q = (softmax(logits.mean(0).numpy() / 3, axis=-1) for logits in (theirs, own))
    assert found.item() == pytest.approx(9 * rel_entr(p, q).sum(-1).mean(), rel=1e-12)
    with pytest.raises(ModelError, match="'logits' compares class by class, the network gives 5 and the teacher 4"):
        read_loss("logits")(Step(logits=own, labels=torch.zeros(4), teacher_=Pass(logits=theirs[..., :4])))


def test_membrane_is_the_squared_difference_of_clipped_potentials() -> None:
    own, theirs = torch.tensor([[[0.5, 3.0, -9.0]]]), torch.tensor([[[0.0, 1.0, -2.0]]])
    there = Pass(logits=torch.zeros(1, 1, 2), membranes_={"a": theirs})
    found = read_loss("membrane")(
        Step(logits=torch.zeros(1, 1, 2), labels=torch.zeros(1), membranes_={"a": own}, teacher_=there)
    )
    assert found.item() == pytest.approx((0.25 + 1.0 + 0.0) / 3)
    with pytest.raises(ModelError, match=r"the membranes \[T, N, ...\] of 'b' are \[1, 1, 3\] and the teacher"):
        read_loss("membrane")(
            Step(logits=torch.zeros(1, 1, 2), labels=torch.zeros(1), membranes_={"b": own}, teacher_=there)
        )


@pytest.mark.parametrize("need", ["rates", "spikes", "membranes", "teacher", "stored", "synops"])
def test_reading_what_was_not_asked_for_says_so(need: str) -> None:
    empty = Step(logits=torch.zeros(1, 1, 2), labels=torch.zeros(1))
    with pytest.raises(SpecError, match=f"a loss reads '{need}' of a step, which it does not ask for; add '{need}'"):
        getattr(empty, need)


class Quiet(Loss, frozen=True, kw_only=True):
    power: float = 1.0

    def asks(self) -> Any:
        return frozenset({"rates"})

    def __call__(self, step: Step) -> Tensor:
        return torch.stack([rates.mean() ** self.power for rates in step.rates.values()]).sum()


def test_a_loss_of_ones_own_is_known_by_name_with_its_settings() -> None:
    register_loss("quiet", Quiet)
    try:
        found = read_loss("quiet", {"weight": 2, "power": 2.0})
        assert (found.weight, found.power) == (2.0, 2.0)  # type: ignore[attr-defined]
        with pytest.raises(SpecError, match="a loss named 'quiet' is registered already"):
            register_loss("quiet", type("Other", (Loss,), {}))
    finally:
        LOSSES.unregister("quiet")
    with pytest.raises(SpecError, match="unknown loss 'quiet'; known: mean_logit"):
        read_loss("quiet")
    for wrong in (len, Quiet(), int):
        with pytest.raises(SpecError, match=r"'wrong' must be a subclass of isofire.training.losses.Loss, got"):
            register_loss("wrong", wrong)  # type: ignore[arg-type]


def test_every_loss_reads_back_what_it_is_made_of() -> None:
    for name in LOSSES:
        assert read_loss(name, msgspec.to_builtins(read_loss(name))) == read_loss(name)
