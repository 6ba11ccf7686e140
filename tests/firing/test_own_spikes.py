"""Own neurons are told by what comes out, whole numbers of real ones, however their code spells the spike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from isofire.firing import Observation, compare, observe
from isofire.firing.cost import measure_cost
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF

T = 4
Spell = Callable[[Tensor], Tensor]


@torch.library.custom_op("isofire_tests::fires", mutates_args=())
def fires(v: Tensor) -> Tensor:
    return torch.heaviside(v - 1, torch.ones(()))


@fires.register_fake
def _(v: Tensor) -> Tensor:
    return torch.empty_like(v)


def largest(v: Tensor, how: str) -> Tensor:
    match how:
        case "codes":
            return nn.functional.one_hot(v.argmax(-1), v.shape[-1]).float()
        case "equal":
            return (v == v.amax(-1, keepdim=True)).float()
        case "softmax":
            return nn.functional.one_hot(v.softmax(-1).argmax(-1), v.shape[-1]).float()
        case "log_softmax":
            return torch.zeros_like(v).scatter(-1, v.log_softmax(-1).max(-1, keepdim=True)[1], 1.0)
        case "largest share":
            return (v.softmax(-1) == v.softmax(-1).amax(-1, keepdim=True)).float()
        case "straight through":
            soft = v.softmax(-1)
            return torch.zeros_like(v).scatter(-1, soft.topk(1).indices, 1.0) + (soft - soft.detach())
        case "gumbel":
            return nn.functional.gumbel_softmax(v, hard=True)
        case "layer norm":
            return nn.functional.one_hot(nn.functional.layer_norm(v, v.shape[-1:]).argmax(-1), v.shape[-1]).float()
        case "largest of a norm":
            normed = nn.functional.group_norm(v, 1)
            return (normed == normed.amax(-1, keepdim=True)).float()
        case "rank":
            return (v.argsort(-1).argsort(-1) >= v.shape[-1] - 2).float()
    return torch.zeros_like(v).scatter(-1, v.topk(1).indices, 1.0)


SPIKES: dict[str, Spell] = {
    "(sign + 1) / 2": lambda v: (torch.sign(v - 1) + 1) / 2,
    "sign * .5 + .5": lambda v: torch.sign(v - 1) * 0.5 + 0.5,
    "relu(sign)": lambda v: torch.sign(v - 1).relu(),
    "sgn": lambda v: torch.sgn(v - 1).clamp(min=0),
    "int": lambda v: v.clamp(0, 1.99).int().float(),
    "long": lambda v: v.clamp(0, 1.99).long().to(v),
    "bool": lambda v: (v - 1).relu().bool().float(),
    "written into integers": lambda v: torch.zeros(v.shape, dtype=torch.int64).copy_(v.clamp(0, 1.99)).float(),
    "bucketize": lambda v: torch.bucketize(v, torch.tensor([1.0])).float(),
    "searchsorted": lambda v: torch.searchsorted(torch.tensor([1.0]), v, right=True).float(),
    "round before a clamp": lambda v: torch.round(v - 0.5).clamp(0, 1),
    "floor before a clamp": lambda v: torch.floor(v).clamp(0, 1),
    "ceil before a clamp": lambda v: torch.ceil(v - 1).clamp(0, 1),
    "floor division": lambda v: (v // 1).clamp(0, 1),
    "less its remainder": lambda v: (v - v % 1).clamp(0, 1),
    "a steep ramp": lambda v: ((v - 1) * 1e6).clamp(0, 1),
    "a steep sigmoid": lambda v: torch.sigmoid((v - 1) * 1e9),
    "custom operator": lambda v: fires(v),
    "numpy": lambda v: torch.from_numpy((v.numpy() >= 1).astype("float32")),
}
LEVELS: dict[str, Spell] = {
    "round of a clamp": lambda v: torch.round(v.clamp(0, 4)),
    "clamp of a floor": lambda v: torch.floor(v).clamp(0, 3),
    "bucketize": lambda v: torch.bucketize(v, torch.tensor([1.0, 2.0, 3.0])).float(),
    "int": lambda v: v.clamp(0, 4).int().float(),
}
PICKS: dict[str, Spell] = {how: lambda v, how=how: largest(v, how) for how in (
    "codes", "equal", "topk", "softmax", "log_softmax", "largest share", "straight through", "rank", "gumbel",
    "layer norm", "largest of a norm",
)}  # fmt: skip
ALL = {"spikes": SPIKES, "levels": LEVELS, "picks": PICKS}


class Own(nn.Module):
    """Leaks, and is reset by its spikes."""

    def __init__(self, spike: Spell, leak: float | None = 0.5) -> None:
        super().__init__()
        self.spike, self.leak = spike, leak

    def forward(self, x: Tensor) -> Tensor:
        if self.leak is None:
            return self.spike(x)
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = self.leak * v + step
            out.append(self.spike(v))
            v = v - out[-1]
        return torch.stack(out)


class Net(nn.Module):
    """Eight own neurons before six known ones."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.a, self.own = nn.Linear(12, 8), own
        self.b, self.known, self.head = nn.Linear(8, 6, bias=False), LIF(), nn.Linear(6, 3)
        with torch.no_grad():
            for weight in (self.a.weight, self.b.weight, self.head.weight):
                weight.mul_(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.known(self.b(self.own(self.a(x).expand(T, -1, -1)))))


