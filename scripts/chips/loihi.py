"""Random Loihi neurons through the emulator of nengo-loihi: `python scripts/chips/loihi.py OUT.json [COUNT]`.

Runs in an environment with nengo-loihi 1.1.0 (`make test-chips` makes it). Half of the cases have currents that wrap
and membranes that clip, without bias, since nengo-loihi wraps the sum of current and bias, as only it does.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np


def case(rng: np.random.Generator, wild: bool) -> dict[str, Any]:
    """Numbers of 1 to 8 neurons and what arrives at them, before the shift by 6."""
    neurons, steps = int(rng.integers(1, 9)), int(rng.integers(10, 40))
    most = 2**15 - 1 if wild else int(rng.choice([20, 200, 1500]))
    slow = int(rng.choice([1, 200, 4096]))
    return {
        "arriving": rng.integers(-most if not wild else -most // 4, most + 1, (steps, neurons)).tolist(),
        "decay_u": rng.integers(0, slow, neurons).tolist(), "decay_v": rng.integers(0, slow, neurons).tolist(),
        "threshold": rng.integers(1, int(rng.choice([300, 2**17])), neurons).tolist(),
        "bias": (rng.integers(-4095, 4096, neurons) * (not wild) * int(rng.integers(0, 2))).tolist(),
    }  # fmt: skip


def emulate(given: dict[str, Any]) -> dict[str, Any]:
    """Every current, membrane and spike after each step."""
    from nengo_loihi.emulator.interface import BlockInfo, CompartmentState

    def numbers(key: str) -> Any:
        return np.array(given[key], dtype=np.int32)

    class Compartment:
        decay_u, decay_v, scale_u, scale_v = numbers("decay_u"), numbers("decay_v"), False, False
        vth, bias = numbers("threshold") << 6, numbers("bias")
        vmin, vmax, refract_delay = 1 - 2**23, 2**23 - 1, 1
        enable_noise, noise_exp, noise_offset, noise_at_membrane = False, 0, 0, False

    class Block:
        n_neurons, compartment = len(given["bias"]), Compartment()

    state = CompartmentState(BlockInfo([Block()]), strict=False)
    found: dict[str, list[Any]] = {"u": [], "v": [], "s": []}
    rng = np.random.RandomState(0)
    for arriving in np.array(given["arriving"], dtype=np.int32):
        state.input[0] = arriving << 6
        state.update(rng)
        for name, values in (("u", state.current), ("v", state.voltage), ("s", state.spiked.astype(int))):
            found[name].append(values.tolist())
    return found


def main() -> None:
    """Write COUNT cases."""
    warnings.simplefilter("ignore")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    rng = np.random.default_rng(1)
    cases = []
    for index in range(count):
        given = case(rng, wild=bool(index % 2))
        cases.append({**given, "found": emulate(given)})
    with open(sys.argv[1], "w", encoding="utf-8") as stream:
        json.dump(cases, stream)


if __name__ == "__main__":
    main()
