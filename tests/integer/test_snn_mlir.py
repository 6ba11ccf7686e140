"""Layers as snn-mlir's own quantizer codes them (scripts/chips/mlir_codes.py): the same whole numbers by a spec."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.integer.test_oracles import cases
from torch import Tensor, nn

import isofire
from isofire.integer import lower
from isofire.neurons import LIF, PerStep
from isofire.quantization import convert

nir: Any = pytest.importorskip("nir", reason="nir is not installed", exc_type=ImportError)
WEIGHTS = {
    "method": "uniform", "bits": 8, "grid": "midtread", "granularity": "tensor", "range": "minmax", "power_of_two": True
}  # fmt: skip


def network(case: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """One layer, quantized by the rules of snn-mlir, and inputs of its shape."""
    weight, bias = torch.tensor(case["weight"]), torch.tensor(case["bias"])
    layer: Any = nn.Linear(*weight.shape[1::-1]) if weight.ndim == 2 else nn.Conv2d(weight.shape[1], len(weight), 3)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    x = torch.ones(2, 1, *((weight.shape[1],) if weight.ndim == 2 else (weight.shape[1], 6, 6)))
    spec = isofire.QuantSpec(
        weights=WEIGHTS, first_layer="quantize", last_layer="quantize", decays={"method": "fraction", "bits": 12},
        biases={"method": "fixed", "bits": 16, "fraction": case["scale"]},
        thresholds={"method": "fixed", "bits": 16, "fraction": 12},
    )  # fmt: skip
    neuron = LIF(case["tau"], decay_input=False, v_threshold=case["threshold"])
    return isofire.quantize_(nn.Sequential(PerStep(layer), neuron).eval(), spec, x), x


@pytest.mark.parametrize("case", cases("snn_mlir"))
def test_codes_of_graphs_and_of_integers_are_those_of_snn_mlir(case: dict[str, Any]) -> None:
    from isofire.nir import to_graph

    made, x = network(case)
    graph = to_graph(made, x)
    layer = next(node for node in graph.nodes.values() if "codes" in node.metadata)
    assert layer.metadata["codes"].dtype == "int8"
    assert layer.metadata["codes"].tolist() == case["codes"]
    assert set(layer.metadata["step"].tolist()) == {2.0 ** -case["scale"]}
    neurons = next(node for node in graph.nodes.values() if isinstance(node, nir.LIF))
    # a step is tau / r to snn-mlir
    assert float((1.0 - 1.0 / neurons.r.reshape(-1)[0]) * 4096) == pytest.approx(case["decay_codes"], abs=1e-3)
    assert float(neurons.v_threshold.reshape(-1)[0]) * 4096 == case["threshold_codes"]
    plain: Any = convert(made).get_submodule("0.0")
    assert (plain.bias * 2.0 ** case["scale"]).tolist() == case["bias_codes"]
    (link,) = lower(made, x).connections
    codes = torch.tensor(case["codes"]).flatten(1)
    # an output's codes may have an odd factor, which keeps thresholds and biases on one grid with them
    factors = [
        (one[code != 0] / code[code != 0]).unique().tolist()
        for one, code in zip(link.weight.flatten(1), codes, strict=True)
    ]
    assert all(len(found) == 1 and found[0] % 2 == 1 for found in factors)
    assert bool((link.weight.flatten(1)[codes == 0] == 0).all())
