"""Spikes of classes that isofire does not know are in no rate: they are named beside the drift, and nothing is kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire import QuantSpec, quantize_
from isofire.adapters import LogitsOf
from isofire.firing import Observation, compare, observe
from isofire.firing.beside import compare_several
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.models import build
from isofire.neurons import IF, LIF, PerStep, Repeat
from isofire.study import blame

T = 4


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        return (v > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class Surrogate(nn.Module):
    def forward(self, v: Tensor) -> Tensor:
        return (v >= 0).to(v)


class MyLIF(nn.Module):
    """A leaky neuron with a hard reset, or one that integrates, subtracts and may fire several."""

    def __init__(self, threshold: float = 0.3, leak: float = 0.5, how: str = "function") -> None:
        super().__init__()
        self.threshold, self.leak, self.how, self.surrogate = threshold, leak, how, Surrogate()

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for step in x:
            v = self.leak * v + step
            match self.how:
                case "function":
                    z = Step.apply(v - self.threshold)
                    v = v * (1 - z)
                case "module":
                    z = self.surrogate(v - self.threshold)
                    v = torch.where(z > 0, torch.zeros_like(v), v)
                case "several":
                    z = torch.floor(v.clamp(min=0) / self.threshold)
                    v = v - z * self.threshold
                case _:
                    z = torch.where(v < self.threshold, 0.0, 1.0)
                    v = v - z * self.threshold
            out.append(z)
        return torch.stack(out)


class Binary(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.heaviside(x, torch.zeros(()))


class Around(nn.Module):
    """First the known neurons, then what is asked about, then a readout."""

    def __init__(self, middle: nn.Module, head: nn.Module, before: nn.Module | None = None) -> None:
        super().__init__()
        self.before, self.first, self.known = before or Repeat(T), nn.Linear(6, 20), LIF(v_threshold=0.3)
        self.middle, self.head = middle, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.known(self.first(self.before(x)))))


class ByHand(nn.Module):
    """Spikes in the network's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.known, self.second, self.head = nn.Linear(6, 20), LIF(), nn.Linear(20, 50), nn.Linear(50, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes, v, out = self.known(self.first(x).expand(T, -1, -1)), 0.0, []
        for step in spikes:
            v = 0.9 * v + self.second(step)
            fired = Step.apply(v - 1)
            v = v - fired
            out.append(self.head(fired))
        return torch.stack(out)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(1, 4, 3, padding=1), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = torch.heaviside(self.conv(x.flatten(0, 1).unsqueeze(1)), torch.zeros(()))
        return self.last(nn.functional.max_pool1d(spikes, 2).flatten(1)).unflatten(0, x.shape[:2])


STRANGERS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    # network, module that is named, its outputs beside 20 neurons
    "a leaky neuron": (lambda: Around(nn.Sequential(nn.Linear(20, 50), MyLIF()), nn.Linear(50, 3)), "middle.1", 50),
    "a surrogate": (
        lambda: Around(nn.Sequential(nn.Linear(20, 50), MyLIF(how="module")), nn.Linear(50, 3)), "middle.1", 50,
    ),
    "where": (lambda: Around(nn.Sequential(nn.Linear(20, 50), MyLIF(0.3, 1, "")), nn.Linear(50, 3)), "middle.1", 50),
    "several": (
        lambda: Around(nn.Sequential(nn.Linear(20, 50), MyLIF(0.3, 1, "several")), nn.Linear(50, 3)), "middle.1", 50,
    ),
    "no weights between": (lambda: Around(MyLIF(1.5, 0.9), nn.Linear(20, 3)), "middle", 20),
    "at the output": (lambda: Around(nn.Identity(), nn.Sequential(nn.Linear(20, 3), MyLIF())), "head.1", 3),
    "first": (
        lambda: Around(nn.Identity(), nn.Linear(20, 3), nn.Sequential(Repeat(T), nn.Linear(6, 6), MyLIF())),
        "before.2", 6,
    ),
    "without a state": (lambda: Around(nn.Sequential(nn.Linear(20, 50), Binary()), nn.Linear(50, 3)), "middle.1", 50),
    "normed": (
        lambda: Around(nn.Sequential(nn.Linear(20, 50), Binary(), PerStep(nn.BatchNorm1d(50))), nn.Linear(50, 3)),
        "middle.1", 50,
    ),
    "pooled": (lambda: Around(nn.Identity(), Pooled()), "head", 80),
    "by hand": (ByHand, "(model)", 50),
}  # fmt: skip


def data(images: int = 100) -> tuple[Tensor, Tensor]:
    return torch.randn(images, 6) * 3, torch.arange(images) % 3


@pytest.mark.parametrize("name", STRANGERS)
def test_they_are_named_with_their_share(name: str) -> None:
    torch.manual_seed(0)
    make, module, outputs = STRANGERS[name]
    model = make().eval()
    found = compare(model, copy.deepcopy(model), data())
    (item,) = found.unknown_neurons
    assert (item.name, item.of) == (module, "neurons")
    assert item.share == pytest.approx(outputs / (outputs + 20))
    assert f"NOT IN THE RATES: {module}" in found.table()
    assert found.row()["firing_left_out"] == str(item)
    # two networks that are one keep everything that is known of them
    assert found.overall["emd_max"] == 0
    assert (found.kept().firing, found.row()["keeps_firing"]) == ("undecided", "undecided")
    assert json.loads(found.to_json())["left_out"][0]["name"] == module


