"""Random layers as snn-mlir quantizes them: `python scripts/chips/mlir_codes.py OUT.json [COUNT]`.

Runs in an environment with snn_mlir 1.0.0, nir and numpy; what it wrote once is stored in tests/integer/golden. It has
int8 weights with one step of 2^-k a layer, biases at that step, decays and thresholds as parts of 2^12; a step is
tau / r to it. Weights are larger than 127 / 2^12 here, and as far below 0 as above, where its rules are isofire's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import snn_mlir

import nir


def case(rng: np.random.Generator, place: int) -> dict[str, Any]:
    """A dense layer or a convolution and its neurons, as they are and as snn-mlir quantizes them."""
    shape = (4, 2, 3, 3) if place % 2 else (5, 7)
    # numbers that float32 holds exactly, whose largest has a partner of the other sign
    weight = rng.integers(-999, 1000, shape) / 2.0 ** rng.integers(8, 12)
    weight.flat[0], weight.flat[1] = -abs(weight).max(), abs(weight).max()
    bias = rng.integers(-500, 500, shape[0]) / 1024.0
    tau, threshold = float(rng.integers(5, 80) / 4), float(rng.integers(8, 40) / 16)
    found = quantized(weight.astype(np.float32), bias.astype(np.float32), tau, threshold)
    return {"weight": weight.tolist(), "bias": bias.tolist(), "tau": tau, "threshold": threshold, **found}


def quantized(weight: np.ndarray, bias: np.ndarray, tau: float, threshold: float) -> dict[str, Any]:
    """The codes of one layer."""
    if weight.ndim == 2:
        size: tuple[int, ...] = (len(weight),)
        layer, given = nir.Affine(weight, bias), np.array(weight.shape[1:])
    else:
        size = (len(weight), 4, 4)
        layer, given = nir.Conv2d((6, 6), weight, 1, 0, 1, 1, bias), np.array([weight.shape[1], 6, 6])
    constants = {"tau": tau, "r": tau, "v_leak": 0.0, "v_threshold": threshold, "v_reset": 0.0}
    neurons = nir.LIF(**{name: np.full(size, value) for name, value in constants.items()})
    nodes = {"input": nir.Input({"input": given}), "l": layer, "n": neurons, "output": nir.Output({"output": size})}
    graph = nir.NIRGraph(nodes, [("input", "l"), ("l", "n"), ("n", "output")])
    layers = snn_mlir.parse_graph(graph)
    snn_mlir.quantize_layers(layers)
    made: dict[str, Any] = {part.name: part for part in layers}
    return {
        "scale": made["l"].w_scale, "codes": made["l"]._quantized_weights.tolist(),
        "bias_codes": made["l"]._quantized_bias.tolist(),
        "decay_codes": made["n"].decay_scaled, "threshold_codes": made["n"].threshold_scaled,
    }  # fmt: skip


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    Path(sys.argv[1]).write_text(json.dumps([case(rng, place) for place in range(count)]))
