"""Views of what flows between layers, and changes in place: as those of plain tensors, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import isofire
from isofire.errors import ModelError
from isofire.firing import FiringRecorder
from isofire.lookup import native
from isofire.neurons import IF, PerStep

T, N, C, SIZE = 3, 4, 4, 4
MASK = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(4, 1, 1)
PATHS = ["auto", "torch"] if native.library() is not None else ["torch"]

Change = Callable[[Any, random.Random], Any]


def _written(x: Tensor, _: random.Random) -> Tensor:
    x.numpy()[..., 0] = 1.0
    return x


def _assigned(x: Tensor, _: random.Random) -> Tensor:
    x[..., 0] = 0.0
    return x


def _negated(x: Tensor, _: random.Random) -> Tensor:
    torch.ops.aten._foreach_neg_.default([x])
    return x


def _raised(x: Tensor, _: random.Random) -> Tensor:
    x[...] += 1.0
    return x


FOLDS: dict[str, Change] = {
    "fold": lambda x, _: x.flatten(0, 1),
    "flat": lambda x, _: x.flatten(-3) if x.ndim > 3 else x.flatten(1),
    "unfold": lambda x, _: x.unflatten(0, (T, N)),
    "unfold -1": lambda x, _: x.unflatten(0, (T, -1)),
    "unfold by view": lambda x, _: x.reshape(T, N, *x.shape[1:]),
}
VIEWS: dict[str, Change] = {
    "detach": lambda x, _: x.detach(),
    "data": lambda x, _: x.data,
    "contiguous": lambda x, _: x.contiguous(),
    "copy": lambda x, _: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.clone(),
    "float": lambda x, _: x.float(),
    "dropout": lambda x, _: F.dropout(x, training=False),
    "all": lambda x, _: x[...],
    "part": lambda x, _: x[:, : x.shape[1] // 2 + 1],
    "chunk": lambda x, r: x.chunk(2, r.randrange(x.ndim))[0],
    "unbind": lambda x, r: x.unbind(r.randrange(x.ndim))[0],
    "split": lambda x, _: torch.split(x, 2)[-1],
    "transpose": lambda x, _: x.transpose(-2, -1),
    "permute": lambda x, _: x.movedim(0, -1),
    "diagonal": lambda x, _: x.diagonal(),
    "as_strided": lambda x, _: x.view(x.shape).as_strided((2, 2), (2, 1)),
}  # fmt: skip
CHANGES: dict[str, Change] = {
    "mul_": lambda x, _: x.mul_(MASK if x.ndim > 3 and x.shape[-3] == C else 0.0),
    "add_": lambda x, _: x.add_(0.5),
    "relu_": lambda x, _: torch.relu_(x),
    "clamp_": lambda x, _: F.hardtanh(x, -1.0, 1.0, inplace=True),
    "fill": lambda x, _: x.select(0, 0).fill_(1.0),
    "assign": _assigned,
    "raise": _raised,
    "out": lambda x, _: torch.add(x, 1.0, out=x),
    "out of spikes": lambda x, _: torch.mul(x, x, out=x),
    "foreach": _negated,
    "numpy": _written,
}  # fmt: skip


class Wild(nn.Module):
    """A network that takes views, changes in place, joins and layers by chance, and gives all that it has then."""

    def __init__(self, seed: int = 0, steps: int = 12, without: str = "") -> None:
        super().__init__()
        self.seed, self.steps, self.without = seed, steps, without
        self.first, self.fired = PerStep(nn.Conv2d(1, C, 3, padding=1, bias=False)), IF(v_threshold=0.5)
        self.conv, self.again = nn.Conv2d(C, C, 3, padding=1, bias=False), IF(v_threshold=0.5)
        self.linear = nn.Linear(C * SIZE * SIZE, 3, bias=False)
        self.norm = nn.BatchNorm2d(C, eps=0.0)

    def forward(self, x: Tensor) -> Tensor:
        chance = random.Random(self.seed)
        views, changes = ({k: v for k, v in of.items() if k not in self.without} for of in (VIEWS, CHANGES))
        all_of_it = [self.fired(self.first(x))]
        for _ in range(self.steps):
            some = chance.choice(all_of_it if chance.random() < 0.5 else all_of_it[:3])
            kind = chance.choice([FOLDS, views, changes, None, None])
            if kind is None:
                all_of_it.append(self._layer(some, chance))
            else:
                name = chance.choice(list(kind))
                if not name.startswith("unfold") or (len(some) == T * N and some.is_contiguous()):
                    some = kind[name](some, chance) if some.ndim > 1 else some
                all_of_it.append(some)
        return torch.cat([each.reshape(-1) for each in all_of_it])

    def _layer(self, x: Tensor, chance: random.Random) -> Tensor:
        if x.shape == (T, N, C, SIZE, SIZE):
            x = x.flatten(0, 1)
        if x.shape[1:] == (C, SIZE, SIZE):
            made = chance.choice([self.conv, lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: self.norm(self.conv(x))])(x)
            return made if chance.random() < 0.5 or len(x) != T * N else self.again(made.unflatten(0, (T, N)))
        if x.shape[-1:] == (C * SIZE * SIZE,):
            return self.linear(x)
        return chance.choice([lambda x: x * x, lambda x: 1 - x, lambda x: x + x])(x)


def _coded(model: nn.Module) -> Any:
    """With weights that are few multiples of 1/4, so that all sums are exact."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = torch.randint(-2, 3, layer.weight.shape) / 4
    return model.eval()