def test_no_limit_on_firing_is_kept_and_others_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, given = STRANGERS["a leaky neuron"][0]().eval(), data(400)
    limits = Limits(drift=2, dead_share=1, accuracy_drop=0.5, most={"emd_max": 1}, least={"spearman": 0.1},
                    multiples={"paired_mae": 3})  # fmt: skip
    found = {item.name: item for item in check(model, model, given, limits).findings}
    assert {name for name, item in found.items() if item.outcome == "undecided"} >= set(found) - {
        "accuracy_drop", "baseline",
    }  # fmt: skip
    assert all("middle.1: MyLIF gives spikes" in found[name].about for name in ("drift", "dead_share", "emd_max"))
    # what fails of the neurons that are known fails
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.first.weight.mul_(0.2)  # type: ignore[union-attr, operator]
    assert check(model, other, given, Limits(drift=2)).findings[0].outcome == "fails"
    observe(model, given).save(tmp_path)
    assert [item.name for item in compare(Observation.load(tmp_path), model, given).unknown_neurons] == ["middle.1"]
    beside = compare_several({"a": model, "b": copy.deepcopy(model)}, given)
    assert beside.rows()[0]["keeps_firing"] == "undecided"
    assert "NOT IN THE RATES: middle.1" in beside.table()
    spec = QuantSpec(weights={"method": "uniform", "bits": 3}, first_layer="quantize")
    assert "NOT IN THE RATES: middle.1" in blame(model, spec, data(40), data(40)).table()


class Encoder(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.gain = how, nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        steps = x.expand(T, *x.shape)
        match self.how:
            case "threshold":
                return (steps > 0.5).float()
            case "scaled":
                return (steps * self.gain > 0.5).float()
            case "poisson":
                return (torch.rand_like(steps) < steps.sigmoid()).float()
            case "drawn":
                return steps.sigmoid().bernoulli()
            case "latency":
                return torch.stack([(x.sigmoid() * T).floor() == t for t in range(T)]).float()
        v, out = torch.zeros_like(x), []
        for step in steps:
            v = v + step.abs()
            out.append((v > 1).float())
            v = v - out[-1]
        return torch.stack(out)


class Masks(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.gate, self.last, self.drop = how, nn.Linear(20, 20), nn.Linear(20, 20), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        currents = self.gate(x)
        match self.how:
            case "gate":
                return self.last(x * (currents > 0))
            case "relu":
                return self.last(currents * (currents > 0))
            case "top":
                return self.last(torch.where(currents >= currents.topk(3).values[..., -1:], x, 0.0))
            case "dropout":
                return self.last(self.drop(x))
            case "attention":
                rows, values = currents.transpose(0, 1), x.transpose(0, 1)
                scores = rows @ values.mT
                return self.last((scores.masked_fill(scores < 0, -1e9).softmax(-1) @ values).transpose(0, 1))
            case "levels":
                return self.last((currents.clamp(0, 1) * 15).round() / 15)
            case "max":
                pooled = nn.functional.max_pool1d(x, 2, 1, 1)[..., :20]
                return self.last(pooled)
            case "any":
                return self.last((x > 0).float())
            case "codes":
                return self.last(nn.functional.one_hot(currents.argmax(-1), 20).float())
        v, out = torch.zeros_like(currents[0]), []
        for step in currents:
            v = 0.9 * v + step
            if self.how == "clipped":
                v = torch.where(v > 1, torch.ones_like(v), v)
            if self.how == "rounded":
                v = (v * 16).round() / 16
            out.append(v)
        return self.last(torch.stack(out))


class Decides(nn.Module):
    """A leaky readout whose class is what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.zeros(x.shape[1], 3)
        for step in x:
            v = 0.9 * v + self.last(step)
        return nn.functional.one_hot(v.argmax(1), 3).float()


HOLD: dict[str, Callable[[], nn.Module]] = {
    **{
        f"encoder: {how}": lambda how=how: Around(nn.Identity(), nn.Linear(20, 3), Encoder(how))
        for how in ("threshold", "scaled", "poisson", "drawn", "latency", "integrated")
    },
    **{
        f"mask: {how}": lambda how=how: Around(Masks(how), nn.Linear(20, 3))
        for how in (
            "gate",
            "relu",
            "top",
            "dropout",
            "levels",
            "max",
            "any",
            "codes",
            "leaky",
            "clipped",
            "rounded",
        )
    },
    # a step sees all others, as exits would
    "mask: attention": lambda: LogitsOf(Around(Masks("attention"), nn.Linear(20, 3)), axes="TNC"),
    "argmax": lambda: Around(nn.Identity(), Decides()),
    "integrate": lambda: Around(nn.Sequential(nn.Linear(20, 9), IF()), nn.Linear(9, 3)),
}


@pytest.mark.parametrize("name", HOLD)
def test_encoders_masks_pools_and_readouts_are_no_neurons(name: str) -> None:
    torch.manual_seed(0)
    model = HOLD[name]().eval()
    found = compare(model, copy.deepcopy(model), data(400))
    assert found.unknown_neurons == ()
    assert (found.row()["firing_left_out"], found.kept().firing) == (None, "keeps")


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_networks_of_isofire_have_none_before_and_after_quantization(connect: str) -> None:
    torch.manual_seed(0)
    model = build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1, "connect": connect})
    given = torch.randn(40, 1, 8, 8), torch.zeros(40, dtype=torch.int64)
    spec = QuantSpec(weights={"method": "lsq", "bits": 3}, membrane={"bits": 4, "placement": "post_reset"})
    assert compare(model, quantize_(copy.deepcopy(model), spec, given), given).unknown_neurons == ()
