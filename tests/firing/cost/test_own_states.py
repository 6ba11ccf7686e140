"""What a network's own code keeps from step to step is named in each way to write it; what it only gives is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.firing.cost.fires import Fires, fires  # noqa: F401
from torch import Tensor, nn

from isofire.firing.cost import measure_cost
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF

WIDTH, CLASSES = 12, 5
IMAGES = torch.rand(6, WIDTH, generator=torch.Generator().manual_seed(0)) * 2
LABELS = torch.arange(6) % CLASSES


class Net(nn.Module):
    """A readout behind weights, over the steps of neurons that see one at a time or all."""

    def __init__(self, keep: Callable[[Net, Tensor, Tensor], Tensor], steps: int, stepped: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.keep, self.steps = keep, steps
        self.first, self.fire, self.head = (
            nn.Linear(WIDTH, WIDTH),
            Fires(0.2) if stepped else LIF(),
            nn.Linear(WIDTH, 5),
        )
        self.leak, self.side = nn.Parameter(torch.full((CLASSES,), 0.9)), nn.Linear(WIDTH, CLASSES)

    def spikes(self, x: Tensor) -> list[Tensor]:
        if isinstance(self.fire, Fires):
            return [self.fire(self.first(x)) for _ in range(self.steps)]
        return list(self.fire(self.first(x).expand(self.steps, len(x), WIDTH)))

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(len(x), CLASSES)
        if isinstance(self.fire, Fires):
            for _ in range(self.steps):
                v = self.keep(self, v, self.fire(self.first(x)))
        else:
            for step in self.fire(self.first(x).expand(self.steps, len(x), WIDTH)):
                v = self.keep(self, v, step)
        return v


def in_place(net: Net, v: Tensor, z: Tensor) -> Tensor:
    return v.mul_(0.9).add_(net.head(z))


def difference(net: Net, v: Tensor, z: Tensor) -> Tensor:
    out = net.head(z)
    net.gap = out - v
    return out


KEPT = {
    "leak": lambda net, v, z: 0.9 * v + net.head(z),
    "learnt leak": lambda net, v, z: net.leak * v + net.head(z),
    "addcmul": lambda net, v, z: torch.addcmul(net.head(z), v, net.leak),
    "alpha": lambda net, v, z: torch.add(net.head(z), v, alpha=0.9),
    "lerp": lambda net, v, z: torch.lerp(v, net.head(z), 0.1),
    "divided": lambda net, v, z: net.head(z) + v / 2,
    "in place": in_place,
    "maximum": lambda net, v, z: torch.maximum(v, net.head(z)),
    "where": lambda net, v, z: (lambda o: torch.where(o > v, o, v))(net.head(z)),
    "stack and max": lambda net, v, z: torch.stack([v, net.head(z)]).max(0)[0],
    "stack and amax": lambda net, v, z: torch.stack([v, net.head(z)]).amax(0),
    "stack and mean": lambda net, v, z: torch.stack([v, net.head(z)]).mean(0),
    "norm": lambda net, v, z: F.layer_norm(v + net.head(z), (CLASSES,)),
    "softmax": lambda net, v, z: (v + net.head(z)).softmax(1),
    "fed back": lambda net, v, z: torch.tanh(v + net.head(z)),
    "negated": lambda net, v, z: net.head(z) - v,
    "product": lambda net, v, z: net.head(z) * (v + 1),
    "difference": difference,
    "recurrent": lambda net, v, z: torch.tanh(net.head(torch.cat([v, z[:, CLASSES:]], 1))),
    "spikes, addcmul": lambda net, v, z: torch.addcmul(z[:, :CLASSES], v, net.leak),
    "spikes, where": lambda net, v, z: (lambda o: torch.where(o > v, o, 0.5 * v))(z[:, :CLASSES]),
}  # fmt: skip


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_named(name: str, steps: int, stepped: bool) -> None:
    model = Net(KEPT[name], steps, stepped).eval()
    named = [(item.name, item.of) for item in measure_cost(model, (IMAGES, LABELS)).left_out]
    assert named == [("(model)", "states")]
    if name == "leak":
        (finding,) = check(model, model, (IMAGES, LABELS), Limits(state_bytes=1e6)).findings
        assert finding.outcome == "undecided"


class Sliding(Net):
    """A mean over the last results."""

    def forward(self, x: Tensor) -> Tensor:
        window, out = torch.zeros(len(x), 4, CLASSES), []
        for z in self.spikes(x):
            window = torch.cat([window[:, 1:], self.head(z).unsqueeze(1)], 1)
            out.append(window.mean(1))
        return torch.stack(out).sum(0)


@pytest.mark.parametrize("stepped", [False, True])
def test_a_buffer_that_slides_along_is_named(stepped: bool) -> None:
    cost = measure_cost(Sliding(KEPT["leak"], 4, stepped).eval(), (IMAGES, LABELS))
    assert [(item.name, item.of) for item in cost.left_out] == [("(model)", "states")]


def preallocated(net: Net, steps: list[Tensor]) -> Tensor:
    out = torch.empty(len(steps), len(steps[0]), CLASSES)
    for place, z in enumerate(steps):
        out[place] = net.head(z)
    return out.softmax(-1).mean(0)


def grown(net: Net, steps: list[Tensor]) -> Tensor:
    out = net.head(steps[0]).unsqueeze(0)
    for z in steps[1:]:
        out = torch.cat([out, net.head(z).unsqueeze(0)])
    return out.mean(0)


def total(net: Net, steps: list[Tensor], each: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    found = torch.zeros(len(steps[0]), CLASSES)
    for z in steps:
        found = found + each(net.head(z))
        net.sure = found.softmax(1)
    return found


def two_heads(net: Net, steps: list[Tensor]) -> Tensor:
    return torch.stack([torch.cat([net.head(z), net.side(z)], 1) for z in steps]).sum(0)


def residual(net: Net, steps: list[Tensor]) -> Tensor:
    found = 0
    for z in steps:
        x = net.first(z)
        for _ in range(2):
            x = F.layer_norm(x + torch.relu(x), (WIDTH,))
        found = found + net.head(x)
    return found


def shared_head(net: Net, steps: list[Tensor]) -> Tensor:
    """Of two maps, as in a pyramid, side by side and compared."""
    found = 0
    for z in steps:
        pair = torch.cat([net.head(z), net.head(z.flip(-1))], 1)
        found = found + pair
    return found


GIVEN = {
    "stacked": lambda net, steps: torch.stack([net.head(z) for z in steps]),
    "stacked probabilities": lambda net, steps: torch.stack([net.head(z).softmax(1) for z in steps]).mean(0),
    "concatenated": lambda net, steps: torch.cat([net.head(z).unsqueeze(0) for z in steps]).mean(0),
    "summed": lambda net, steps: sum(net.head(z) for z in steps),
    "summed probabilities": lambda net, steps: sum(net.head(z).softmax(1) for z in steps),
    "mean": lambda net, steps: sum(net.head(z) for z in steps) / len(steps),
    "preallocated": preallocated, "grown": grown, "total": total, "two heads": two_heads,
    "shared head": shared_head, "residual": residual,
    "total of probabilities": lambda net, steps: total(net, steps, lambda x: x.softmax(1)),
    "total of scaled": lambda net, steps: total(net, steps, lambda x: 0.3 * x),
}  # fmt: skip


class Gives(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.keep(self, self.spikes(x))  # type: ignore[call-arg]


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize("name", GIVEN)
def test_what_is_only_given_is_no_state(name: str, steps: int, stepped: bool) -> None:
    cost = measure_cost(Gives(GIVEN[name], steps, stepped).eval(), (IMAGES, LABELS))  # type: ignore[arg-type]
    assert [str(item) for item in cost.left_out] == []


class FromTheFirst(Net):
    """A leak that starts with what the first step gives."""

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.spikes(x)
        v = self.head(first)
        for z in others:
            v = 0.9 * v + self.head(z)
        return v


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("steps", [2, 4])
def test_a_state_that_starts_with_the_first_step_is_named(steps: int, stepped: bool) -> None:
    cost = measure_cost(FromTheFirst(KEPT["leak"], steps, stepped).eval(), (IMAGES, LABELS))
    assert [(item.name, item.of) for item in cost.left_out] == [("(model)", "states")]