def data(images: int = 40) -> tuple[Tensor, Tensor]:
    return torch.rand(images, 12, generator=torch.Generator().manual_seed(1)), torch.arange(images) % 3


EACH = [(kind, name) for kind, spells in ALL.items() for name in spells]


@pytest.mark.parametrize(("kind", "name"), EACH, ids=[f"{kind}: {name}" for kind, name in EACH])
def test_each_spelling_is_named_and_nothing_is_kept(kind: str, name: str) -> None:
    net = Net(Own(ALL[kind][name])).eval()
    other, (x, labels) = copy.deepcopy(net), data()
    with torch.no_grad():
        other.a.bias.add_(0.6)
        fired = [float(each.own(each.a(x).expand(T, -1, -1)).sum()) for each in (net, other)]
    if kind != "picks":
        assert fired[1] > 1.2 * fired[0] > 0
    found = compare(net, other, (x, labels))
    (item,) = found.unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))
    assert found.synops is not None
    assert found.synops.by_input == ()
    assert ("b", True) in [(one.name, "driven by spikes of own" in one.reason) for one in found.synops.left_out]
    limits = Limits(synops=1e6, drift=1e6)
    assert {one.outcome for one in check(net, other, (x, labels), limits).findings} == {"undecided"}
    named = [one for one in measure_cost(net, (x[:5], labels[:5])).left_out if one.of == "neurons"]
    assert [(one.name, one.share) for one in named] == [("own", pytest.approx(8 / 14))]


@pytest.mark.parametrize("name", [*SPIKES, *LEVELS])
def test_without_a_state_they_are_neurons_where_they_come_to_weights(name: str) -> None:
    net = Net(Own((SPIKES | LEVELS)[name], None)).eval()
    found = compare(net, net, data())
    assert [item.name for item in found.unknown_neurons] == ["own"]


@pytest.mark.parametrize("name", ["(sign + 1) / 2", "int", "clamp of a floor", "a steep ramp", "custom operator"])
def test_at_the_output_they_are_told_by_their_reset(name: str) -> None:
    class Last(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.own(self.head(self.known(self.a(x)[:, :6].expand(T, -1, -1))) * 2)

    net = Last(Own((SPIKES | LEVELS)[name])).eval()
    (item,) = compare(net, net, data()).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(3 / 9))


class Delayed(Own):
    """Compares again, in the next step, to be reset."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step - (v > 1).float()
            out.append((v > 1).float())
        return torch.stack(out)


class Refractory(Own):
    """Is silent for two steps, and counts them."""

    def forward(self, x: Tensor) -> Tensor:
        v, left, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step
            spikes = (v > 1).float() * (left <= 0).float()
            v, left = v * (1 - (spikes > 0).float()), torch.where(spikes > 0, 2.0, (left - 1).clamp(min=0))
            out.append(spikes)
        return torch.stack(out)


class Thresholds(Own):
    """Fires once above 1 and twice above 2."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step
            out.append((v > 1).float() + (v > 2).float())
            v = torch.where(v > 1, 0.0, v)
        return torch.stack(out)


@pytest.mark.parametrize("kind", [Delayed, Refractory, Thresholds])
def test_neurons_are_counted_once_however_often_their_state_is_compared(kind: type[Own]) -> None:
    (item,) = compare(net := Net(kind(SPIKES["int"])).eval(), net, data()).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))


