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

import msgspec
import pytest
import torch
from tests.integer.nets import LOIHI, SPECK, XYLO, XYLO_V1

from isofire.integer import INPUT, Connection, IntegerNetwork, Population, SumPool, Trace

STORED = Path(__file__).parent / "golden"


def cases(chip: str) -> list[dict[str, Any]]:
    folder = os.environ.get("ISOFIRE_CHIPS")
    if folder and (made := Path(folder) / f"{chip}.json").exists():
        return json.loads(made.read_text())
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


def speck(case: dict[str, Any], rules: Any = SPECK) -> Trace:
    populations, links, before = {}, [], INPUT
    given = torch.tensor(case["input"])
    shape = tuple(given.shape[2:])
    for place, layer in enumerate(case["layers"]):
        name, weight = str(place), torch.tensor(layer["weight"])
        pad, stride, pool, kernel = layer["padding"], layer["stride"], layer["pool"], weight.shape[2]
        size = (shape[1] // pool + 2 * pad - kernel) // stride + 1
        shape = (len(weight), size, size)
        populations[name] = Population(
            rules, shape, threshold=layer["threshold"], reset=layer["reset"], floor=layer["floor"],
            bias=torch.tensor(layer["bias"]).view(-1, 1, 1),
        )  # fmt: skip
        links.append(Connection(
            sources=(before,), target=name, kind="conv", weight=weight, stride=(stride, stride), padding=(pad, pad),
            pools=(SumPool((pool, pool), (pool, pool)),) if pool > 1 else (),
        ))  # fmt: skip
        before = name
    return IntegerNetwork(populations, links, tuple(given.shape[2:])).run(given, states=True)


def found_by_speck(trace: Trace, case: dict[str, Any]) -> list[bool]:
    """Of each layer, whether every spike and the last membranes are Sinabs'."""
    return [
        trace.spikes[str(place)].flatten(2).tolist() == layer["s"]
        and trace.membranes[str(place)][-1].flatten(1).tolist() == layer["v"]
        for place, layer in enumerate(case["layers"])
    ]


def test_speck_is_sinabs_in_every_spike_and_last_membrane() -> None:
    stored = cases("speck")
    assert len(stored) >= 40
    spikes = several = 0
    for index, case in enumerate(stored):
        trace = speck(case)
        assert all(found_by_speck(trace, case)), index
        spikes += sum(int(fired.sum()) for fired in trace.spikes.values())
        several += sum(int((fired > 1).any()) for fired in trace.spikes.values())
    # else nothing was shown
    assert spikes > 20 * len(stored)
    assert several > len(stored) / 4
    kinds = [(layer["reset"], layer["pool"], any(layer["bias"])) for case in stored for layer in case["layers"]]
    assert len(set(kinds)) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"spikes": 1, "output_spikes": 1},
        {"state_bits": 11, "threshold_bits": 11, "overflow": "saturate", "current_overflow": "saturate"},
    ],
)
def test_a_changed_rule_is_seen_by_sinabs_networks(change: dict[str, Any]) -> None:
    rules = msgspec.structs.replace(SPECK, **change)
    assert not all(all(found_by_speck(speck(case, rules), case)) for case in cases("speck"))


@pytest.mark.parametrize("simulator", ["loihi", "lava"])
def test_loihi_is_nengo_loihis_emulator_and_lavas_model_in_every_state_and_spike(simulator: str) -> None:
    wrapping = clipping = spikes = 0
    # lava's numbers are mostly stored ones: it needs another Python
    for index, case in enumerate(cases(simulator)):
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
    for index, case in enumerate(cases("brian2")):
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
