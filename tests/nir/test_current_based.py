"""Current-based neurons, leaky integrators, recurrent weights: NIR's equations both ways, and other tools' steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isofire
from isofire.errors import ModelError
from isofire.neurons import IF, LI, LIF, CubaLIF, PerStep, Recurrent

nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
nirs: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)

DT = 1e-3


def graph(recurrent: bool = True, seed: int = 0) -> Any:
    """A graph as the published Braille networks have it: fc1, recurrent current-based neurons, fc2, more of them."""
    rng = np.random.default_rng(seed)

    def many(size: int, low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, size).astype(np.float32)

    def neurons(size: int) -> Any:
        tau_mem, tau_syn = many(size, 2, 20) * DT, many(size, 1.5, 8) * DT
        return nir.CubaLIF(
            tau_mem=tau_mem, tau_syn=tau_syn, r=many(size, 0.5, 2) * tau_mem / DT, v_leak=np.zeros(size, np.float32),
            v_threshold=many(size, 0.8, 1.5), v_reset=np.zeros(size, np.float32),
            w_in=many(size, 0.5, 2) * tau_syn / DT,
        )  # fmt: skip

    def affine(out: int, into: int, scale: float) -> Any:
        weight = (rng.standard_normal((out, into)) * scale).astype(np.float32)
        return nir.Affine(weight=weight, bias=(rng.standard_normal(out) * 0.05).astype(np.float32))

    nodes = {
        "input": nir.Input(input_type={"input": np.array([12])}), "fc1": affine(20, 12, 0.5), "lif1.lif": neurons(20),
        "lif1.w_rec": affine(20, 20, 0.2), "fc2": affine(7, 20, 0.5), "lif2": neurons(7),
        "output": nir.Output(output_type={"output": np.array([7])}),
    }  # fmt: skip
    edges = [("input", "fc1"), ("fc1", "lif1.lif"), ("lif1.lif", "fc2"), ("fc2", "lif2"), ("lif2", "output")]
    if recurrent:
        edges += [("lif1.lif", "lif1.w_rec"), ("lif1.w_rec", "lif1.lif")]
    else:
        del nodes["lif1.w_rec"]
    return nir.NIRGraph(nodes=nodes, edges=edges)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("node", "field"),
    [("lif2", field) for field in ("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")]
    + [("fc1", "weight"), ("fc2", "bias"), ("lif1.w_rec", "weight")],
)
def test_numbers_that_are_not_finite_are_refused(node: str, field: str, value: float, tmp_path: Path) -> None:
    g = graph()
    getattr(g.nodes[node], field).flat[-1] = value
    nir.write(tmp_path / "net.nir", g)
    with pytest.raises(ModelError, match=rf"node '{node}' has {field} = {value}, it must be finite"):
        nirs.read(tmp_path / "net.nir", nirs.Convention(dt=DT))


def simulated(g: Any, x: np.ndarray, *, subtract: bool) -> np.ndarray:
    """The graph by Euler's rule in float64, the current with the input of the step: numpy and nothing of isofire."""
    names = ["lif1.lif", "lif2"]
    state = {name: np.zeros((2, x.shape[1], len(g.nodes[name].r))) for name in names}
    before = np.zeros((x.shape[1], 20))
    found = []

    def affine(name: str, value: np.ndarray) -> np.ndarray:
        return value @ g.nodes[name].weight.astype(float).T + g.nodes[name].bias

    def step(name: str, value: np.ndarray) -> np.ndarray:
        n, (i, v) = g.nodes[name], state[name]
        i = i + DT / n.tau_syn * (-i + n.w_in * value)
        v = v + DT / n.tau_mem * (n.v_leak - v + n.r * i)
        fired = (v >= n.v_threshold).astype(float)
        v = v - fired * n.v_threshold if subtract else np.where(fired > 0, n.v_reset, v)
        state[name] = np.stack([i, v])
        return fired

    for row in x:
        into = affine("fc1", row)
        if "lif1.w_rec" in g.nodes:
            into = into + affine("lif1.w_rec", before)
        before = step("lif1.lif", into)
        found.append(step("lif2", affine("fc2", before)))
    return np.stack(found)


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "value"])
def test_a_graph_of_neurons_with_numbers_of_their_own_runs_by_its_equations(recurrent: bool, reset: Any) -> None:
    g = graph(recurrent)
    net = nirs.read(g, nirs.Convention(dt=DT, reset=reset))
    x = (np.random.default_rng(1).random((60, 8, 12)) < 0.4).astype(np.float32)
    expected = simulated(g, x, subtract=reset == "subtract")
    found = net(torch.from_numpy(x)).detach().numpy()
    assert 0.02 < expected.mean() < 0.9
    # float32 against float64: a tie in a thousand
    assert (found != expected).mean() < 0.002