def _images() -> Tensor:
    return torch.randint(0, 3, (T, N, 1, SIZE, SIZE)).float()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("block", range(4))
def test_views_and_changes_by_chance(path: Any, block: int) -> None:
    torch.manual_seed(block)
    model, x, packed = _coded(Wild()), _images(), 0
    quick: Any = isofire.fast(model, path=path, plan=False)
    with torch.no_grad():
        for seed in range(60 * block, 60 * (block + 1)):
            model.seed = quick.seed = seed
            assert torch.equal(quick(x), model(x)), seed
            packed += any(name == "again" and how != "as it was" for name, how, _ in quick.paths())
    assert packed > 15


@pytest.mark.skipif(native.library() is None, reason="the look-ups were not compiled")
def test_views_and_changes_by_chance_from_a_plan() -> None:
    torch.manual_seed(1)
    model, planned = _coded(Wild(steps=5, without="numpy unbind chunk split foreach mul_ fill assign")), 0
    quick: Any = isofire.fast(model, plan=True)
    with torch.no_grad():
        for seed in range(60):
            model.seed = quick.seed = seed
            for x in (_images(), _images(), _images()):
                assert torch.equal(quick(x), model(x)), seed
            planned += [why for _, why in quick._plans.said()] == [""]
    assert planned > 2


