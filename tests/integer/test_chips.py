"""Golden tables: every state and spike as xylosim, Sinabs, lava, nengo-loihi and brian2-loihi computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from tests.integer import nets
from tests.integer.nets import LOIHI, SPECK, XYLO, XYLO_V1, of, row

from isofire.integer import INPUT, Connection, DecayRule, IntegerNetwork, NeuronRules, Population


def check_xylo(rules: NeuronRules) -> None:
    trace = nets.xylo(rules, biased=False)
    assert of(trace.currents, "hidden", 0) == row("113 123 93 70 128 96 72 54")
    assert of(trace.currents, "hidden", 1) == row("-78 -77 -32 -10 -43 -2 16 32")
    assert of(trace.membranes, "hidden", 0) == row("49 20 39 26 13 39 28 4")
    assert of(trace.membranes, "hidden", 1) == row("-78 -135 -133 -109 -124 -95 -55 -9")
    assert of(trace.spikes, "hidden", 0) == row("1 2 1 1 2 1 1 1")
    assert of(trace.spikes, "hidden", 1) == [0] * 8
    assert of(trace.currents, "out") == row("0 13 32 29 27 39 32 29")
    assert of(trace.membranes, "out") == row("0 13 4 32 15 13 4 32")
    assert of(trace.spikes, "out") == row("0 0 1 0 1 1 1 0")


def check_xylo_bias(rules: NeuronRules) -> None:
    trace = nets.xylo(rules, biased=True)
    assert of(trace.currents, "hidden", 0) == row("113 123 93 70 128 96 72 54")
    assert of(trace.membranes, "hidden", 0) == row("54 27 48 35 23 49 38 14")
    assert of(trace.membranes, "hidden", 1) == row("-81 -140 -140 -118 -134 -105 -65 -19")
    assert of(trace.spikes, "hidden", 0) == row("1 2 1 1 2 1 1 1")
    assert of(trace.membranes, "out") == row("4 20 14 6 36 35 27 17")
    assert of(trace.spikes, "out") == row("0 0 1 1 0 1 1 1")


def check_xylo_saturation(rules: NeuronRules) -> None:
    assert nets.xylo_saturating(rules) == [32385, -383, -32703]


def check_speck(rules: NeuronRules) -> None:
    trace = nets.speck(rules)
    assert of(trace.membranes, "n", 0) == row("389 397 109 202 380 388 227 235")
    assert of(trace.spikes, "n", 0) == row("0 0 1 1 2 0 1 0")
    assert of(trace.membranes, "n", 1) == row("-191 -127 -148 -212 -212 -148 -212 -148")
    assert of(trace.spikes, "n", 1) == [0] * 8


def check_loihi(rules: NeuronRules) -> None:
    trace = nets.loihi(rules)
    assert of(trace.currents, "n", 0) == row("7936 2112 1584 9124 14779 11084 4473 3354 2515 1886 1414 1060")
    assert of(trace.currents, "n", 1) == row("2304 8128 6096 6876 7461 5595 10596 7947 5960 4470 3352 2514")
    assert of(trace.membranes, "n", 0) == row("7936 9057 9511 0 0 11084 0 3354 5450 6656 7239 7395")
    assert of(trace.membranes, "n", 1) == row("2304 10144 0 6876 0 5595 0 7947 0 4470 7264 8871")
    assert [t for t, n in enumerate(of(trace.spikes, "n", 0)) if n] == [3, 4, 6]
    assert [t for t, n in enumerate(of(trace.spikes, "n", 1)) if n] == [2, 4, 6, 8]


def check_xylo_leak(rules: NeuronRules) -> None:
    """What a spike of weight 64 leaves, step by step, with dash 1, 0 and 15."""

    def currents(dash: int) -> list[int]:
        neuron = Population(rules, (1,), threshold=32767, reset="subtract", synapse_decay=dash)
        to = Connection(sources=(INPUT,), target="n", weight=torch.tensor([[64]]))
        return of(
            IntegerNetwork({"n": neuron}, [to], (1,)).run(nets.frames("1 0 0 0 0 0 0"), states=True).currents, "n"
        )

    assert currents(1) == row("32 16 8 4 2 1 0")
    assert currents(0) == [0] * 7
    assert currents(15) == row("63 62 61 60 59 58 57")


def one_step(rules: NeuronRules, inputs: str, **numbers: Any) -> tuple[int, int, int]:
    """Current, membrane and spikes of a neuron of weight 1, after the last of `inputs`."""
    net = IntegerNetwork(
        {"n": Population(rules, (1,), **numbers)},
        [Connection(sources=(INPUT,), target="n", weight=torch.tensor([[1]]))],
        (1,),
    )
    trace = net.run(nets.frames(inputs), states=True)
    return of(trace.currents, "n")[-1], of(trace.membranes, "n")[-1], of(trace.spikes, "n")[-1]


def check_loihi_signs(rules: NeuronRules) -> None:
    """Negative states round to zero, and a membrane at the threshold does not fire."""
    # -3 * 2048 / 4096 = -1.5 and then, with what is left of the membrane, -3 * .5 - 1 = -2.5
    i, v, _ = one_step(rules, "-3 0", threshold=10, reset="zero", synapse_decay=2048, decay=2048)
    assert (i, v) == (-1, -2)
    at, above = (one_step(rules, f"{10 * 64 + more}", threshold=10, reset="zero")[2] for more in (0, 1))
    assert (at, above) == (0, 1)


CHECKS = [
    (check_xylo, XYLO), (check_xylo, XYLO_V1), (check_xylo_bias, XYLO), (check_xylo_saturation, XYLO), 
    (check_xylo_leak, XYLO),
    (check_speck, SPECK), (check_loihi, LOIHI), (check_loihi_signs, LOIHI),
]  # fmt: skip


@pytest.mark.parametrize(("check", "rules"), CHECKS)
def test_golden(check: Callable[[NeuronRules], None], rules: NeuronRules) -> None:
    check(rules)


def test_the_first_version_of_xylo_differs_where_a_change_saturates() -> None:
    assert nets.xylo_saturating(XYLO_V1) == [32385, -16447, -32768]


SHIFT0 = DecayRule(kind="shift", bits=4, rounding="floor", least=0)
FINER = DecayRule(kind="fraction", bits=13, rounding="zero")
FLOOR = DecayRule(kind="fraction", bits=12, rounding="floor")
MUTANTS: list[tuple[Callable[[NeuronRules], None], NeuronRules, dict[str, Any]]] = [
    (check_xylo, XYLO, {"synapse": "before"}),
    (check_xylo_leak, XYLO, {"synapse_decay": SHIFT0}),
    (check_xylo, XYLO, {"decay": FLOOR}),
    (check_xylo, XYLO, {"spikes": 1}),
    (check_xylo, XYLO, {"input_spikes": 2}),
    (check_xylo_bias, XYLO, {"compare": ">", "spikes": 1, "output_spikes": 1}),
    (check_xylo_saturation, XYLO, {"increment": "whole"}),
    (check_xylo_saturation, XYLO, {"overflow": "wrap"}),
    (check_xylo_saturation, XYLO, {"current_overflow": "wrap"}),
    (check_xylo_saturation, XYLO, {"state_bits": 17}),
    (check_speck, SPECK, {"spikes": 1}),
    (check_speck, SPECK, {"state_bits": 9, "overflow": "saturate", "current_overflow": "saturate"}),
    (check_loihi, LOIHI, {"synapse": "after"}),
    (check_loihi, LOIHI, {"threshold_shift": 5}),
    (check_loihi_signs, LOIHI, {"synapse_decay": FLOOR}),
    (check_loihi_signs, LOIHI, {"decay": FLOOR}),
    (check_loihi_signs, LOIHI, {"compare": ">="}),
    (check_loihi, LOIHI, {"decay": FINER}),
    (check_loihi, LOIHI, {"state_bits": 14}),
]


@pytest.mark.parametrize(("check", "rules", "change"), MUTANTS)
def test_one_changed_rule_is_seen(
    check: Callable[[NeuronRules], None], rules: NeuronRules, change: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError):
        check(msgspec.structs.replace(rules, **change))


def test_loihi_wraps_currents_and_clips_membranes() -> None:
    top = 2**23
    i, v, _ = one_step(LOIHI, f"{top}", threshold=2**17 - 1, reset="zero", decay=0)
    assert (i, v) == (-top, 1 - top)


def test_xylo_saturates_event_by_event_in_index_order() -> None:
    def end(weights: list[int]) -> int:
        neuron = Population(XYLO, (1,), threshold=32767, reset="subtract", decay=8, synapse_decay=7)
        to = Connection(sources=(INPUT,), target="n", weight=torch.tensor([weights]), shift=7)
        trace = IntegerNetwork({"n": neuron}, [to], (2,)).run(nets.frames("4", "4"), states=True)
        return of(trace.currents, "n")[0]

    assert (end([127, -128]), end([-128, 127])) == (-32512, 32004)