@pytest.mark.parametrize("recurrent", [True, False])
def test_what_was_read_is_written_and_read_again(recurrent: bool, tmp_path: Path) -> None:
    net = nirs.read(graph(recurrent), nirs.Convention(dt=DT, reset="subtract"))
    x = (torch.rand(30, 5, 12) < 0.4).float()
    again = nirs.read(nirs.write(tmp_path / "net.nir", net, x, dt=DT))
    assert torch.equal(again(x), net(x))
    if recurrent:
        layer = again.get_submodule("lif1.lif")
        assert isinstance(layer, Recurrent)
        assert isinstance(layer.cell, CubaLIF)
        assert layer.cell.tau_mem.shape == (20,)
    # and a reader that knows nothing of isofire's metadata sees the same equations
    bare = nir.read(tmp_path / "net.nir")
    for node in bare.nodes.values():
        node.metadata = {}
    bare.metadata = {}
    other = nirs.read(bare, nirs.Convention(dt=DT, reset="subtract"))
    assert float((other(x) != net(x)).float().mean()) < 0.002


NEURONS = {
    "before": lambda: CubaLIF(5.0, 3.0), "after": lambda: CubaLIF(5.0, 3.0, synapse="after_decay", v_reset=None),
    "decayed input": lambda: CubaLIF(5.0, torch.linspace(2, 6, 10), decay_input=True, v_reset=-0.25),
}  # fmt: skip