class InPlace(nn.Module):
    """Keeps its state in one memory."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for current in x:
            if self.how == "anew":
                v = 0.5 * v + current
            elif self.how == "augmented":
                v *= 0.5
                v += current
            elif self.how == "methods":
                v.mul_(0.5).add_(current)
            else:
                v.copy_(0.5 * v + current)
            fired = (v > 1).float()
            out.append(fired)
            v *= 1 - fired
        return torch.stack(out)


@pytest.mark.parametrize("how", ["anew", "augmented", "methods", "copied"])
def test_a_state_that_is_updated_in_place_is_looked_at_anew_at_each_step(how: str) -> None:
    (item,) = compare(net := Net(InPlace(how)).eval(), net, data()).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))


def test_two_layers_of_a_networks_own_code_are_two() -> None:
    class Root(Net):
        """Eight neurons, and six more, one after the other, with one leak."""

        def leak(self, v: Tensor, x: Tensor) -> Tensor:
            return 0.5 * v + x

        def forward(self, x: Tensor) -> Tensor:
            v, w, out = x.new_zeros(len(x), 8), x.new_zeros(len(x), 6), []
            for step in self.known(self.a(x).expand(T, -1, -1)):
                v = self.leak(v, 3 * step + self.a(x))
                first = (v > 1).float()
                w = self.leak(w, self.b(first))
                second = (w > 1).float()
                v, w = v * (1 - (v > 1).float()), w - second
                out.append(self.head(second))
            return torch.stack(out)

    (item,) = compare(net := Root(nn.Identity()).eval(), net, data()).unknown_neurons
    # beside eight known ones
    assert item.share == pytest.approx(14 / 22)


def test_two_populations_with_one_current_are_two() -> None:
    class Two(Own):
        def leaked(self, v: Tensor, x: Tensor, leak: float) -> Tensor:
            return leak * v + x

        def forward(self, x: Tensor) -> Tensor:
            v, w, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
            for step in x:
                v, w = self.leaked(v, step, 0.9), self.leaked(w, step, 0.3)
                first, second = (v > 1).float(), (w > 1).float()
                v, w = v - first, w - second
                out.append(first + second)
            return torch.stack(out)

    (item,) = compare(net := Net(Two(SPIKES["int"])).eval(), net, data()).unknown_neurons
    assert item.share == pytest.approx(16 / 22)


def test_whole_states_beside_real_ones_are_neurons_too() -> None:
    class Root(Net):
        """Eight neurons that leak, and six that count behind weights of 0 and 1."""

        def forward(self, x: Tensor) -> Tensor:
            v, w, out = x.new_zeros(len(x), 8), x.new_zeros(len(x), 6), []
            for step in self.known(self.a(x).expand(T, -1, -1)):
                v = 0.5 * v + 3 * step + self.a(x)
                first = (v > 1).float()
                w = w + self.b(first)
                second = (w >= 2).float()
                v, w = v - first, w - 2 * second
                out.append(self.head(second))
            return torch.stack(out)

    net = Root(nn.Identity()).eval()
    with torch.no_grad():
        net.b.weight.copy_((net.b.weight > 0).float())
    (item,) = compare(net, net, data()).unknown_neurons
    assert item.share == pytest.approx(14 / 22)


@pytest.mark.parametrize("sure", [
    lambda m: m.softmax(-1).amax(-1, keepdim=True) < 0.6,
    lambda m: -(m.softmax(-1) * m.log_softmax(-1)).sum(-1, keepdim=True) > 0.8,
])  # fmt: skip
def test_an_early_exit_is_no_spike(sure: Spell) -> None:
    class Exits(Net):
        def forward(self, x: Tensor) -> Tensor:
            found, go, out = x.new_zeros(len(x), 3), x.new_ones(len(x), 1), []
            for step in self.known(self.b(self.a(x)).expand(T, -1, -1)):
                found = found + go * self.head(step)
                go = sure(found).float()
                out.append(found)
            return torch.stack(out)

    assert compare(net := Exits(nn.Identity()).eval(), net, data()).unknown_neurons == ()


class Written(Own):
    """The size of its batches is written in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.zeros(10, 1))


def test_a_network_with_its_batch_size_written_in_is_asked_with_a_whole_batch() -> None:
    net = Net(Written(SPIKES["bool"])).eval()
    found = compare(net, net, data(), batch_size=10)
    (item,) = found.unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))
    assert found.synops is not None


class Chooses(Own):
    """Images that are dark take another way, of more products."""

    def __init__(self, spike: Spell) -> None:
        super().__init__(spike)
        self.more = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found + 0 * self.more(x) if len(x[0]) == 10 else found


@pytest.mark.parametrize("breaks", [False, True])
def test_where_it_is_not_known_what_a_spike_costs_unknown_neurons_are_still_named(breaks: bool, tmp_path: Path) -> None:
    net = Net(Chooses(SPIKES["bool"])).eval()
    if breaks:
        # spikes that cannot be replaced, in a network that can be counted
        net.known.register_forward_hook(lambda _net, _given, output: output[..., :1].expand_as(output))
    seen = observe(net, data(), batch_size=10)
    seen.save(tmp_path)
    for before in (net, Observation.load(tmp_path)):
        found = compare(before, net, data(), batch_size=10)
        assert found.synops is None
        (item,) = found.unknown_neurons
        assert (item.name, item.share) == ("own", pytest.approx(8 / 14))
    (finding,) = check(net, net, data(), Limits(drift=0.1), batch_size=10).findings
    assert finding.outcome == "undecided"
    assert "own: Chooses gives spikes" in finding.about


