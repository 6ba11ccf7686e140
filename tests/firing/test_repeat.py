"""A network that keeps something from one batch to the next is told, for its numbers depend on the order of batches;
one that gives an image other numbers beside other images is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.bare import BareAdapter
from torch import Tensor, nn

from isofire.adapters import Layout, register
from isofire.data import TensorSet
from isofire.errors import ModelError
from isofire.firing import FiringRecorder, compare, repeat
from isofire.firing.cost import measure_cost
from isofire.firing.repeat import tell_unlike
from isofire.firing.timing import compare_timing
from isofire.models import sew_resnet8
from isofire.neurons import LIF
from isofire.quantization import diagnose, reestimate_batch_norm, repair_
from isofire.training import evaluate

X, Y = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) * 4, torch.arange(20) % 3
TOLD = "gives other numbers when the same images are shown again"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Linear(6, 8), LIF(v_threshold=0.3), nn.Linear(8, 3)
        self.register_buffer("count", torch.zeros(()))
        self.kept: Tensor | float = 0.0

    def logits(self, x: Tensor) -> Tensor:
        return self.b(self.n(self.a(x.unsqueeze(0).repeat(4, 1, 1))))

    def forward(self, x: Tensor) -> object:
        return self.logits(x)


class Integrates(Net):
    """A readout of its own that is never brought to rest."""

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for step in self.logits(x):
            kept = self.kept if isinstance(self.kept, Tensor) and len(self.kept) == len(x) else 0.0
            self.kept = 0.9 * kept + step
            steps.append(self.kept)
        return torch.stack(steps)


class Counts(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.logits(x) + self.count * torch.tensor([0.0, 0.5, 0.0])


class DrawsByNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x * torch.from_numpy(np.random.default_rng().random(x.shape)).float())


class BringsItselfToRest(Integrates):
    def forward(self, x: Tensor) -> Tensor:
        self.kept = 0.0
        return super().forward(x)


class DrawsByTorch(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits((torch.rand(x.shape) < x / 4).float() * 4)


class DrawsAsManyAsImagesSay(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(torch.poisson(x))


class Masked(Net):
    """With numbers that are equal to nothing, or to themselves only."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        return torch.where(logits < 0, -torch.inf, logits), torch.full((len(x), 1, 1, 1), torch.nan)


