"""Networks that hold sparse matrices in buffers, as graph networks and reservoirs do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import copy_of
from isofire.errors import ModelError
from isofire.firing import compare
from isofire.firing.cost import measure_cost
from isofire.neurons import LIF
from isofire.training import save_weights

RING = torch.eye(6) * 0.5 + torch.eye(6).roll(1, 0) * 0.5
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": lambda x: x.to_sparse().coalesce(),
    "csr": lambda x: x.to_sparse_csr(),
    "csc": lambda x: x.to_sparse_csc(),
}
DATA = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) * 4, torch.arange(8) % 3
SPEC = isofire.QuantSpec(weights={"method": "lsq", "bits": 4}, first_layer="quantize", last_layer="quantize")

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


class Graph(nn.Module):
    def __init__(self, ring: Tensor, *, persistent: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("ring", ring, persistent=persistent)
        self.into, self.fire, self.head = nn.Linear(6, 8), LIF(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fire(self.into((self.ring @ x.T).T).expand(4, -1, -1)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_they_are_measured_and_quantized_as_dense_ones(layout: str) -> None:
    net, dense = Graph(LAYOUTS[layout](RING)), Graph(RING)
    found = measure_cost(net, DATA)
    assert found.synops == measure_cost(dense, DATA).synops
    assert [item.name for item in found.left_out] == ["(model)"]
    assert "of sparse tensors is not known" in found.left_out[0].reason
    calibrated = isofire.convert(isofire.calibrate(isofire.prepare(net, SPEC), DATA[0]))
    expected = isofire.quantize_(dense, SPEC, DATA[0])
    assert calibrated.ring.layout == net.ring.layout
    assert calibrated.ring is not net.ring
    assert torch.equal(calibrated.into.weight, expected.into.weight)
    assert compare(net, calibrated, DATA).accuracy == compare(Graph(RING), expected, DATA).accuracy


class Opened(Graph):
    """Multiplies by the matrix as a dense one."""

    def forward(self, x: Tensor) -> Tensor:
        ring = self.ring if self.ring.layout is torch.strided else self.ring.to_dense()
        return self.head(self.fire(self.into((ring @ x.T).T).expand(4, -1, -1)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_those_that_are_used_as_dense_ones_cost_as_much(layout: str) -> None:
    found, dense = (measure_cost(Opened(ring), DATA) for ring in (LAYOUTS[layout](RING), RING))
    rows, dense_rows = (cost.to_dict() for cost in (found, dense))
    # the place has the name of what makes it dense
    assert {row.pop("name") for row in rows["synapses"]} ^ {row.pop("name") for row in dense_rows["synapses"]} == {
        "(model)", "ring",
    }  # fmt: skip
    assert rows == dense_rows
    weights = {name: (item.weights, item.nonzero) for name, item in found.memory.weights.items()}
    assert (36, 12 / 36) in weights.values()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_that_are_not_finite_are_named_there_too(layout: str) -> None:
    broken = RING.clone()
    broken[2, 2] = torch.nan
    with pytest.raises(ModelError, match="'ring' of Graph has 1 NaN or infinite"):
        measure_cost(Graph(LAYOUTS[layout](broken)), DATA)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_weights_hold_none(layout: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ring of the state dict is sparse_.*; let the network's code build it"):
        save_weights(tmp_path / "it.safetensors", Graph(LAYOUTS[layout](RING)))
    assert save_weights(tmp_path / "it.safetensors", Graph(LAYOUTS[layout](RING), persistent=False)).exists()
    assert copy_of(Graph(LAYOUTS[layout](RING), persistent=False)).ring.layout == LAYOUTS[layout](RING).layout
