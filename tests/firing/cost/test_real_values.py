"""What arrives at weights as real numbers multiplies, whatever sums of spikes it was made of; what folds does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.firing.cost.fires import Fires, FiresAdapter, fires  # noqa: F401
from torch import Tensor, nn

from isofire.adapters import OverTime, register, unregister
from isofire.firing.cost import Cost, SynapseCost, measure_cost, reach
from isofire.neurons import IF, LIF

T, N, F, CLASSES = 6, 5, 24, 3
FRAMES = torch.rand(T, N, F, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(N) % CLASSES


def leaky(decay: float, gain: float = 1.0) -> Callable[[Tensor], Tensor]:
    def trace(z: Tensor) -> Tensor:
        v, out = torch.zeros_like(z[0]), []
        for spikes in z:
            v = decay * v + gain * spikes
            out.append(v)
        return torch.stack(out)

    return trace


def by_subtraction(z: Tensor) -> Tensor:
    v, out = torch.zeros_like(z[0]), []
    for spikes in z:
        v = v - 0.1 * v + spikes
        out.append(v)
    return torch.stack(out)


def in_place(z: Tensor) -> Tensor:
    v, out = torch.zeros_like(z[0]), torch.empty_like(z)
    for t, spikes in enumerate(z):
        v.mul_(0.5).add_(spikes)
        out[t] = v
    return out


def momentum(z: Tensor) -> Tensor:
    v, out = torch.zeros_like(z[0]), []
    for spikes in z:
        v = torch.lerp(v, spikes, 0.1)
        out.append(v)
    return torch.stack(out)


def running_mean(z: Tensor) -> Tensor:
    total, out = torch.zeros_like(z[0]), []
    for t, spikes in enumerate(z):
        total = total + spikes
        out.append(total / (t + 1))
    return torch.stack(out)


def running_mean_by_cat(z: Tensor) -> Tensor:
    return torch.cat([z[: t + 1].mean(0, keepdim=True) for t in range(len(z))])


def corrected_mean(z: Tensor) -> Tensor:
    mean, out = torch.zeros_like(z[0]), []
    for t, spikes in enumerate(z):
        mean = mean + (spikes - mean) / (t + 1)
        out.append(mean)
    return torch.stack(out)


def filtered(z: Tensor) -> Tensor:
    """Of second order, as currents and then a membrane."""
    return leaky(0.5)(leaky(0.8)(z))


REAL = {
    "trace": leaky(0.5), "moving average": leaky(0.9, 0.1), "by subtraction": by_subtraction, "in place": in_place,
    "momentum": momentum, "running mean": running_mean, "running mean by cat": running_mean_by_cat,
    "corrected mean": corrected_mean, "second order": filtered,
    "cumulative mean": lambda z: z.cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1),
    "scaled cumulative sum": lambda z: 0.1 * z.cumsum(0),
    "centred": lambda z: z - z.mean(-1, keepdim=True),
    "with its mean": lambda z: z + z.mean(-1, keepdim=True),
    "with the map's mean": lambda z: z + 0.5 * z.mean((0, 2), keepdim=True),
    "standardised": lambda z: (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True).add(0.1),
    "its mean everywhere": lambda z: z.mean(-1, keepdim=True).expand_as(z),
    "its mean everywhere, copied": lambda z: z.mean(-1, keepdim=True).repeat(1, 1, F),
    "one tensor by two factors": lambda z: 0.3 * z + 0.6 * z.flip(-1),
}  # fmt: skip


class Net(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fire, self.between, self.head = LIF(), between, nn.Linear(F, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.fire(x)))


def head_of(model: nn.Module) -> SynapseCost:
    cost = measure_cost(model.eval(), (FRAMES, LABELS))
    assert all(item.of == "states" for item in cost.left_out)
    return next(item for item in cost.synapses if item.name == "head")


@pytest.mark.parametrize("name", REAL)
def test_sums_that_do_not_fold_into_weights_multiply(name: str) -> None:
    model, seen = Net(REAL[name]), []
    handle = model.head.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach()))
    head = head_of(model)
    handle.remove()
    values = torch.cat([x.flatten() for x in seen])
    assert (values != values.round()).any()
    assert (head.event_driven, head.synops.max) == (False, 0)
    assert head.macs_every_step == head.macs_once == T * F * CLASSES
    # no spike has a cost of its own there, and nothing is undecided
    found = reach(model, FRAMES[:, :2])
    assert found.left_out == ()
    assert torch.equal(found["fire"], torch.zeros(F, dtype=torch.float64))


class Stepped(nn.Module):
    """Weights are used at each step, or once at the end."""

    def __init__(self, kind: str, neurons: nn.Module | None = None) -> None:
        super().__init__()
        self.kind, self.fire, self.head = kind, IF() if neurons is None else neurons, nn.Linear(F, CLASSES)
        self.spikes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        steps = self.fire(x) if isinstance(self.fire, IF) else (self.fire(frame) for frame in x)
        self.spikes = 0.0
        for t, spikes in enumerate(steps):
            self.spikes += float(spikes.sum())
            match self.kind:
                case "trace":
                    v = 0.5 * v + spikes
                case "scaled running sum" | "mean at the end":
                    v = v + spikes
                case "mean of the scaled":
                    v = v + spikes / T
                case "running mean":
                    v = (v * t + spikes) / (t + 1)
            arriving = 0.1 * v if self.kind == "scaled running sum" else v
            if "mean " not in self.kind or self.kind == "running mean":
                out.append(self.head(arriving))
        if out:
            return torch.stack(out)
        return self.head(v / T if self.kind == "mean at the end" else v)


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("kind", ["trace", "scaled running sum", "running mean"])
def test_weights_that_see_a_trace_step_by_step_multiply(kind: str, stepped: bool) -> None:
    """Also at the first step, where a trace is nothing but the spikes."""
    head = head_of(Stepped(kind, Fires(0.7) if stepped else None))
    assert (head.synops.max, head.macs_once, head.macs_every_step) == (0, T * F * CLASSES, T * F * CLASSES)


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("kind", ["mean at the end", "mean of the scaled"])
def test_a_mean_over_time_passes_each_spike_on_once(kind: str, stepped: bool) -> None:
    model = Stepped(kind, Fires(0.7) if stepped else None)
    with torch.no_grad():
        model(FRAMES)
    expected = model.spikes * CLASSES / N
    head = head_of(model)
    assert expected > 0
    assert head.event_driven
    assert head.synops.mean == pytest.approx(expected)
    assert torch.equal(reach(model, FRAMES[:, :2])["fire"], torch.full((F,), float(CLASSES), dtype=torch.float64))


class Branches(nn.Module):
    """A residual sum of two layers of neurons, each by a factor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mid, self.second, self.head = LIF(), nn.Linear(F, F), LIF(), nn.Linear(F, CLASSES)
        self.alpha, self.spikes = nn.Parameter(torch.tensor(0.3)), 0.0

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(4 * self.mid(a))
        self.spikes = float(a.sum() + b.sum())
        return self.head(torch.add(a, b * self.alpha, alpha=2) - 0.5)


