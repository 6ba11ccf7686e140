"""Spikes that a network makes of real numbers itself: each is an event, as those of neurons are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing import compare
from isofire.firing.cost import SynapseCost, measure_cost, reach
from isofire.neurons import LIF

T, N, INPUTS, OUTPUTS = 6, 9, 20, 16
IMAGES = torch.rand(N, INPUTS, generator=torch.Generator().manual_seed(0)) * 0.6
LABELS = torch.arange(N) % 3


def repeated(x: Tensor) -> Tensor:
    return x.unsqueeze(0).repeat(T, *[1] * x.ndim)


def by_latency(x: Tensor) -> Tensor:
    """One spike an input, the earlier the brighter."""
    step = ((1 - x) * (T - 1)).round().long().unsqueeze(0)
    return torch.zeros(T, *x.shape).scatter(0, step, 1.0)


def by_difference(x: Tensor) -> Tensor:
    """Of on and off: 1 and -1."""
    moving = repeated(x) * torch.tensor([0.0, 1, 2, 1, 0, 3]).view(-1, 1, 1)
    change = moving.diff(dim=0, prepend=torch.zeros_like(moving[:1]))
    return (change >= 0.2).float() - (change <= -0.2).float()


def phases(x: Tensor) -> Tensor:
    """Bits of eight of the input, each spike weighted by its phase."""
    levels = (x * 256).floor().int()
    return torch.stack([((levels >> (7 - k)) & 1) * 2.0 ** -(k + 1) for k in range(T)])


ENCODERS = {
    "threshold": lambda x: (repeated(x) > 0.3).float(),
    "threshold of half a spike": lambda x: 0.5 * (repeated(x) > 0.3).float(),
    "drawn": lambda x: (torch.rand(T, *x.shape) < x).float(),
    "bernoulli": lambda x: torch.bernoulli(repeated(x)),
    "bernoulli in place": lambda x: torch.empty(T, *x.shape).bernoulli_(repeated(x)),
    "in a loop": lambda x: torch.stack([torch.rand_like(x).le(x).to(x) for _ in range(T)]),
    "poisson": lambda x: torch.poisson(repeated(x)),
    "levels": lambda x: repeated((x * 4).round()),
    "integers": lambda x: repeated((x * 4).int().float()),
    "by integer division": lambda x: repeated(torch.div(x, 0.2, rounding_mode="floor")),
    "sign": lambda x: repeated(torch.sign(x - 0.3)),
    "heaviside": lambda x: repeated(torch.heaviside(x - 0.3, torch.tensor(1.0))),
    "where": lambda x: repeated(torch.where(x > 0.3, 1.0, 0.0)),
    "logical": lambda x: repeated(((x > 0.1) & ~(x > 0.4)).float()),
    "latency": by_latency, "difference": by_difference, "phases": phases,
    "most of all": lambda x: repeated(F.one_hot(x.argmax(-1), INPUTS).float()),
    "through a pool": lambda x: F.max_pool1d((repeated(x) > 0.3).float(), 2).repeat(1, 1, 2),
    "straight through": lambda x: repeated((x > 0.3).float() - x.detach() + x),
    "straight through, other way": lambda x: repeated(x + ((x > 0.3).float() - x).detach()),
    "straight through a sigmoid": lambda x: repeated(torch.sigmoid(x) - torch.sigmoid(x).detach() + (x > 0.3).float()),
    "surrogate": lambda x: repeated(torch.sigmoid(x) + ((x > 0.3).float() - torch.sigmoid(x))),
}  # fmt: skip


class Encoding(nn.Module):
    def __init__(self, encode: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encode, self.first, self.fire, self.last = encode, nn.Linear(INPUTS, OUTPUTS), LIF(), nn.Linear(OUTPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fire(4 * self.first(self.encode(x))))


def measured(model: nn.Module, place: str = "first") -> tuple[SynapseCost, list[Tensor]]:
    """What was found at a place, and what came there in the pass that counts."""
    seen: list[Tensor] = []
    layer = model.get_submodule(place)
    handle = layer.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().clone()))
    cost = measure_cost(model.eval(), (IMAGES, LABELS))
    handle.remove()
    # a network's own binary activations are spikes of neurons that nobody knows, which is said too
    assert {item.of for item in cost.left_out} <= ({"states", "neurons"} if place == "inner" else {"states"})
    # passes that only look whether images may go together come before
    last, images = [], 0
    while images < N:
        last.append(seen.pop())
        images += last[-1].shape[1]
    assert images == N
    return next(item for item in cost.synapses if item.name == place), last


def per_image(inputs: list[Tensor]) -> float:
    return sum(float(x.double().sum()) for x in inputs) / N


@pytest.mark.parametrize("name", ENCODERS)
def test_spikes_made_of_images_count_by_unit_weights(name: str) -> None:
    torch.manual_seed(0)
    first, inputs = measured(Encoding(ENCODERS[name]))
    graded = name in ("poisson", "levels", "integers", "by integer division")
    events = [x.round().abs() if graded else (x.abs() > 1e-6).double() for x in inputs]
    assert 0 < per_image(events) < T * INPUTS * (3 if graded else 1.01)
    assert first.event_driven
    assert first.synops.mean == pytest.approx(per_image(events) * OUTPUTS)
    assert (first.macs_once, first.macs_every_step) == (0, 0)
    assert first.through


@pytest.mark.parametrize("encode", [
    lambda x: repeated((x * 255).round() / 255), lambda x: repeated(F.relu(x - 0.3)), lambda x: repeated(x * (x > 0.3)),
    lambda x: repeated((x > 0.3).float() - x), lambda x: repeated(x.clamp(0.1, 0.4)),
    lambda x: leaky((repeated(x) > 0.3).float()), lambda x: repeated(torch.where(x > 0.3, x, 0.0)),
], ids=["8 bits", "relu", "masked", "minus the image", "clamped", "trace", "gated"])  # fmt: skip
def test_real_numbers_made_of_images_multiply(encode: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    first = measure_cost(Encoding(encode).eval(), (IMAGES, LABELS)).synapses[0]
    assert (first.event_driven, first.synops.max) == (False, 0)
    assert first.macs_every_step == T * INPUTS * OUTPUTS


def leaky(z: Tensor) -> Tensor:
    v, out = torch.zeros_like(z[0]), []
    for spikes in z:
        v = 0.5 * v + spikes
        out.append(v)
    return torch.stack(out)


class Binary(nn.Module):
    """An activation of two levels inside a network."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.fire = how, LIF()
        self.mid, self.inner, self.last = nn.Linear(INPUTS, OUTPUTS), nn.Linear(OUTPUTS, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        current = self.mid(self.fire(4 * repeated(x)))
        soft = torch.sigmoid(current)
        hard = (current > 0).float()
        forms = {"compared": hard, "straight through": soft + (hard - soft).detach(), "sign": torch.sign(current)}
        return self.last(torch.tanh(self.inner(forms[self.how])))


@pytest.mark.parametrize("how", ["compared", "straight through", "sign"])
def test_binary_activations_inside_a_network_are_events(how: str) -> None:
    torch.manual_seed(0)
    model = Binary(how)
    inner, inputs = measured(model, "inner")
    events = [(x.abs() > 1e-6).double() for x in inputs]
    assert per_image(events) > 0
    assert inner.synops.mean == pytest.approx(per_image(events) * 8)
    assert inner.event_driven
    # what a spike of the neurons costs there is not linear, which is said
    assert [item.name for item in reach(model, IMAGES[:2]).left_out] == ["inner"]


def test_inputs_of_events_on_and_off_are_events() -> None:
    torch.manual_seed(0)
    frames = torch.randint(-1, 2, (T, N, INPUTS)).float()
    model = nn.Sequential(nn.Linear(INPUTS, OUTPUTS), LIF(), nn.Linear(OUTPUTS, 3)).eval()
    first = measure_cost(model, (frames, LABELS)).synapses[0]
    assert first.event_driven
    assert first.synops.mean == pytest.approx(float(frames.abs().sum()) / N * OUTPUTS)


def test_layers_that_encoded_images_drive_are_named_beside_the_operations_of_spikes() -> None:
    model = Encoding(lambda x: F.max_pool1d((repeated(x) > 0.3).float(), 2).repeat(1, 1, 2)).eval()
    found = reach(model, IMAGES[:2])
    assert found.left_out == ()
    assert [item.name for item in found.by_input] == ["first"]
    assert compare(model, model, (IMAGES.repeat(4, 1), LABELS.repeat(4))).synops is not None