@pytest.mark.parametrize("kind", [Integrates, Counts, DrawsByNumpy])
def test_what_is_kept_from_batch_to_batch_is_told(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    compare(kind(), kind(), (X, Y), batch_size=10)
    assert caplog.text.count(f"{kind.__name__} {TOLD}") == 2


@pytest.mark.parametrize("kind", [Net, BringsItselfToRest, DrawsByTorch, DrawsAsManyAsImagesSay, Masked])
def test_networks_that_begin_at_rest_are_not(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    found = compare(kind(), kind(), (X, Y), batch_size=10)
    assert found.agreement == 1
    assert TOLD not in caplog.text


def test_looking_twice_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = sew_resnet8(width=0.25, T=2, in_channels=1, num_classes=3)
    images = torch.rand(6, 1, 8, 8)
    state = torch.random.get_rng_state()
    compare(model, model, (images, torch.arange(6) % 3), batch_size=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert TOLD not in caplog.text


class Normed(Net):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def logits(self, x: Tensor) -> Tensor:
        return self.b(self.n(self.norm(self.a(x)).unsqueeze(0).repeat(4, 1, 1)))


class ByTheBatch(nn.Module):
    """A norm of one's own, of the mean alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) / 2


class StaysInTrainMode(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> StaysInTrainMode:
        return super().train()


class SharesOut(Net):
    """A softmax over the wrong axis."""

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).mean(0).softmax(0)


class UntilAllAreDone(Net):
    def forward(self, x: Tensor) -> Tensor:
        steps = int(x[:, 2].ceil().max()) + 1
        return self.b(self.n(self.a(x.unsqueeze(0).repeat(steps, 1, 1))))


def _all(model: nn.Module, x: Tensor = X) -> list[Callable[[], object]]:
    return [
        lambda: compare(model, model, (x, Y), batch_size=10),
        lambda: measure_cost(model, (x, Y)),
        lambda: compare_timing(model, model, (x, Y)),
    ]


@pytest.mark.parametrize("kind", [lambda: Normed(ByTheBatch()), SharesOut, UntilAllAreDone])
def test_images_that_depend_on_those_beside_them_are_refused(kind: type[Net]) -> None:
    for measured in _all(kind().eval()):
        with pytest.raises(ModelError, match="gives an image other numbers beside other images"):
            measured()


class FromOthers(Net):
    """What one image of a batch decides for all, and does not change that one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.gru = how, nn.GRU(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "the first image":
                x = x - 0.5 * x[:1]
            case "a mask of the first":
                x = x * (x[:1] > 2)
            case "a mean so far":
                x = x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]
            case "the largest number":
                x = 4 * x / x.amax()
            case "the least number":
                x = x - x.amin()
        spikes = self.n(self.a(x).expand(4, -1, -1))
        if self.how == "a cell along the images":
            spikes = self.gru(spikes.transpose(0, 1))[0].transpose(0, 1)
        if self.how == "a delay along the images":
            spikes = torch.cat([torch.zeros_like(spikes[:, :1]), spikes[:, :-1]], 1) + spikes
        return self.b(spikes)


FROM_OTHERS = (
    "the first image", "a mask of the first", "a mean so far", "the largest number", "the least number",
    "a cell along the images", "a delay along the images",
)  # fmt: skip


@pytest.mark.parametrize("how", FROM_OTHERS)
def test_what_one_image_decides_for_all_is_refused(how: str) -> None:
    # the first image decides: beside itself alone it has the numbers that it has in the batch
    x = X.clone()
    x[0, :2] = torch.tensor([4.5, -0.5])
    for measured in _all(FromOthers(how).eval(), x):
        with pytest.raises(ModelError, match="gives an image other numbers beside other images"):
            measured()


class OfOneSize(Net):
    """The batch size, or a part of it, is written in."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def logits(self, x: Tensor) -> Tensor:
        match self.how:
            case "the mean":
                x = x.reshape(20, 6)
                x = x / x.mean(0)
            case "the largest number":
                x = x.reshape(20, 6)
                x = 4 * x / x.amax()
            case "groups of four":
                groups = x.view(-1, 4, 6)
                x = (groups - 0.5 * groups[:, :1]).flatten(0, 1)
            case "each by itself":
                x = x + torch.zeros(20, 1)
        return super().logits(x)


@pytest.mark.parametrize("how", ["the mean", "the largest number", "groups of four"])
def test_where_few_images_fail_the_whole_batch_is_asked(how: str) -> None:
    model = OfOneSize(how).eval()
    for measured in (compare, compare_timing):
        with pytest.raises(ModelError, match="gives an image other numbers beside other images"):
            measured(model, model, (X, Y), batch_size=20)


def test_a_batch_size_that_is_written_in_is_no_dependence(caplog: pytest.LogCaptureFixture) -> None:
    model, turned = OfOneSize("each by itself").eval(), torch.arange(20).flip(0)
    found = [compare(model, model, (x, y), batch_size=20).overall["mfr"] for x, y in ((X, Y), (X[turned], Y[turned]))]
    assert found[0] == found[1] > 0
    assert caplog.text == ""


def test_where_one_image_repeated_fails_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Whitens(Net):
        def logits(self, x: Tensor) -> Tensor:
            gone = x - x.mean(0)
            return super().logits(gone @ torch.linalg.inv(gone.T @ gone) * 4)

    model, x = Whitens().eval(), torch.cat([X, X.flip(1)])
    compare(model, model, (x, torch.arange(40) % 3), batch_size=40)
    assert "Whitens gives an image other numbers beside other images could not be asked" in caplog.text
    assert "batch_size = 1" in caplog.text


class BatchFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)


class Squeezed(nn.Module):
    """Neurons that take [N, T, ...], as of a library that may be built for one size of batch."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b, self.size = nn.Linear(6, 200), BatchFirst(), nn.Linear(200, 3), size
        self.shown: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(len(x))
        currents = self.a(x).reshape(self.size or len(x), 1, 200)
        return self.b(self.n(currents.expand(-1, 4, -1))).mean(1)


def test_few_images_are_asked_of_neurons_that_take_batches_first() -> None:
    register(BatchFirst, BareAdapter(Layout.BATCH_FIRST))
    x = torch.rand(64, 6)
    tell_unlike(model := Squeezed(None).eval(), x, 64)
    assert max(model.shown) == 6
    tell_unlike(model := Squeezed(64).eval(), x, 64)
    assert set(model.shown) == {6, 64, 63}


def test_only_spikes_that_are_compared_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    register(BatchFirst, BareAdapter(Layout.BATCH_FIRST))
    held: list[int] = []
    alike = repeat._alike
    monkeypatch.setattr(repeat, "_alike", lambda *a: held.append(sum(x.numel() for x in a[0])) or alike(*a))
    tell_unlike(Squeezed(64).eval(), torch.rand(64, 6), 64)
    assert max(held) == 6 * 4 * 200


@pytest.mark.parametrize(
    ("norm", "why"),
    [
        (nn.BatchNorm1d(8, track_running_stats=False), "track_running_stats=False"),
        (StaysInTrainMode(8), "it stays in train mode"),
    ],
)
def test_norms_by_the_batch_are_named_with_a_cure(norm: nn.Module, why: str) -> None:
    model = Normed(norm).eval()
    others = [
        lambda: FiringRecorder(model).__enter__(),
        lambda: diagnose(model, X),
        lambda: repair_(model, model, X),
        lambda: evaluate(model, TensorSet.of((X, Y), "mine", "test")),
    ]
    for measured in (*_all(model), *others):
        with pytest.raises(ModelError, match=rf"'norm' .* normalises by the batch .* \({why}\)"):
            measured()


def test_running_statistics_are_the_cure() -> None:
    model = Normed(nn.BatchNorm1d(8)).eval()
    assert reestimate_batch_norm(model, [X]) == 1
    other = Normed(ByTheBatch())
    other.load_state_dict(model.state_dict(), strict=False)
    apart = [compare(model, model, (X, Y), batch_size=size).overall for size in (20, 3)]
    assert apart[0] == apart[1]
    # shown alone, an image has the numbers of a batch of one
    alone = compare(other, other, (X, Y), batch_size=1)
    with torch.no_grad():
        spikes = torch.cat([other.n((other.a(x[None]) / 2).repeat(4, 1, 1)) for x in X], 1)
    assert 0.05 < alone.overall["mfr"] == pytest.approx(float(spikes.mean()), abs=1e-7)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(8, momentum=None), nn.InstanceNorm1d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)]
)
def test_norms_of_each_image_are_taken(norm: nn.Module) -> None:
    model = Normed(norm)
    if isinstance(norm, nn.InstanceNorm1d):
        model.norm = nn.Sequential(nn.Unflatten(1, (4, 2)), nn.InstanceNorm1d(4), nn.Flatten())
    apart = [compare(model, model, (X, Y), batch_size=size).overall for size in (20, 3)]
    assert apart[0] == apart[1]


def test_an_axis_of_as_many_numbers_as_images_is_none_of_images() -> None:
    class Rows(Net):
        def forward(self, x: Tensor) -> Tensor:
            spikes = self.n(self.a(x).expand(4, -1, -1)).flatten(0, 1)
            return torch.stack([(spikes - row).abs().sum(-1) for row in torch.eye(8)[:6]])

    model = Rows().eval()
    found = measure_cost(model, (X[:6], Y[:6]))
    with torch.no_grad():
        fired = model.n(model.a(X[:6]).expand(4, -1, -1)).sum()
    assert found.spikes.mean == pytest.approx(float(fired) / 6)