class Hidden(Own):
    """Fires in batches of ten alone, by a way that has more products."""

    def __init__(self, spike: Spell) -> None:
        super().__init__(spike)
        self.more = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0 * self.more(x)) if len(x[0]) == 10 else x


def test_neurons_of_a_way_that_the_first_images_did_not_take_are_named() -> None:
    net = Net(Hidden(SPIKES["bool"])).eval()
    (item,) = compare(net, net, data(), batch_size=10).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))


STRAIGHT: dict[str, Spell] = {
    "of a difference": lambda v: (v - 1) + ((v > 1).float() - (v - 1)).detach(),
    "of one difference": lambda v: (x := v - 1) + ((x > 0).float() - x).detach(),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_what_straight_through_estimators_add_are_spikes(name: str) -> None:
    net = Net(Own(STRAIGHT[name], None)).eval()
    (item,) = compare(net, net, data()).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))


class Twice(Own):
    """One state is looked at twice, less its threshold."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = 0.5 * v + step
            out.append(self.spike(v))
            v = v - self.spike(v)
        return torch.stack(out)


@pytest.mark.parametrize("spike", [lambda v: (v - 1 > 0).float(), lambda v: torch.sigmoid(v - 1).round()])
def test_a_state_that_is_looked_at_twice_by_one_helper_is_one_layer(spike: Spell) -> None:
    net = Net(Twice(spike)).eval()
    (item,) = compare(net, net, data()).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))


def test_through_sparse_tensors_they_are_told() -> None:
    net = Net(Own(lambda v: (v > 1).float().to_sparse().to_dense())).eval()
    (item,) = compare(net, net, data()).unknown_neurons
    assert (item.name, item.share) == ("own", pytest.approx(8 / 14))


class Rounded(nn.Module):
    """A readout's state at a fixed point."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = torch.round((0.75 * v + step) * 8) / 8
            out.append(v)
        return torch.stack(out)


OTHERS: dict[str, Spell] = {
    "levels of an activation": lambda v: (v.clamp(0, 1) * 15).round() / 15,
    "a ramp": lambda v: v.clamp(0, 1),
    "an even ramp that clips": lambda v: (v * 3).clamp(0, 1),
    "a power": lambda v: v.sign() * v.abs().sqrt(),
    "codes": PICKS["codes"],
    "the largest": PICKS["equal"],
    "the first of some": PICKS["topk"],
    "a mask": lambda v: v * (v > 0.5),
    "a mask of whole rows": lambda v: v * (v.sum(-1, keepdim=True) > 0),
    "what is there": lambda v: torch.where(v.isfinite(), v, 0.0),
    "places": lambda v: v.gather(-1, v.argsort(-1)),
    "a norm of one": lambda v: v / v.abs().amax(-1, keepdim=True),
    "softmax": lambda v: (v * 3).softmax(-1),
    "one token": lambda v: v.unsqueeze(-1).softmax(-1).squeeze(-1) * v,
    "moved": lambda v: torch.cat((v.flip(-1)[..., :4], v.roll(1, -1)[..., :4]), -1),
    "a fixed point": Rounded(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_stays_real_or_is_a_code_is_no_neuron(name: str) -> None:
    net = Net(Own(OTHERS[name], None)).eval()
    assert compare(net, net, data()).unknown_neurons == ()
    assert [one for one in measure_cost(net, data(5)).left_out if one.of == "neurons"] == []


@pytest.mark.parametrize("name", PICKS)
def test_what_weights_make_whole_is_not_driven_by_the_input(name: str) -> None:
    """Codes are no neurons, but quantization changes them, and what they cost."""
    net = Net(Own(PICKS[name], None)).eval()
    found = compare(net, net, data()).synops
    assert found is not None
    assert found.by_input == ()
    assert [(one.name, "made of what weights give" in one.reason) for one in found.left_out] == [("b", True)]


def test_thresholds_on_the_images_are_still_driven_by_the_input() -> None:
    class Encoded(Net):
        def forward(self, x: Tensor) -> Tensor:
            events = self.own(x[:, :8].expand(T, -1, -1) * 3)
            return self.head(self.known(self.b(events)))

    for spell in (SPIKES["relu(sign)"], SPIKES["int"], LEVELS["round of a clamp"]):
        net = Encoded(Own(spell)).eval()
        found = compare(net, net, data())
        assert found.unknown_neurons == ()
        assert found.synops is not None
        assert [(one.name, "whatever fires" in one.reason) for one in found.synops.by_input] == [("b", True)]
