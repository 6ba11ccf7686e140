"""Random layers of Loihi neurons through Brian2Loihi: `python scripts/chips/loihi_brian2.py OUT.json [COUNT]`.

Runs in an environment with `numpy<2`, `setuptools<81`, brian2 2.8.0.4 and brian2_loihi 0.5.2; what it wrote once is
stored in tests/integer/golden. Synapses are part of it: weights of mixed signs, even as on the chip. It knows no bias
and no overflow, so that neither is in its cases.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def case(rng: np.random.Generator) -> dict[str, Any]:
    """Numbers of 1 to 6 inputs and 1 to 6 neurons, which share their decays and threshold."""
    inputs, neurons, steps = (int(rng.integers(low, high)) for low, high in ((1, 7), (1, 7), (12, 30)))
    slow = int(rng.choice([300, 1500, 4096]))
    return {
        "weight": (2 * rng.integers(-100, 128, (neurons, inputs))).tolist(),
        "input": (rng.random((steps, inputs)) < 0.4).astype(int).tolist(),
        "decay_u": int(rng.integers(1, slow + 1)), "decay_v": int(rng.integers(0, slow + 1)),
        "threshold": int(rng.integers(50, 1500)),
    }  # fmt: skip


def emulate(given: dict[str, Any]) -> dict[str, Any]:
    """Every membrane and spike after each step."""
    import brian2
    from brian2_loihi import (
        LoihiNetwork,
        LoihiNeuronGroup,
        LoihiSpikeGeneratorGroup,
        LoihiSpikeMonitor,
        LoihiStateMonitor,
        LoihiSynapses,
        synapse_sign_mode,
    )

    brian2.prefs.codegen.target = "numpy"
    fired, weight = np.array(given["input"]), np.array(given["weight"])
    times, places = np.nonzero(fired)
    generator = LoihiSpikeGeneratorGroup(fired.shape[1], places, times)
    neurons = LoihiNeuronGroup(
        len(weight), refractory=1, threshold_v_mant=given["threshold"], decay_v=given["decay_v"],
        decay_I=given["decay_u"],
    )  # fmt: skip
    synapses = LoihiSynapses(generator, neurons, sign_mode=synapse_sign_mode.MIXED)
    synapses.connect()
    # from every input to every neuron, inputs outside
    synapses.w = weight.T.reshape(-1)
    membranes, spikes = LoihiStateMonitor(neurons, "v"), LoihiSpikeMonitor(neurons)
    network = LoihiNetwork(generator, neurons, synapses, membranes, spikes)
    network.run(len(fired))
    found = np.zeros((len(fired), len(weight)), dtype=int)
    found[np.array(spikes.t).astype(int), np.array(spikes.i)] = 1
    return {"v": np.array(membranes.v).T.astype(int).tolist(), "s": found.tolist()}


def main() -> None:
    """Write COUNT cases."""
    rng = np.random.default_rng(3)
    cases = []
    for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 20):
        given = case(rng)
        cases.append({**given, "found": emulate(given)})
    with open(sys.argv[1], "w", encoding="utf-8") as stream:
        json.dump(cases, stream)


if __name__ == "__main__":
    main()
