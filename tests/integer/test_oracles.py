"""Random networks as the chips' own simulators ran them, state by state and spike by spike.

A few are stored in `golden/`, written by scripts/chips; `make test-chips` makes a thousand new ones and names their
folder in ISOFIRE_CHIPS.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integer.nets import LOIHI, XYLO, XYLO_V1

from isofire.integer import INPUT, Connection, IntegerNetwork, Population, Trace

STORED = Path(__file__).parent / "golden"


def cases(chip: str, *, anew: bool = True) -> list[dict[str, Any]]:
    folder = os.environ.get("ISOFIRE_CHIPS")
    if folder and anew:
        return json.loads((Path(folder) / f"{chip}.json").read_text())
    return json.loads(gzip.decompress((STORED / f"{chip}.json.gz").read_bytes()))


def xylo(case: dict[str, Any], rules: Any) -> Trace:
    numbers = {key: torch.tensor(value) for key, value in case.items() if isinstance(value, list)}
    biased = int(case["version"] == 2)
    hidden = Population(
        rules, (len(case["bias"]),), threshold=numbers["threshold"], reset="subtract", bias=numbers["bias"] * biased,
        decay=numbers["dash_mem"], synapse_decay=numbers["dash_syn"],
    )  # fmt: skip
    out = Population(
        rules, (len(case["bias_out"]),), threshold=numbers["threshold_out"], reset="subtract", output=True,
        bias=numbers["bias_out"] * biased, decay=numbers["dash_mem_out"], synapse_decay=numbers["dash_syn_out"],
    )  # fmt: skip
    shift = case["shift"]
    links = [
        Connection(sources=(INPUT,), target="hidden", weight=numbers["w_in"].T, shift=shift[0]),
        Connection(sources=("hidden",), target="hidden", weight=numbers["w_rec"].T, shift=shift[1], delay=1),
        Connection(sources=("hidden",), target="out", weight=numbers["w_out"].T, shift=shift[2], delay=1),
    ]
    net = IntegerNetwork({"hidden": hidden, "out": out}, links, (len(case["w_in"]),))
    return net.run(numbers["input"].unsqueeze(1), states=True)


@pytest.fixture(scope="module")
def xylo_cases() -> list[dict[str, Any]]:
    return cases("xylo")


@pytest.mark.parametrize("version", [1, 2])
def test_xylo_is_xylosim_in_every_state_and_spike(version: int, xylo_cases: list[dict[str, Any]]) -> None:
    chosen = [case for case in xylo_cases if case["version"] == version]
    assert len(chosen) >= 20
    saturating = spikes = 0
    for index, case in enumerate(chosen):
        trace = xylo(case, XYLO if version == 2 else XYLO_V1)
        for name, end in (("hidden", ""), ("out", "_out")):
            for kind, kept in (("i", trace.currents), ("v", trace.membranes), ("s", trace.spikes)):
                assert kept[name][:, 0].tolist() == case["found"][kind + end], (index, name, kind)
            saturating += int(trace.membranes[name].abs().max() >= 32767)
            spikes += int(trace.spikes[name].sum())
    # else nothing was shown
    assert saturating > len(chosen) / 20
    assert spikes > 10 * len(chosen)


def test_a_changed_rule_is_seen_by_xylosims_networks(xylo_cases: list[dict[str, Any]]) -> None:
    chosen = [case for case in xylo_cases if case["version"] == 2]
    assert any(xylo(case, XYLO_V1).membranes["hidden"][:, 0].tolist() != case["found"]["v"] for case in chosen)


@pytest.mark.parametrize("simulator", ["loihi", "lava"])
def test_loihi_is_nengo_loihis_emulator_and_lavas_model_in_every_state_and_spike(simulator: str) -> None:
    wrapping = clipping = spikes = 0
    # lava's numbers are stored ones: it needs another Python
    for index, case in enumerate(cases(simulator, anew=simulator == "loihi")):
        neurons = len(case["bias"])
        part = Population(
            LOIHI, (neurons,), threshold=torch.tensor(case["threshold"]), reset="zero", bias=torch.tensor(case["bias"]),
            decay=torch.tensor(case["decay_v"]), synapse_decay=torch.tensor(case["decay_u"]) + 1,
        )  # fmt: skip
        to = Connection(sources=(INPUT,), target="n", weight=torch.eye(neurons, dtype=torch.int64), shift=6)
        arriving = torch.tensor(case["arriving"]).unsqueeze(1)
        trace = IntegerNetwork({"n": part}, [to], (neurons,)).run(arriving, states=True)
        for kind, kept in (("u", trace.currents), ("v", trace.membranes), ("s", trace.spikes)):
            assert kept["n"][:, 0].tolist() == case["found"][kind], (index, kind)
        u = trace.currents["n"]
        wrapping += int((u.diff(dim=0).abs() > 2**23).any())
        clipping += int(bool((trace.membranes["n"].abs() == 2**23 - 1).any()))
        spikes += int(trace.spikes["n"].sum())
    # else nothing was shown
    assert min(wrapping, clipping) >= 2
    assert spikes > 100


def test_loihi_is_brian2_loihi_in_every_membrane_and_spike_synapses_included() -> None:
    spikes = 0
    for index, case in enumerate(cases("brian2", anew=False)):
        weight = torch.tensor(case["weight"])
        part = Population(
            LOIHI, (len(weight),), threshold=case["threshold"], reset="zero", decay=case["decay_v"],
            synapse_decay=case["decay_u"],
        )  # fmt: skip
        to = Connection(sources=(INPUT,), target="n", weight=weight, shift=6)
        network = IntegerNetwork({"n": part}, [to], (weight.shape[1],))
        trace = network.run(torch.tensor(case["input"]).unsqueeze(1), states=True)
        assert trace.membranes["n"][:, 0].tolist() == case["found"]["v"], index
        assert trace.spikes["n"][:, 0].tolist() == case["found"]["s"], index
        spikes += int(trace.spikes["n"].sum())
    # else nothing was shown
    assert spikes > 100
