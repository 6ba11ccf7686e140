"""Random Loihi neurons through the emulator of nengo-loihi: `python scripts/chips/loihi.py OUT.json [COUNT]`.

`python scripts/chips/loihi.py NETWORK.npz OUT.npz` runs one network instead. Runs in an environment with nengo-loihi
1.1.0 (`make test-chips` makes it). Half of the cases have currents that wrap and membranes that
clip, without bias, since nengo-loihi wraps the sum of current and bias, as only it does.
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


def run_network(path: str, out: str) -> None:
    """Spikes of one network on many images, as `scripts.chips.oracle` writes them, by the whole emulator: its synapses,
    axons and compartments, one block a layer."""
    from nengo_loihi.block import Axon, LoihiBlock, Synapse
    from nengo_loihi.emulator import EmulatorInterface
    from nengo_loihi.inputs import SpikeInput

    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays["about"]))
    images = arrays["input"]
    blocks = {}
    for name in about["layers"]:
        block = LoihiBlock(len(arrays[f"threshold {name}"]), label=name)
        part = block.compartment
        part.vth, part.bias = (arrays[f"{key} {name}"].astype(np.int32) for key in ("threshold", "bias"))
        part.decay_u, part.decay_v = (arrays[f"{key} {name}"].astype(np.int32) for key in ("decay_u", "decay_v"))
        part.scale_u = part.scale_v = False
        part.vmin, part.vmax = 1 - 2**23, 2**23 - 1
        part.refract_delay = np.ones(block.n_neurons, dtype=np.int32)
        part.noise_exp = part.noise_offset = 0
        blocks[name] = block
    source = SpikeInput(images.shape[2])
    for place, (before, after) in enumerate(about["connections"]):
        weight = arrays[f"weight {place}"].astype(np.int32)
        synapse = Synapse(weight.shape[1])
        # a row for each axon that comes in
        synapse.weights = [row.reshape(1, -1) for row in weight.T]
        synapse.indices = [np.arange(len(weight), dtype=np.int32).reshape(1, -1)] * weight.shape[1]
        blocks[after].add_synapse(synapse)
        axon = Axon(weight.shape[1])
        axon.target = synapse
        (source.add_axon if before == "input" else blocks[before].add_axon)(axon)

    class Model:
        probes, inputs, dt = (), (source,), 0.001

    Model.blocks = list(blocks.values())  # type: ignore[attr-defined]
    spikes: dict[str, list[Any]] = {name: [] for name in blocks}
    states: dict[str, list[Any]] = {name: [] for name in blocks}
    for place in range(images.shape[1]):
        source.spikes.clear()
        for step, row in enumerate(images[:, place]):
            source.add_spikes(step + 1, np.nonzero(row)[0])
        emulator = EmulatorInterface(Model, seed=0)
        for name in blocks:
            spikes[name].append([])
            states[name].append([])
        for _ in range(len(images)):
            emulator.step()
            for name, block in blocks.items():
                at = emulator.block_info.slices[block]
                spikes[name][-1].append(emulator.compartment.spiked[at].astype(np.uint8))
                states[name][-1].append(emulator.compartment.voltage[at].copy())
    found = {f"s {name}": np.array(rows).swapaxes(0, 1) for name, rows in spikes.items()}
    np.savez(out, **found, **{f"v {name}": np.array(rows).swapaxes(0, 1) for name, rows in states.items()})


def main() -> None:
    """Write COUNT cases, or run a given network."""
    warnings.simplefilter("ignore")
    if len(sys.argv) == 3 and sys.argv[1].endswith(".npz"):
        return run_network(*sys.argv[1:])
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