def test_a_residual_sum_of_scaled_branches_stays_events() -> None:
    torch.manual_seed(0)
    model = Branches()
    with torch.no_grad():
        model(FRAMES)
    head = head_of(model)
    assert head.event_driven
    assert head.synops.mean == pytest.approx(model.spikes * CLASSES / N)


class Beside(nn.Module):
    """Spikes beside real numbers, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.fire, self.head = how, LIF(), nn.Linear(2 * F, CLASSES)
        self.spikes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        z = self.fire(x)
        self.spikes = float(z.sum())
        match self.how:
            case "image":
                joined = torch.cat([z, x], -1)
            case "trace":
                joined = torch.cat([leaky(0.5)(z), z], -1)
            case "written":
                joined = torch.empty(*x.shape[:2], 2 * F)
                joined[..., :F], joined[..., F:] = x, z
            case "scaled":
                joined = torch.cat([0.25 * z, torch.tanh(x)], -1)
        return self.head(joined)


@pytest.mark.parametrize("how", ["image", "trace", "written", "scaled"])
def test_spikes_beside_real_numbers_count_each_in_their_way(how: str) -> None:
    """Unit weights on the spikes, and the dense product of the rest."""
    model = Beside(how)
    with torch.no_grad():
        model(FRAMES)
    head = head_of(model)
    assert model.spikes > 0
    assert not head.event_driven
    assert head.synops.mean == pytest.approx(model.spikes * CLASSES / N)
    assert head.macs_once == T * F * CLASSES
    assert torch.equal(reach(model, FRAMES[:, :2])["fire"], torch.full((F,), float(CLASSES), dtype=torch.float64))


def cost_in(dtype: torch.dtype, autocast: bool) -> Cost:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(F, F), LIF(), nn.Linear(F, CLASSES)).eval()
    with torch.no_grad():
        # a quarter is exact in every type, so that the same neurons fire
        for parameter in model.parameters():
            parameter.copy_((parameter * 40).round() / 4)
    frames = (FRAMES * 4).round() / 4 - 0.125
    if not autocast:
        return measure_cost(model.to(dtype), (frames.to(dtype), LABELS))

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=dtype):
                return self.inner(x).float()

    return measure_cost(Cast().eval(), (frames, LABELS))


@pytest.mark.parametrize(("dtype", "autocast"), [
    (torch.bfloat16, False), (torch.float16, False), (torch.float64, False), (torch.bfloat16, True),
    (torch.float16, True),
])  # fmt: skip
def test_other_types_of_numbers_count_the_same(dtype: torch.dtype, autocast: bool) -> None:
    expected, found = cost_in(torch.float32, False), cost_in(dtype, autocast)
    assert expected.synops.mean > 0
    assert found.synops == expected.synops
    assert (found.macs(), found.macs("every_step")) == (expected.macs(), expected.macs("every_step"))


BY_VALUE = {
    "square": lambda a, b: (a + b) ** 2,
    "square by hand": lambda a, b: (a + b) * (a + b),
    "or": lambda a, b: a + b - a * b,
    "exclusive or": lambda a, b: a + b - 2 * a * b,
    "neither": lambda a, b: (1 - a) * (1 - b),
    "not neither": lambda a, b: 1 - (1 - a) * (1 - b),
    "the larger": torch.maximum,
    "at most one": lambda a, b: (a + b).clamp(max=1),
    "difference": lambda a, b: (a - b).abs(),
    "change": lambda a, b: a.diff(dim=0, prepend=torch.zeros_like(a[:1])),
    "any": lambda a, b: torch.stack([a, b]).any(0).float(),
    "median": lambda a, b: torch.stack([a, b, a]).median(0).values,
    "held": lambda a, b: a.cummax(0).values,
    "masked": lambda a, b: a.clone().index_put_((b > 0,), torch.zeros(())),
    "added product": lambda a, b: torch.addcmul(a, a, b),
    "doubled and halved": lambda a, b: a * 2 / 2,
    "running sum": lambda a, b: a.cumsum(0),
    "by integers": lambda a, b: (a.int() + b.int()).float(),
    "weighted by whole numbers": lambda a, b: 3 * a + b,
}


class Joined(Branches):
    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        joined = self.join(a, self.second(4 * self.mid(a)))
        self.spikes, self.seen = float(joined.abs().sum()), joined
        return self.head(joined)


@pytest.mark.parametrize("name", BY_VALUE)
def test_whole_numbers_made_of_spikes_count_by_value(name: str) -> None:
    torch.manual_seed(0)
    model = Joined(BY_VALUE[name])
    with torch.no_grad():
        model(FRAMES)
    assert torch.equal(model.seen, model.seen.round())
    assert model.spikes > 0
    head = head_of(model)
    assert (head.event_driven, head.macs_once) == (True, 0)
    assert head.synops.mean == pytest.approx(model.spikes * CLASSES / N)


def test_graded_spikes_that_are_scaled_are_one_event_each() -> None:
    """Their height is a factor of the weights then; of two layers by two heights none is left."""
    torch.manual_seed(0)
    model = Joined(lambda a, b: 0.3 * (3 * a))
    with torch.no_grad():
        model(FRAMES)
    assert head_of(model).synops.mean == pytest.approx(float(model.seen.count_nonzero()) * CLASSES / N)
    assert head_of(Joined(lambda a, b: 0.3 * (3 * a + b))).synops.max == 0


class Ternary(nn.Module):
    at = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return (x > 2).float() - (x < 1).float()


def test_negative_spikes_are_events() -> None:
    register(Ternary, FiresAdapter())
    try:
        model = nn.Sequential(Ternary(), nn.Linear(F, CLASSES)).eval()
        cost = measure_cost(OverTime(model, 3), (FRAMES[0], LABELS))
    finally:
        unregister(Ternary)
    expected = 3 * float(model[0](FRAMES[0]).abs().sum()) / N * CLASSES
    assert expected > 0
    assert cost.synops.mean == pytest.approx(expected)


def test_inside_inference_mode_all_is_the_same() -> None:
    model = Net(leaky(0.5)).eval()
    mean = Net(lambda z: z.mean(0)).eval()
    expected = measure_cost(model, (FRAMES, LABELS)), reach(mean, FRAMES[:, :2])
    with torch.inference_mode():
        found = measure_cost(model, (FRAMES, LABELS)), reach(mean, FRAMES[:, :2])
    assert found[0] == expected[0]
    assert torch.equal(found[1]["fire"], expected[1]["fire"])


def test_a_silent_layers_trace_multiplies_all_the_same() -> None:
    """What is counted comes from the network and not from which images show it; of one step a trace is the spikes."""
    model = Net(leaky(0.5)).eval()
    silent, short = (measure_cost(model, (frames, LABELS)) for frames in (FRAMES * 0, FRAMES[:1]))
    assert (silent.spikes.max, silent.synops.max, silent.macs()) == (0, 0, T * F * CLASSES)
    assert (short.synops.mean, short.macs()) == (pytest.approx(short.spikes.mean * CLASSES), 0)
    assert short.spikes.mean > 0