class Late(nn.Module):
    """A network that changes something between a layer and the neurons behind it."""

    def __init__(self, change: Callable[[Any, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.change = change
        self.first, self.fired = nn.Conv2d(1, C, 3, padding=1, bias=False), IF(v_threshold=0.5)
        self.second, self.again = nn.Conv2d(C, C, 3, padding=1, bias=False), IF(v_threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        u = self.first(x.flatten(0, 1)).unflatten(0, (T, N))
        self.change(self, x, u)
        y = self.fired(u)
        v = self.second(y.flatten(0, 1))
        self.change(self, y, v)
        return self.again(v.unflatten(0, (T, N)))


def _negate(net: Any, *_: Tensor) -> None:
    for layer in (net.first, net.second):
        layer.weight.mul_(-1.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda _net, x, _u: x.zero_(),
        lambda _net, x, _u: x.numpy().fill(0.0),
        lambda _net, x, _u: x.data.add_(1.0),
        lambda _net, _x, u: u.flatten(0, 1).add_(1.0),
        lambda _net, _x, u: torch.neg(u, out=u),
        _negate,
    ],
    ids=["input", "input by numpy", "input by data", "fold of the sums", "out", "weights"],
)
def test_what_is_worked_out_late_is_worked_out_of_what_there_was(change: Any, plan: bool, path: Any) -> None:
    torch.manual_seed(5)
    model = _coded(Late(change))
    quick = isofire.fast(model, path=path, plan=plan)
    with torch.no_grad():
        for _ in range(3):
            x = _images()
            expected = model(x)
            assert torch.equal(quick(x), expected)
            assert 0.0 < float(expected.mean()) < 1.0


class Counted(nn.Module):
    """A fold of spikes, taken before the spikes change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fired = PerStep(nn.Conv2d(1, C, 3, padding=1, bias=False)), IF(v_threshold=0.5)
        self.second, self.again = nn.Conv2d(C, C, 3, padding=1, bias=False), IF(v_threshold=0.5)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = y = self.fired(self.first(x))
        f = y.flatten(0, 1)
        y[..., 0] = 0.0
        return self.again(self.second(f).unflatten(0, (T, N)))


@pytest.mark.parametrize("path", PATHS)
def test_recorders_count_the_spikes_of_a_changed_view(path: Any) -> None:
    torch.manual_seed(3)
    model, x = _coded(Counted()), _images()
    found = []
    for net in (model, isofire.fast(model, path=path)):
        with FiringRecorder(net) as recorder, torch.no_grad():
            net(x)
        found.append(recorder.counts.counts)
    for name, counts in found[0].items():
        assert torch.equal(found[1][name], counts)
        assert counts.sum() > 0


class Keeping(nn.Module):
    """A network whose spikes outlive the forward, as its output and as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fired = PerStep(nn.Conv2d(1, C, 3, padding=1, bias=False)), IF(v_threshold=0.5)
        self.second = nn.Conv2d(C, C, 3, padding=1, bias=False)
        self.kept: Any = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.kept = self.fired(self.first(x))
        return self.kept, self.kept.flatten(2)


def test_outputs_are_views_of_each_other_and_of_what_is_kept() -> None:
    torch.manual_seed(4)
    model, x = _coded(Keeping()), _images()
    nets: list[Any] = [model, isofire.fast(model)]
    found = []
    for net in nets:
        with torch.no_grad():
            whole, flat = net(x)
            assert type(whole) is type(flat) is Tensor
            assert whole.is_contiguous()
            whole[..., 0] = 2.0
            found.append((whole, flat, net.second(net.kept.flatten(0, 1)) + 0.0))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.unsqueeze_(0),
        lambda x: x.transpose_(0, 1),
        lambda x: x.resize_(3),
        lambda x: setattr(x, "data", torch.zeros(3)),
        lambda x: torch.add(torch.ones(2), 1.0, out=x),
    ],
    ids=["unsqueeze_", "transpose_", "resize_", "data", "out"],
)
def test_changes_of_axes_in_place_are_refused(change: Callable[[Any], object]) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fired = PerStep(nn.Conv2d(1, C, 3, padding=1, bias=False)), IF(v_threshold=0.5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fired(self.first(x))
            change(y)
            return y

    quick = isofire.fast(_coded(Odd()), plan=False)
    with pytest.raises(ModelError, match=r"axes or the memory of spikes or sums .* clone\(\) it first"):
        quick(_images())


@pytest.mark.skipif(native.library() is None, reason="the look-ups were not compiled")
def test_no_plan_where_numpy_reads_spikes() -> None:
    class Read(Counted):
        def forward(self, x: Tensor) -> Tensor:
            y = self.fired(self.first(x))
            y.flatten(0, 1).numpy()[:, 0] = 1.0
            return self.again(self.second(y.flatten(0, 1)).unflatten(0, (T, N)))

    torch.manual_seed(6)
    model = _coded(Read())
    quick: Any = isofire.fast(model, plan=True)
    with torch.no_grad():
        for _ in range(3):
            x = _images()
            assert torch.equal(quick(x), model(x))
    assert [why for _, why in quick._plans.said()] == ["numpy goes to the memory of spikes or sums"]
