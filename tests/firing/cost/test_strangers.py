"""Costs name spikes of classes that isofire does not know: they are in no number of spikes, AER bits or energy."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.firing.test_unknown_neurons import HOLD, STRANGERS, MyLIF, data
from torch import Tensor, nn

from isofire.firing import compare
from isofire.firing.cost import Cost, CostComparison, measure_cost
from isofire.firing.cost.counting.together import together_for
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF, Repeat


def of_neurons(cost: Cost) -> list[LeftOut]:
    return [item for item in cost.left_out if item.of == "neurons"]


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("name", STRANGERS)
def test_they_are_named_with_their_share(name: str, batch_size: int) -> None:
    torch.manual_seed(0)
    make, module, outputs = STRANGERS[name]
    model = make().eval()
    cost = measure_cost(model, data(7), batch_size=batch_size)
    (item,) = of_neurons(cost)
    assert (item.name, item.share) == (module, pytest.approx(outputs / (outputs + 20)))
    # 20 known neurons have addresses of 5 bits
    assert cost.aer_bits == pytest.approx(5 * cost.spikes.mean)
    assert f"NOT COUNTED: {item}" in cost.table()
    assert item.name in [found["name"] for found in cost.to_dict()["left_out"]]
    both = CostComparison(baseline=cost, quantized=cost)
    assert str(item) in both.table()
    assert str(item) in str(both.row()["cost_left_out"])


@pytest.mark.parametrize("name", HOLD)
def test_encoders_masks_pools_and_readouts_are_none(name: str) -> None:
    torch.manual_seed(0)
    assert of_neurons(measure_cost(HOLD[name]().eval(), data(5))) == []


class Before(nn.Module):
    """Own neurons of the images' currents, and known ones after them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.first, self.own = Repeat(4), nn.Linear(6, 30), MyLIF()
        self.second, self.known, self.last = nn.Linear(30, 8), LIF(v_threshold=0.3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.known(self.second(self.own(self.first(self.steps(x))))))


class Together(Before):
    """Takes no image alone."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise RuntimeError("a batch of one")
        return super().forward(x)


def test_they_are_looked_for_where_no_image_runs_alone() -> None:
    torch.manual_seed(0)
    way = together_for(Together().eval(), data(7)[0], 0)
    assert (way.copies, way.strangers) == (7, True)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Before().eval()


def test_what_their_spikes_cost_is_counted_by_value(model: nn.Module) -> None:
    fired: list[Tensor] = []
    given = data(7)
    with torch.no_grad():
        handle = model.get_submodule("own").register_forward_hook(lambda _m, _i, out: fired.append(out))
        model(given[0])
        handle.remove()
    cost = {item.name: item for item in measure_cost(model, given).synapses}
    # each spike of the 30 leads to 8 neurons
    assert cost["second"].synops.mean == pytest.approx(8 * float(fired[0].sum()) / 7)


def test_no_limit_on_synops_is_kept_where_they_drive_layers(model: nn.Module) -> None:
    """They drive `second`, and quantization changes them: that is not whatever fires."""
    given = data(400)
    found = compare(model, copy.deepcopy(model), given).synops
    assert found is not None
    assert found.by_input == ()
    (item,) = found.left_out
    # of 30 x 8 and 8 x 3 synapses
    assert (item.name, item.share) == ("second", pytest.approx(240 / 264))
    assert "driven by spikes of own" in item.reason
    verdict = check(model, copy.deepcopy(model), given, Limits(synops=1.5, state_bytes=1e6))
    assert {one.name: one.outcome for one in verdict.findings} == {"synops": "undecided", "state_bytes": "undecided"}
