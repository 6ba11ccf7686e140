"""Chips as data: presets, files of one's own, and what is refused."""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from isofire.errors import ModelError, SpecError
from isofire.integer import INPUT, PRESETS, Connection, DecayRule, HardwareSpec, IntegerNetwork, Population
from isofire.integer.arithmetic import fit
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
    (tmp_path / "mine.toml").write_text(text.replace('name = "loihi1"', 'name = "mine"').replace("= 24", "= 20"))
    spec = HardwareSpec.load(tmp_path / "mine.toml")
    assert (spec.name, spec.neuron.state_bits) == ("mine", 20)
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
        ("speck2f", "neuron", {"state_bits": 99}, r"neuron\.state_bits must lie in 2\.\.62, got 99"),
        ("speck2f", "neuron", {"reset": []}, "must name subtract, zero or both"),
        ("loihi1", "neuron", {"spikes": 3}, "several spikes a step"),
        ("loihi1", "neuron", {"reset": ["subtract"]}, "shifted threshold"),
        ("loihi1", "neuron", {"synapse": "late"}, "networks without a chip"),
        ("xylo-a2", "neuron", {"bias_into": "current"}, "networks without a chip"),
        ("speck2f", "bias", {"bits": 0}, "contradicts when"),
        ("speck2f", "weights", {"shift": [3, 1]}, "least, most"),
        ("xylo-a2", "weights", {"shift": [-2, 8]}, r"weights\.shift must be \[least, most\] within 0\.\.62"),
        ("loihi1", "bias", {"shift": [9, 7]}, r"bias\.shift must be"),
        ("speck2f", "limits", {"cores": -1}, r"limits\.cores"),
        ("xylo-a2", "neuron", {"decay": {"kind": "shift", "bits": 4, "rounding": "zero"}}, "rounds to the floor"),
    ],
)
def test_what_contradicts_itself_is_refused(name: str, table: str, change: dict[str, Any], said: str) -> None:
    given = copy.deepcopy(values(name))
    given[table] |= change
    with pytest.raises(SpecError, match=said):
        HardwareSpec.from_dict(given)


def test_a_chip_without_sources_or_with_instant_recurrence_is_refused() -> None:
    given = values()
    del given["sources"]["limits"]
    with pytest.raises(SpecError, match=r"sources must say where limits is from"):
        HardwareSpec.from_dict(given)
    with pytest.raises(SpecError, match="recurrent layers need a delay"):
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
