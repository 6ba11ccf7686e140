"""Parts of an image, patches or tokens, are no steps though there be as many."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.firing.cost.fires import Fires, fires  # noqa: F401
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing.cost import Cost, SynapseCost, measure_cost
from isofire.neurons import LIF

PARTS, STEPS, WIDE = 4, (2, 3, 4, 5), 6
IMAGES = 3 * torch.rand(7, PARTS, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(7) % 3


def cost_of(net: nn.Module, images: Tensor = IMAGES) -> Cost:
    cost = measure_cost(net.eval(), (images, LABELS[: len(images)]))
    assert all(item.of == "states" for item in cost.left_out)
    return cost


def place(cost: Cost, name: str) -> SynapseCost:
    return next(item for item in cost.synapses if item.name == name)


INTO: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "folded into the batch": lambda layer, x: layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
    "the first axis": lambda layer, x: layer(x.transpose(0, 1)).transpose(0, 1),
    "the second axis": lambda layer, x: layer(x),
    "one after the other": lambda layer, x: torch.stack([layer(part) for part in x.unbind(1)], 1),
}


class Static(nn.Module):
    """Parts [N, 4, 3] of static images into currents [T, N, 24], in one call or step by step."""

    def __init__(self, into: Callable[[nn.Module, Tensor], Tensor], steps: int, *, anew: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read, self.steps, self.anew = into, steps, anew
        self.into, self.fire, self.head = nn.Linear(3, WIDE), LIF(), nn.Linear(PARTS * WIDE, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.anew:
            currents = torch.stack([self.read(self.into, x).flatten(1) for _ in range(self.steps)])
        else:
            currents = self.read(self.into, x).flatten(1).expand(self.steps, -1, -1)
        return self.head(self.fire(currents.contiguous()))


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("into", INTO)
def test_every_step_sees_all_parts_of_an_image(into: str, steps: int, anew: bool) -> None:
    """As many as steps, they were read as one for each: multiply-accumulates T times too few."""
    found = place(cost_of(Static(INTO[into], steps, anew=anew)), "into")
    once = PARTS * 3 * WIDE
    assert (found.macs_once, found.macs_every_step) == (once, once * steps)


@pytest.mark.parametrize("into", ["folded into the batch", "the first axis"])
def test_parts_that_are_equal_in_the_data_are_parts(into: str) -> None:
    images = IMAGES[:, :1].expand(-1, PARTS, -1).contiguous()
    found = place(cost_of(Static(INTO[into], PARTS), images), "into")
    assert (found.macs_once, found.macs_every_step) == (PARTS * 3 * WIDE, PARTS * PARTS * 3 * WIDE)


CODES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "repeated": (lambda x: x, 1),
    "a factor of each step": (lambda x: x * torch.arange(1.0, 5)[:, None, None], 4),
    "a part of each step": (lambda x: x[0].unflatten(1, (PARTS, 3)).transpose(0, 1), 4),
    "two and two alike": (lambda x: x * torch.tensor([1.0, 1, 2, 2])[:, None, None], 2),
}


class Coded(nn.Module):
    """Something of a static image for each of 4 steps."""

    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.code, self.fire, self.head = code, LIF(), nn.Linear(WIDE, 3)
        self.into = nn.Linear(3 if code is CODES["a part of each step"][0] else 12, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fire(self.into(self.code(x.flatten(1).expand(4, -1, -1)))))


@pytest.mark.parametrize("code", CODES)
def test_what_is_made_for_each_step_is_worked_on_at_its_step(code: str) -> None:
    net = Coded(CODES[code][0])
    found, one = place(cost_of(net), "into"), net.into.weight.numel()
    assert (found.macs_once, found.macs_every_step) == (CODES[code][1] * one, 4 * one)


HIDING: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "ReLU": torch.relu,
    "ReLU6": nn.functional.relu6,
    "absolute values": torch.abs,
    "maximum pool": lambda x: nn.functional.max_pool1d(x, 2).repeat_interleave(2, -1),
}


@pytest.mark.parametrize("code", ["a factor of each step", "a part of each step"])
@pytest.mark.parametrize("hiding", HIDING)
def test_steps_are_steps_behind_what_hides_small_numbers(hiding: str, code: str) -> None:
    """A number that was lowered to ask was cut by a ReLU: rows of steps counted T times."""

    class Deep(Coded):
        def __init__(self) -> None:
            super().__init__(CODES[code][0])
            self.second = nn.Linear(WIDE, WIDE)

        def forward(self, x: Tensor) -> Tensor:
            made = self.into(self.code(x.flatten(1).expand(4, -1, -1)))
            return self.head(self.fire(self.second(HIDING[hiding](made))))

    net = Deep()
    cost = cost_of(net)
    for name, layer in (("into", net.into), ("second", net.second)):
        found = place(cost, name)
        assert (found.macs_once, found.macs_every_step) == (4 * layer.weight.numel(), 4 * layer.weight.numel())


BETWEEN: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "folded into the batch": lambda layer, x: layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
    "the first axis": lambda layer, x: layer(x.transpose(0, 1)).transpose(0, 1),
    "the second axis": lambda layer, x: layer(x),
}


class Loop(nn.Module):
    """Neurons that see one step after the other, a layer on each part of an image between them."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], steps: int, late: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between, self.steps, self.late = between, steps, late
        self.first, self.mid, self.second, self.head = Fires(), nn.Linear(3, WIDE), Fires(), nn.Linear(PARTS * WIDE, 3)
        nn.init.normal_(self.mid.weight, 0.3, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        logits, spikes = [], [torch.zeros_like(x)] * self.late
        for step in range(self.steps):
            spikes.append(self.first(x * (0.4 + 0.2 * step)))
            logits.append(self.head(self.second(self.between(self.mid, spikes[step])).flatten(1)))
        return torch.stack(logits)


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("between", BETWEEN)
def test_events_of_a_step_are_those_of_all_parts(fires: None, between: str, steps: int, late: int) -> None:  # noqa: F811
    """With 4 steps and 4 parts they were those of a part over all steps: a peak of half its size."""
    cost = cost_of(Loop(BETWEEN[between], steps, late))
    given = [item.mean for item in next(item for item in cost.neurons if item.name == "first").spikes_per_step]
    found = place(cost, "mid")
    came = [0.0] * late + given[: steps - late]
    assert sum(given) > 0
    assert found.synops.mean == pytest.approx(WIDE * sum(came))
    assert [item.mean for item in found.events_per_step] == pytest.approx(came)


class Layers(nn.Module):
    """Each layer on the spikes [T, N, ...] of all steps."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between, self.first, self.second = between, LIF(), LIF()
        self.mid, self.head = nn.Linear(12, WIDE), nn.Linear(WIDE, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(2 * x.flatten(1).expand(4, -1, -1).contiguous())
        return self.head(self.second(self.mid(self.between(spikes))))


ALONG: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda s: s,
    "one step later": lambda s: torch.cat([torch.zeros_like(s[:1]), s[:-1]]),
    "so far": lambda s: s.cumsum(0).clamp(max=1),
    "none": lambda s: (1 - s) * (1 - s),
    "delays of each input": lambda s: torch.stack(
        [torch.cat([torch.zeros_like(s[: i % 3 + 1, :, i]), s[: 3 - i % 3, :, i]]) for i in range(s.shape[2])], 2
    ),
    "a trace that is late": lambda s: torch.cat([torch.zeros_like(s[:1]), s[:-1].cumsum(0).clamp(max=1)]),
}


@pytest.mark.parametrize("along", ALONG)
def test_events_of_each_step_are_known_where_rows_are_steps(along: str) -> None:
    net, seen = Layers(ALONG[along]).eval(), []
    with torch.no_grad():
        handle = net.mid.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
        net(IMAGES)
        handle.remove()
    found = place(cost_of(net), "mid")
    expected = (seen[0] != 0).double().sum((1, 2)) / len(IMAGES)
    assert [item.mean for item in found.events_per_step] == pytest.approx(expected.tolist())


def test_parts_of_all_steps_together_have_no_steps() -> None:
    class Pooled(Layers):
        def forward(self, x: Tensor) -> Tensor:
            spikes = self.first(2 * x.flatten(1).expand(4, -1, -1).contiguous())
            tokens = spikes.sum(0).unflatten(1, (PARTS, 3)).transpose(0, 1)
            current = self.mid(tokens.repeat(1, 1, 4)).transpose(0, 1).flatten(1)
            return self.head(self.second(current[:, :WIDE].expand(4, -1, -1).contiguous()))

    cost = cost_of(Pooled(lambda x: x))
    found = place(cost, "mid")
    spikes = next(item for item in cost.neurons if item.name == "first").spikes
    assert found.synops.mean == pytest.approx(4 * WIDE * spikes.mean)
    assert len(found.events_per_step) == 1


@pytest.mark.parametrize("how", ["pooled", "raises", "goes on"])
def test_parts_are_told_where_few_spikes_or_none_change_the_network(fires: None, how: str) -> None:  # noqa: F811
    class Unlike(Loop):
        def forward(self, x: Tensor) -> Tensor:
            logits = []
            for step in range(self.steps):
                spikes = self.first(x * (0.4 + 0.2 * step))
                if not spikes.any() and how == "raises":
                    raise ValueError("nobody fires")
                if not spikes.any() and how == "goes on":
                    logits.append(x.new_zeros(len(x), 3))
                    continue
                if how == "pooled":
                    spikes = spikes.repeat_interleave(64, 2).unflatten(2, (3, 64)).amax(3)
                logits.append(self.head(self.second(self.between(self.mid, spikes)).flatten(1)))
            return torch.stack(logits)

    cost = cost_of(Unlike(BETWEEN["the first axis"], 4))
    given = [item.mean for item in next(item for item in cost.neurons if item.name == "first").spikes_per_step]
    assert [item.mean for item in place(cost, "mid").events_per_step] == pytest.approx(given)


@pytest.mark.parametrize("steps", [3, 4])
def test_parts_of_an_image_of_whole_numbers_have_no_steps(steps: int) -> None:
    images = (IMAGES > 1.5).float()
    found = place(cost_of(Static(INTO["the first axis"], steps), images), "into")
    assert [item.mean for item in found.events_per_step] == pytest.approx([float(images.sum()) / len(images)])


def test_networks_that_draw_keep_their_steps() -> None:
    class Drawn(Layers):
        def forward(self, x: Tensor) -> Tensor:
            drawn = (torch.rand(4, len(x), 12) < x.flatten(1).clamp(max=1)).float()
            return self.head(self.second(self.mid(self.first(2 * drawn) + drawn)))

    found = place(cost_of(Drawn(lambda x: x)), "mid")
    assert len(found.events_per_step) == 4


@pytest.mark.parametrize("images", [3, 4, 8, 9])
@pytest.mark.parametrize("batch", [3, 4, 64])
def test_as_many_images_as_steps_are_not_taken_for_them(images: int, batch: int) -> None:
    """Of the first batch it was not known how many steps there are."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fire, self.mid, self.second, self.head = LIF(), nn.Linear(12, WIDE), LIF(), nn.Linear(WIDE, 3)
            self.seen = torch.empty(0)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.fire(2 * x.flatten(1).expand(4, -1, -1).contiguous())
            self.seen = spikes
            return self.head(self.second(self.mid(spikes.transpose(0, 1).contiguous()).transpose(0, 1).contiguous()))

    data = 3 * torch.rand(images, PARTS, 3, generator=torch.Generator().manual_seed(1))
    net = Turned().eval()
    with torch.no_grad():
        net(data)
    expected = WIDE * net.seen.sum((0, 2))
    cost = measure_cost(net, (data, torch.arange(images) % 3), batch_size=batch)
    found = place(cost, "mid")
    assert found.synops.mean == pytest.approx(float(expected.mean()))
    assert found.synops.max == float(expected.max())
    assert found.synops.p50 in expected.tolist()
    assert torch.tensor([item.mean for item in place(cost, "head").events_per_step]).shape == (4,)


@pytest.mark.parametrize("order", [1, -1])
def test_images_of_every_size_are_asked_about(order: int) -> None:
    """Only the largest were: 4 parts, as many as steps, that came after 5 were read as steps."""

    class Any(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.into, self.fire, self.head = nn.Linear(3, WIDE), LIF(), nn.Linear(WIDE, 3)

        def forward(self, x: Tensor) -> Tensor:
            made = self.into(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)
            return self.head(self.fire(3 * made.expand(4, -1, -1).contiguous()))

    batches = [(3 * torch.rand(3, parts, 3), torch.arange(3)) for parts in (5, 4)][::order]
    found = place(measure_cost(Any().eval(), batches), "into")
    assert (found.macs_once, found.macs_every_step) == (4.5 * 3 * WIDE, 4 * 4.5 * 3 * WIDE)


class PoolsOverTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.m = nn.Linear(6, 8), LIF(), nn.Linear(8, 3), LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.m(self.b(self.n(self.a(x.transpose(0, 1))).unflatten(0, (-1, 2)).sum(1))).mean(0)


def test_layers_of_another_T_are_told_as_such() -> None:
    data = torch.rand(5, 8, 6), torch.zeros(5, dtype=torch.long)
    with pytest.raises(ModelError, match=r"'m' saw \[4, 5\]; costs are of one T"):
        measure_cost(PoolsOverTime(), data)
