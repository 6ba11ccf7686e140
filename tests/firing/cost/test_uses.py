"""Weights that work in other ways than by products: counted where that is known, else named with their share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.firing import compare
from isofire.firing.cost import Cost, measure_cost, reach
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import IF, PerStep, Repeat

LABELS = torch.zeros(40, dtype=torch.int64)
SHARE = 56 / (48 + 56 + 21)


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 8))
        self.taken = self.weight.detach().numpy().copy()


class Chosen(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.unsqueeze(-2) > 0, self.weight, 0.0).sum(-1)


class Filled(Held):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(len(x), 7, 8).masked_fill(x.unsqueeze(1) == 0, 0.0).sum(-1)


class ByNumpy(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() @ self.weight.detach().numpy().T)


class ByLists(Held):
    def forward(self, x: Tensor) -> Tensor:
        found = np.array(x.tolist()) @ np.array(self.weight.tolist()).T
        return torch.tensor(found, dtype=torch.float32)


class TakenBefore(Held):
    """Its own copy of the weights, outside of torch before the forward begins."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() @ self.taken.T)


class Gathered(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.weight[:, row.nonzero()[:, 0]].sum(1) for row in x])


class Masked(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.weight[:, row > 0].sum(1) for row in x])


class Selected(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.weight.index_select(1, row.nonzero()[:, 0]).sum(1) for row in x])


class Scattered(Held):
    def forward(self, x: Tensor) -> Tensor:
        image, neuron = x.nonzero(as_tuple=True)
        return torch.zeros(len(x), 7).index_add(0, image, self.weight.T[neuron])


class Event(Held):
    """Event-driven code: each spike adds its column."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 7)
        for image, neuron in x.nonzero().tolist():
            out[image] += self.weight[:, neuron]
        return out


class EventByItem(Held):
    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for row in x:
            added = torch.zeros(7)
            for neuron in row.nonzero()[:, 0]:
                added = added + self.weight[:, neuron]
            rows.append(added)
        return torch.stack(rows)


class LookedUp(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([F.embedding(row.nonzero()[:, 0], self.weight.T).sum(0) for row in x])


class Sparse(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.weight.to_sparse(), x.T).T


class SparseSpikes(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(x.to_sparse(), self.weight.T)


class Highest(Held):
    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x.unsqueeze(1), self.weight).amax(-1)


class WrittenOut(Held):
    """A dot product an output: elements scaled, then summed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * row).sum(-1) for row in self.weight], -1)


class Gain(Held):
    """One weight an element, an offset, a threshold: no synapses."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight[0] + self.weight[1] + (x > self.weight[2]))[:, :7]


def network(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        Repeat(4), PerStep(nn.Linear(6, 8)), IF(v_threshold=0.3), PerStep(layer), IF(), PerStep(nn.Linear(7, 3))
    ).eval()


def cost_of(layer: nn.Module) -> Cost:
    torch.manual_seed(0)
    return measure_cost(network(layer), (torch.rand(40, 6) * 3, LABELS), max_images=5)


UNCOUNTED = [Event, EventByItem, Chosen, Filled, ByNumpy, ByLists, TakenBefore, Gathered, Masked, Selected, Scattered,
             LookedUp, Sparse, SparseSpikes, Highest]  # fmt: skip


@pytest.mark.parametrize("kind", UNCOUNTED)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_work_that_is_not_counted_is_named_with_its_share(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer = kind()
    (item,) = cost_of(layer).left_out
    assert item.name == "3.0"
    assert item.share == pytest.approx(SHARE)
    assert [found.name for found in reach(network(layer), torch.rand(2, 6)).left_out] == ["3.0"]


def test_a_limit_on_work_that_is_not_counted_is_undecided() -> None:
    torch.manual_seed(0)
    model = network(Chosen())
    data = torch.rand(40, 6) * 3, LABELS
    (finding,) = check(model, model, data, Limits(synops=2.0)).findings
    assert finding.outcome == "undecided"
    assert "3.0: its weights work by where" in finding.about
    row = compare(model, model, data).row()
    assert row["synops"] is None
    assert "3.0" in row["synops_left_out"]


def test_a_network_of_one_size_of_batch_has_its_synapses_looked_for_on_a_whole_one() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(nn.Linear(8, 7))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.view(40, 6))

    torch.manual_seed(0)
    model, data = Whole(), (torch.rand(40, 6) * 3, LABELS)
    found, other = compare(model, model, data).synops, compare(model.inner, model.inner, data).synops
    assert found is not None
    assert other is not None
    assert found.overall == other.overall


def test_a_sum_of_scaled_elements_is_a_layer() -> None:
    """7 rows of 8: each spike is multiplied with 7 weights."""
    cost = cost_of(WrittenOut())
    layer = next(item for item in cost.synapses if item.name == "3.0")
    assert cost.neurons[0].spikes.mean > 0
    assert layer.event_driven
    assert layer.synops.mean == pytest.approx(7 * cost.neurons[0].spikes.mean)
    assert cost.left_out == ()


def test_gains_offsets_and_thresholds_are_no_synapses() -> None:
    cost = cost_of(Gain())
    assert [item.name for item in cost.synapses] == ["1.0", "5.0"]
    assert cost.left_out == ()


def test_values_that_are_looked_at_outside_of_torch_leave_nothing_out() -> None:
    """A network that logs its spikes has nothing that comes back."""

    class Logs(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = x.detach().numpy().sum()
            return super().forward(x) * torch.tensor(1.0)

    cost = cost_of(Logs(8, 7))
    assert cost.left_out == ()
    assert [item.name for item in cost.synapses] == ["1.0", "3.0", "5.0"]


def test_a_share_that_is_not_known_is_said() -> None:
    class Outside(nn.Module):
        """Weights that are no parameter at all."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() @ np.ones((8, 7), np.float32))

    (item,) = cost_of(Outside()).left_out
    assert item.share is None
    assert str(item) == "3.0: works outside of torch (numpy), which is not counted (share unknown)"


def test_products_of_complex_numbers_are_named() -> None:
    class Fourier(Held):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(self.weight[0]), n=8)[:, :7]

    assert {item.name for item in cost_of(Fourier()).left_out} == {"3.0"}


@pytest.mark.parametrize("make", [torch.jit.script, lambda layer: torch.jit.trace(layer, torch.rand(2, 8))])
@pytest.mark.filterwarnings("ignore")
def test_scripts_are_followed_as_their_code_is(make: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(8, 7)
    assert cost_of(make(plain)).synops == cost_of(plain).synops
    assert reach(network(make(plain)), torch.rand(2, 6)).left_out == ()
