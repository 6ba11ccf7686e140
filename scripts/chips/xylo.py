"""Random Xylo networks through xylosim, which nobody here wrote: `python scripts/chips/xylo.py OUT.json [COUNT]`.

`python scripts/chips/xylo.py NETWORK.npz OUT.npz` runs one network instead. Runs in an environment with xylosim 0.1.3
and numpy (`make test-chips` makes it). Networks are recurrent, with biases in
version 2, weights and shifts large enough that states saturate in many of them. isofire's engine is compared with what
is written in tests/integer/test_oracles.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def network(rng: np.random.Generator) -> dict[str, Any]:
    """Numbers of a network of 1 to 4 inputs, 1 to 6 hidden neurons and 1 or 2 outputs."""
    inputs, hidden, outputs, steps = (int(rng.integers(low, high)) for low, high in ((1, 5), (1, 7), (1, 3), (8, 25)))
    top = int(rng.choice([7, 40, 127]))

    def numbers(low: int, high: int, *shape: int) -> Any:
        return rng.integers(low, high + 1, shape).tolist()

    return {
        "w_in": numbers(-top, top, inputs, hidden), "w_rec": numbers(-top, top, hidden, hidden),
        "w_out": numbers(-top, top, hidden, outputs), "shift": numbers(0, int(rng.choice([0, 3, 8])), 3),
        "dash_mem": numbers(0, 8, hidden), "dash_syn": numbers(1, 8, hidden),
        "dash_mem_out": numbers(0, 8, outputs), "dash_syn_out": numbers(1, 8, outputs),
        "threshold": numbers(1, int(rng.choice([60, 3000, 32767])), hidden),
        "threshold_out": numbers(1, int(rng.choice([60, 3000, 32767])), outputs),
        "bias": numbers(-90, 90, hidden), "bias_out": numbers(-90, 90, outputs),
        "input": rng.poisson(float(rng.choice([0.4, 2.0, 9.0])), (steps, inputs)).tolist(),
    }  # fmt: skip


def build(net: dict[str, Any], version: int) -> tuple[Any, Any]:
    """xylosim's network, and its synapses, which must be kept alive: it holds bare pointers to them."""
    if version == 1:
        from xylosim.v1 import XyloLayer, XyloSynapse
    else:
        from xylosim.v2 import XyloLayer, XyloSynapse

    def synapses(weights: list[list[int]]) -> list[list[Any]]:
        return [[XyloSynapse(target, 0, weight) for target, weight in enumerate(row) if weight] for row in weights]

    kept = [synapses(net[key]) for key in ("w_in", "w_rec", "w_out")]
    given: dict[str, Any] = {
        "synapses_in": kept[0], "synapses_rec": kept[1], "synapses_out": kept[2],
        "aliases": [[] for _ in net["bias"]],
        "threshold": net["threshold"], "threshold_out": net["threshold_out"],
        "weight_shift_inp": net["shift"][0], "weight_shift_rec": net["shift"][1], "weight_shift_out": net["shift"][2],
        "dash_mem": net["dash_mem"], "dash_mem_out": net["dash_mem_out"],
        "dash_syns": [[d, 1] for d in net["dash_syn"]], "dash_syns_out": [[d] for d in net["dash_syn_out"]],
        "name": "net",
    }  # fmt: skip
    if version == 2:
        given |= {"has_bias": True, "bias": net["bias"], "bias_out": net["bias_out"]}
    return XyloLayer(**given), kept


def evolve(layer: Any, net: dict[str, Any], given: list[list[int]]) -> dict[str, Any]:
    """Every current, membrane and spike after each step, from rest, as arrays [T, neurons]."""
    layer.reset_all()
    layer.evolve(given)
    found = {
        "i": layer.rec_i_syn, "v": layer.rec_v_mem, "s": layer.rec_recurrent_spikes,
        "i_out": layer.rec_i_syn_out, "v_out": layer.rec_v_mem_out, "s_out": layer.rec_out_spikes,
    }  # fmt: skip
    # states come neuron by neuron, spikes step by step
    arrays = {name: np.array(values).T if name[0] in "iv" else np.array(values) for name, values in found.items()}
    for name, array in arrays.items():
        wanted = len(given), len(net["bias_out" if name.endswith("_out") else "bias"])
        if array.shape != wanted:
            raise SystemExit(f"xylosim gave {name} as {array.shape}, where {wanted} was expected")
    return arrays


def simulate(net: dict[str, Any], version: int) -> dict[str, Any]:
    """A random network's numbers after each step, as lists."""
    layer, _kept = build(net, version)
    return {name: array.tolist() for name, array in evolve(layer, net, net["input"]).items()}


def run_network(path: str, out: str) -> None:
    """What version 2 makes of one network and many images, as `scripts.chips.oracle` writes them."""
    with np.load(path) as stored:
        net = {name: stored[name].tolist() for name in stored.files if name != "input"}
        images = stored["input"]
    layer, _kept = build(net, 2)
    runs = [evolve(layer, net, images[:, place].tolist()) for place in range(images.shape[1])]
    np.savez(out, **{name: np.stack([run[name] for run in runs], 1) for name in runs[0]})


def main() -> None:
    """Write COUNT networks for each version, or run a given one."""
    if len(sys.argv) == 3 and sys.argv[1].endswith(".npz"):
        return run_network(*sys.argv[1:])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    rng = np.random.default_rng(0)
    cases = []
    for index in range(2 * count):
        net, version = network(rng), 1 + index % 2
        cases.append({"version": version, **net, "found": simulate(net, version)})
    with open(sys.argv[1], "w", encoding="utf-8") as stream:
        json.dump(cases, stream)


if __name__ == "__main__":
    main()
