"""Random Loihi neurons through lava's bit-accurate model: `python scripts/chips/loihi_lava.py OUT.json [COUNT]`.

Runs in an environment of Python 3.10 with lava-nc 0.10.0, which Python 3.11 does not import; what it wrote once is
stored in tests/integer/golden. The model's own step is run, with lists in place of its ports. Cases are those of
scripts/chips/loihi.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from loihi import case  # type: ignore[import-not-found]


class _Port:
    """What arrives, step by step, and what is sent."""

    def __init__(self, arriving: list[list[int]]) -> None:
        self.arriving, self.sent = iter(arriving), []

    def recv(self) -> Any:
        return np.array(next(self.arriving), dtype=np.int32)

    def send(self, spikes: Any) -> None:
        self.sent.append(spikes.astype(int).tolist())


def emulate(given: dict[str, Any]) -> dict[str, Any]:
    """Every current, membrane and spike after each step."""
    from lava.proc.lif.models import PyLifModelBitAcc

    model, port = PyLifModelBitAcc({}), _Port(given["arriving"])
    model.a_in = model.s_out = port
    neurons = len(given["bias"])
    for name in ("u", "v", "bias_exp"):
        setattr(model, name, np.zeros(neurons, dtype=np.int32))
    for name, key in (("du", "decay_u"), ("dv", "decay_v"), ("bias_mant", "bias"), ("vth", "threshold")):
        setattr(model, name, np.array(given[key], dtype=np.int32))
    found: dict[str, list[Any]] = {"u": [], "v": []}
    for _ in given["arriving"]:
        model.run_spk()
        for name, kept in found.items():
            kept.append(getattr(model, name).tolist())
    return {**found, "s": port.sent}


def main() -> None:
    """Write COUNT cases."""
    rng = np.random.default_rng(2)
    cases = []
    for index in range(int(sys.argv[2]) if len(sys.argv) > 2 else 60):
        given = case(rng, wild=bool(index % 2))
        cases.append({**given, "found": emulate(given)})
    with open(sys.argv[1], "w", encoding="utf-8") as stream:
        json.dump(cases, stream)


if __name__ == "__main__":
    main()
