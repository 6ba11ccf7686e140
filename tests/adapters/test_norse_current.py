"""Which current Norse's LIFCell charges its membrane with, and what a graph of its own writer needs to say the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isofire.neurons import CubaLIF

norse: Any = pytest.importorskip("norse.torch", reason="norse is not installed", exc_type=ImportError)

DT, INPUTS, NEURONS = 0.001, 5, 6
TAU_MEM, TAU_SYN, THRESHOLD = 10.0, 5.0, 0.1


def network() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    values = {
        "tau_syn_inv": 1 / (TAU_SYN * DT), "tau_mem_inv": 1 / (TAU_MEM * DT), "v_th": THRESHOLD, "v_leak": 0.0,
        "v_reset": 0.0,
    }  # fmt: skip
    # its writer takes a neuron's shape from its parameters
    given = norse.LIFParameters(**{key: torch.full((NEURONS,), value) for key, value in values.items()})
    cells = norse.SequentialState(nn.Linear(INPUTS, NEURONS), norse.LIFCell(given, dt=DT))
    return cells, (torch.rand(60, 3, INPUTS) < 0.6).float()


@torch.no_grad()
def stepped(cells: Any, x: Tensor) -> Tensor:
    state, spikes = None, []
    for step in x:
        fired, state = cells(step, state)
        spikes.append(fired)
    return torch.stack(spikes)


@torch.no_grad()
def test_its_cell_charges_with_the_current_that_new_input_has_reached() -> None:
    cells, x = network()
    expected = stepped(cells, x)
    assert 100 < int(expected.sum()) < expected.numel() / 2

    def differ(synapse: Any) -> int:
        neuron = CubaLIF(TAU_MEM, TAU_SYN, synapse=synapse, decay_input=True, v_reset=0.0, v_threshold=THRESHOLD)
        return int((neuron(cells[0](x)) != expected).sum())

    assert differ("before_decay") == 0
    assert differ("before_input") > 50


def test_a_graph_of_its_writer_needs_the_gain_of_its_synapse(tmp_path: Any) -> None:
    nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
    isofire_nir: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)
    cells, x = network()
    expected = stepped(cells, x)
    graph = norse.to_nir(cells, x[0])
    (node,) = (node for node in graph.nodes.values() if isinstance(node, nir.CubaLIF))
    # it writes dt / tau_inv, a time constant in seconds times dt, so that a step is dt^2 long
    step = DT * DT
    convention = isofire_nir.Convention(dt=step, reset="value", synapse="before_decay")

    def read() -> Tensor:
        nir.write(tmp_path / "net.nir", graph)
        with torch.no_grad():
            return isofire_nir.read(tmp_path / "net.nir", convention).eval()(x)

    # by NIR's equation an input adds w_in dt / tau_syn; its cell adds all of it, its writer leaves w_in at 1
    assert float(read().sum()) < float(expected.sum()) / 2
    node.w_in = node.tau_syn / step
    assert torch.equal(read(), expected)
