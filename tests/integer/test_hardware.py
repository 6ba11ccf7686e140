"""Chips as data: presets, files of one's own, and what is refused."""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from isofire.errors import ModelError, SpecError
from isofire.integer import (
    INPUT,
    PRESETS,
    Connection,
    DecayRule,
    HardwareSpec,
    IntegerNetwork,
    NeuronRules,
    Population,
    limits,
)
from isofire.integer.arithmetic import fit
from isofire.integer.limit_names import LIMITS
from isofire.toml_json import parse_toml


def values(name: str = "speck2f") -> dict[str, Any]:
    return parse_toml((resources.files("isofire.integer") / "presets" / f"{name}.toml").read_text())


def test_presets_are_there_and_frozen() -> None:
    assert PRESETS == ("loihi1", "speck2f", "xylo-a2", "xylo-a3", "xylo-imu")
    for name in PRESETS:
        spec = HardwareSpec.load(name)
        assert spec.name == name
        with pytest.raises(AttributeError):
            spec.name = "other"  # type: ignore[misc]


def test_the_facts_that_tell_the_chips_apart() -> None:
    xylo, speck, loihi = (HardwareSpec.load(name).neuron for name in ("xylo-a3", "speck2f", "loihi1"))
    assert [rules.state_bits for rules in (xylo, speck, loihi)] == [16, 16, 24]
    assert [rules.compare for rules in (xylo, speck, loihi)] == [">=", ">=", ">"]
    assert [rules.spikes for rules in (xylo, speck, loihi)] == [31, None, 1]
    assert [HardwareSpec.load(name).limits["hidden"] for name in ("xylo-a2", "xylo-a3", "xylo-imu")] == [1000, 992, 496]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    text = (resources.files("isofire.integer") / "presets" / "loihi1.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace('name = "loihi1"', 'name = "mine"').replace("= 24", "= 26"))
    spec = HardwareSpec.load(tmp_path / "mine.toml")
    assert (spec.name, spec.neuron.state_bits) == ("mine", 26)
    with pytest.raises(SpecError, match=r"cannot read .*none\.toml"):
        HardwareSpec.load(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="one of loihi1, speck2f"):
        HardwareSpec.load("xylo-b9")


@pytest.mark.parametrize("key", ["name", "weights", "neuron", "delay", "limits", "sources", "oracle"])
def test_a_missing_table_is_refused(key: str) -> None:
    given = values()
    del given[key]
    with pytest.raises(SpecError, match=f"hardware: needs the key `{key}`"):
        HardwareSpec.from_dict(given)


@pytest.mark.parametrize(
    ("name", "table", "change", "said"),
    [
        ("speck2f", "neuron", {"synapse": "after"}, "synapse"),
        ("speck2f", "neuron", {"compare": "="}, "compare"),
        ("speck2f", "neuron", {"colour": 1}, "neuron.colour: unknown key"),
        ("speck2f", "neuron", {"state_bits": 99}, r"hardware: neuron\.state_bits: must lie in 2\.\.62, got 99"),
        ("speck2f", "neuron", {"reset": []}, r"neuron\.reset: must name at least one"),
        ("loihi1", "neuron", {"spikes": 3}, "several spikes a step"),
        ("loihi1", "neuron", {"reset": ["subtract"]}, "shifted threshold"),
        ("loihi1", "neuron", {"synapse": "late"}, "networks without a chip"),
        ("loihi1", "neuron", {"bias_into": "current"}, "networks without a chip"),
        ("speck2f", "bias", {"bits": 0}, "contradicts when"),
        ("speck2f", "weights", {"shift": [3, 1]}, "least, most"),
        ("xylo-a2", "weights", {"shift": [-2, 8]}, r"weights\.shift: must be \[least, most\] within 0\.\.62"),
        ("loihi1", "bias", {"shift": [9, 7]}, r"bias\.shift: must be"),
        ("speck2f", "limits", {"cores": -1}, r"limits\.cores"),
        (
            "xylo-a2",
            "neuron",
            {"decay": {"kind": "shift", "bits": 4, "rounding": "zero"}},
            r"neuron\.decay\.rounding: .* rounds to the 'floor', got 'zero'",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(name: str, table: str, change: dict[str, Any], said: str) -> None:
    given = copy.deepcopy(values(name))
    given[table] |= change
    with pytest.raises(SpecError, match=said):
        HardwareSpec.from_dict(given)


def changed(name: str, change: dict[str, Any]) -> dict[str, Any]:
    """A preset's values with others at dotted keys; None takes a key out."""
    given = copy.deepcopy(values(name))
    for key, value in change.items():
        at, (*tables, last) = given, key.split(".")
        for table in tables:
            at = at[table]
        if value is None:
            del at[last]
        else:
            at[last] = value
    return given


SHIFT = {"kind": "shift", "bits": 4, "rounding": "floor"}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("xylo-a2", {"weights.bits": 1}, r"weights\.bits: must lie in 2\.\.16, got 1"),
        ("loihi1", {"weights.bits": 2}, r"weights\.bits: must lie in 3\.\.16, got 2"),
        ("xylo-a2", {"bias.bits": 1}, r"bias\.bits: must lie in 2\.\.32, got 1"),
        ("xylo-a2", {"neuron.threshold_bits": 40}, r"threshold_bits: 40, .* state_bits = 16.*may be 16 bits, not 40"),
        ("loihi1", {"neuron.threshold_shift": 9}, r"threshold_bits: 18, shifted by 9, .* not 27"),
        ("speck2f", {"bias.bits": 20}, r"bias\.bits: 20 is wider than neuron\.state_bits = 16"),
        (
            "speck2f", {"weights.bits": 12, "neuron.state_bits": 10, "neuron.threshold_bits": 10},
            r"weights\.bits: 12 is wider than neuron\.state_bits = 10, .* may be 10",
        ),
        ("xylo-a2", {"neuron.compare": ">"}, r"neuron\.spikes: several .* '>=' alone, got '>'"),
        ("loihi1", {"neuron.output_spikes": 2}, r"neuron\.output_spikes: several"),
        ("xylo-a2", {"neuron.input_spikes": 0}, r"neuron\.input_spikes: must be at least 1, got 0; leave"),
        ("loihi1", {"neuron.decay.bits": -1}, r"neuron\.decay\.bits: of a fraction must lie in 1\.\.24, got -1"),
        ("xylo-a2", {"neuron.decay": SHIFT | {"bits": 7}}, r"neuron\.decay\.bits: of a shift must lie in 1\.\.6"),
        ("loihi1", {"neuron.state_bits": 60}, r"neuron\.decay\.bits: 12 beside state_bits = 60 .* may be 63"),
        ("xylo-a2", {"neuron.reset": ["subtract", "subtract"]}, r"neuron\.reset: .* each once, got \['subtract', 'sub"),
        ("xylo-a2", {"layers": []}, r"hardware: layers: must name at least one"),
        ("xylo-a2", {"layers": ["dense", "dense"]}, r"layers: .* each once"),
        ("speck2f", {"neuron.deliver": "each"}, r"neuron\.deliver: 'each' is known of dense layers.*take 'sum'"),
        ("xylo-a2", {"name": ""}, "name: must not be empty"),
        ("xylo-a2", {"delay": [0, -1]}, "delay: must be two whole numbers >= 0"),
        ("xylo-a2", {"limits.hiden": 3}, r"limits\.hiden: unknown key; did you mean 'hidden'"),
        ("xylo-a2", {"limits.hidden": [1000, 2]}, r"limits\.hidden: must be one number, got \[1000, 2\]"),
        ("loihi1", {"limits.axons_in": [4096, 10]}, r"limits\.axons_in: must be one number"),
        ("xylo-a2", {"limits.hidden": []}, r"limits\.hidden: must be one number, got \[\]"),
        ("xylo-a2", {"limits.inputs": 0}, r"limits\.inputs: must be at least 1, got 0; leave it out"),
        ("loihi1", {"limits.neurons_a_core": 0}, r"limits\.neurons_a_core: must be at least 1"),
        ("loihi1", {"limits.cores": None}, r"limits\.neurons_a_core: is of each core; say in limits\.cores"),
        ("xylo-a2", {"limits.cores": 3}, r"limits\.cores: says nothing alone; give one of neurons_a_core"),
        ("speck2f", {"limits.neuron_memory": None}, r"limits\.kernel_memory: says nothing alone; give limits\.neuron"),
        ("speck2f", {"limits.kernel_memory": None}, r"limits\.neuron_memory: says nothing alone"),
        ("speck2f", {"limits.kernel_memory": 5}, r"kernel_memory: must be a list, a number for each core, got 5"),
        ("speck2f", {"limits.kernel_memory": []}, r"limits\.kernel_memory: must be at least 1, got \[\]"),
        ("speck2f", {"limits.neuron_memory": [65536]}, r"as many cores as .*kernel_memory has 9 and .* has 1"),
        ("speck2f", {"limits.cores": 2}, r"cores: is 2, but limits\.kernel_memory has 9 numbers.*make them equal"),
        ("speck2f", {"limits.axons_in": 7}, r"limits\.axons_in: is of cores of one size"),
    ],
)  # fmt: skip
def test_fields_that_leave_others_without_meaning_are_told_when_a_file_is_read(
    name: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        HardwareSpec.from_dict(changed(name, change))


def test_the_checks_of_limits_are_those_whose_names_a_file_may_give() -> None:
    assert set(limits._CHECKS) == set(LIMITS)


def test_limits_that_may_be_nothing_are_taken() -> None:
    spec = HardwareSpec.from_dict(changed("speck2f", {"limits.padding": 0, "limits.bias_memory": 0}))
    assert spec.limits["padding"] == 0


@pytest.mark.parametrize(("synapse", "increment"), [("none", "whole"), ("before", "saturated"), ("after", "saturated")])
def test_a_bias_is_neither_lost_nor_counted_twice(synapse: Any, increment: Any) -> None:
    decay = None if synapse == "none" else DecayRule(kind="fraction", bits=4, rounding="floor")
    given = msgspec.structs.asdict(HardwareSpec.load("xylo-a2").neuron)
    given |= {"synapse": synapse, "synapse_decay": decay, "increment": increment, "bias_into": "current"}
    with pytest.raises(SpecError, match=f"bias_into: 'current' contradicts synapse = '{synapse}' with increment"):
        NeuronRules(**given)


@pytest.mark.parametrize("synapse", ["before", "after", "late"])
def test_a_bias_into_the_current_is_counted_once(synapse: Any) -> None:
    decay = DecayRule(kind="fraction", bits=4, rounding="floor")
    given = msgspec.structs.asdict(HardwareSpec.load("xylo-a2").neuron)
    given |= {"synapse": synapse, "synapse_decay": decay, "increment": "whole", "bias_into": "current", "decay": None}
    neuron = Population(NeuronRules(**given), (1,), threshold=1000, bias=7, reset="subtract")
    to = Connection(sources=(INPUT,), target="n", weight=torch.tensor([[0]]))
    trace = IntegerNetwork({"n": neuron}, [to], (1,)).run(torch.zeros(2, 1, 1).long(), states=True)
    # in the second step the current, which loses nothing, is 7 and 7 more
    assert trace.membranes["n"].flatten().tolist() == ([0, 7] if synapse == "late" else [7, 21])


def test_a_chip_without_sources_or_with_instant_recurrence_is_refused() -> None:
    given = values()
    del given["sources"]["limits"]
    with pytest.raises(SpecError, match=r"sources must say where limits is from"):
        HardwareSpec.from_dict(given)
    with pytest.raises(SpecError, match=r"delay\[1\]: is 0, and recurrent layers need a delay"):
        HardwareSpec.from_dict(values("xylo-a2") | {"delay": [0, 0]})


def test_overflow_that_is_refused_names_layer_and_number() -> None:
    rules = HardwareSpec.load("speck2f").neuron
    to = Connection(sources=(INPUT,), target="conv", weight=torch.tensor([[100]]))
    net = IntegerNetwork({"conv": Population(rules, (1,), threshold=32767, reset="zero")}, [to], (1,))
    with pytest.raises(ModelError, match=r"conv.*-40,000|conv.*40,000"):
        net.run(torch.full((1, 1, 1), -400))


def test_spikes_must_be_there_before_they_are_taken() -> None:
    rules = HardwareSpec.load("xylo-a2").neuron
    neuron = Population(rules, (1,), threshold=1, reset="subtract")
    with pytest.raises(SpecError, match="delay of at least 1 step"):
        IntegerNetwork({"n": neuron}, [Connection(sources=("n",), target="n", weight=torch.tensor([[1]]))], (1,))


@pytest.mark.parametrize("threshold", [0, -3, 32768])
def test_a_threshold_out_of_range_is_refused(threshold: int) -> None:
    with pytest.raises(SpecError, match=r"threshold must lie in 1\.\.32767"):
        Population(HardwareSpec.load("xylo-a2").neuron, (1,), threshold=threshold, reset="subtract")


def test_registers_against_python_integers() -> None:
    x = torch.arange(-1000, 1000, 7)
    wrapped = [int.from_bytes((v & 0xFF).to_bytes(1, "little"), "little", signed=True) for v in x.tolist()]
    assert fit(x, 8, "wrap", "x").tolist() == wrapped
    zero = DecayRule(kind="fraction", bits=12, rounding="zero").apply(x, torch.tensor(1000))
    assert zero.tolist() == [int(v * 3096 / 4096) for v in x.tolist()]
    floor = DecayRule(kind="fraction", bits=12, rounding="floor").apply(x, torch.tensor(1000))
    assert floor.tolist() == [v * 3096 // 4096 for v in x.tolist()]