@pytest.mark.parametrize("kind", NEURONS)
def test_own_neurons_and_integrators_come_back_exactly(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        PerStep(nn.Linear(12, 10)), Recurrent(NEURONS[kind](), nn.Linear(10, 10)), PerStep(nn.Linear(10, 10)),
        NEURONS[kind](), PerStep(nn.Linear(10, 3)), LI(4.0),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[0][0].weight.mul_(5)
        net[2][0].weight.mul_(5)
    x = (torch.rand(20, 4, 12) < 0.5).float()
    assert float(net[:4](x).detach().mean()) > 0.01
    again = nirs.read(nirs.write(tmp_path / "net.nir", net, x))
    assert torch.equal(again(x), net(x))


def test_quantized_recurrent_weights_keep_their_spec(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        PerStep(nn.Linear(12, 10)), Recurrent(CubaLIF(5.0, 3.0), nn.Linear(10, 10)), PerStep(nn.Linear(10, 3)), IF()
    ).eval()
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": 3}, first_layer="quantize", last_layer="quantize")
    isofire.quantize_(net, spec)
    assert net[1].weight.weight[0].unique().numel() <= 8
    x = (torch.rand(20, 4, 12) < 0.5).float()
    again = nirs.read(nirs.write(tmp_path / "net.nir", net, x))
    assert torch.equal(again(x), net(x))
    assert [c.name for c in isofire.quantization.make_plan(again, isofire.quantization.spec_of(again)).choices] == [
        c.name for c in isofire.quantization.make_plan(net, spec).choices
    ]


def test_subgraphs_are_made_flat() -> None:
    g = graph()
    inner = nir.NIRGraph(
        nodes={
            "input": nir.Input(input_type={"input": np.array([20])}), "lif": g.nodes["lif1.lif"],
            "w_rec": g.nodes["lif1.w_rec"], "output": nir.Output(output_type={"output": np.array([20])}),
        },
        edges=[("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )  # fmt: skip
    outer = nir.NIRGraph(
        nodes={**{key: node for key, node in g.nodes.items() if "lif1" not in key}, "lif1": inner},
        edges=[("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2"), ("lif2", "output")],
    )
    x = (torch.rand(30, 5, 12) < 0.4).float()
    convention = nirs.Convention(dt=DT, reset="subtract")
    assert torch.equal(nirs.read(outer, convention)(x), nirs.read(g, convention)(x))


def test_lif_nodes_with_numbers_of_their_own_are_current_free() -> None:
    tau = np.linspace(2, 9, 6, dtype=np.float32) * DT
    node = nir.LIF(
        tau=tau, r=np.ones(6, np.float32), v_leak=np.zeros(6, np.float32), v_reset=np.zeros(6, np.float32),
        v_threshold=np.linspace(0.2, 0.6, 6, dtype=np.float32),
    )  # fmt: skip
    ends = {
        "input": nir.Input(input_type={"input": np.array([6])}),
        "output": nir.Output(output_type={"output": np.array([6])}),
    }
    g = nir.NIRGraph(nodes={**ends, "n": node}, edges=[("input", "n"), ("n", "output")])
    net, x = nirs.read(g, nirs.Convention(dt=DT)), torch.rand(20, 3, 6) * 2
    for j in range(6):
        alone = LIF(float(tau[j] / DT), v_threshold=float(node.v_threshold[j]))
        assert float((net(x)[..., j : j + 1] != alone(x[..., j : j + 1])).float().mean()) < 0.02


@pytest.mark.parametrize(("field", "said"), [("v_leak", "leaks to 0.5"), ("tau_syn", "tau_syn = 0.5 steps")])
def test_what_has_no_counterpart_is_refused(field: str, said: str) -> None:
    g = graph(recurrent=False)
    setattr(g.nodes["lif2"], field, np.full(7, 0.5 if field == "v_leak" else 0.5 * DT, np.float32))
    with pytest.raises(ModelError, match=said):
        nirs.read(g, nirs.Convention(dt=DT))


def test_snntorch_synaptic_graphs_charge_as_snntorch_does() -> None:
    """Up to its first spike a neuron is the same; what a spike then does is each tool's own."""
    snn: Any = pytest.importorskip("snntorch", reason="snntorch is not installed")
    export: Any = pytest.importorskip("snntorch.export_nir", reason="snntorch has no NIR writer", exc_type=ImportError)
    torch.manual_seed(0)
    alpha, beta, threshold = (torch.full((16,), value) for value in (0.6, 0.8, 2.0))
    cell = snn.Synaptic(alpha=alpha, beta=beta, threshold=threshold, init_hidden=True)
    net = nn.Sequential(nn.Linear(12, 16), cell)
    x = (torch.rand(25, 4, 12) < 0.4).float()
    g = export.export_to_nir(net, x[0, 0])
    net[1].reset_hidden()
    expected = torch.stack([net(step) for step in x])
    found = nirs.read(g, nirs.Convention(reset="subtract"))(x)
    assert 0.1 < float((expected.sum(0) > 0).float().mean()) < 1.0
    assert torch.equal(expected.cumsum(0) > 0, found.cumsum(0) > 0)


def test_snntorch_recurrent_graphs_are_read() -> None:
    snn: Any = pytest.importorskip("snntorch", reason="snntorch is not installed")
    export: Any = pytest.importorskip("snntorch.export_nir", reason="snntorch has no NIR writer", exc_type=ImportError)
    alpha, beta, threshold = (torch.full((16,), value) for value in (0.6, 0.8, 1.0))
    cell = snn.RSynaptic(
        alpha=alpha, beta=beta, threshold=threshold, all_to_all=True, linear_features=16, init_hidden=True
    )
    net = nn.Sequential(nn.Linear(12, 16), cell)
    found = nirs.read(export.export_to_nir(net, torch.rand(12)), nirs.Convention(reset="subtract"))
    (layer,) = [module for module in found.modules() if isinstance(module, Recurrent)]
    assert torch.allclose(layer.weight.weight, cell.recurrent.weight, rtol=1e-5)


def test_numbers_for_a_whole_layer_are_read_as_those_of_each_neuron() -> None:
    """Norse writes a LIFCell with one number for each constant."""
    wanted = {
        "tau_mem": 0.008,
        "tau_syn": 0.004,
        "r": 1.0,
        "v_leak": 0.0,
        "v_threshold": 0.3,
        "v_reset": 0.0,
        "w_in": 1.0,
    }
    weight = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)

    def net(made: Any) -> Any:
        nodes = {
            "input": nir.Input(input_type={"input": np.array([12])}), "fc": nir.Linear(weight=8 * weight),
            "n": nir.CubaLIF(**{key: made(value) for key, value in wanted.items()}),
            "output": nir.Output(output_type={"output": np.array([5])}),
        }  # fmt: skip
        edges = [("input", "fc"), ("fc", "n"), ("n", "output")]
        return isofire.nir.read(
            nir.NIRGraph(nodes=nodes, edges=edges, type_check=False), isofire.nir.Convention(dt=DT, reset="value")
        )

    x = torch.randint(0, 2, (30, 4, 12), generator=torch.Generator().manual_seed(1)).float()
    many = net(lambda value: np.full(5, value, dtype=np.float32))(x)
    assert torch.equal(net(lambda value: np.array(value, dtype=np.float32))(x), many)
    assert 0.02 < float(many.detach().mean()) < 0.9
