"""A preset goes where a network's neurons store their states."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from isofire.neurons import IF, LIF
from isofire.quantization import presets
from isofire.quantization.presets import fitted, preset
from isofire.spec import QuantSpec


class Late:
    """Refuses, as the adapter of neurons that reset at the next step does."""

    def __init__(self, *places: str) -> None:
        self.places = places

    def refusal(self, neuron: nn.Module, placement: str) -> str | None:
        return None if placement in self.places else "stores nothing there"


def _neurons(monkeypatch: pytest.MonkeyPatch, **found: Any) -> None:
    monkeypatch.setattr(presets, "find_neurons", lambda _: {name: (nn.Identity(), it) for name, it in found.items()})


def test_a_network_that_stores_states_after_the_reset_keeps_the_preset() -> None:
    spec = QuantSpec.from_dict(preset("keep-firing"))
    assert fitted(spec, nn.Sequential(nn.Linear(4, 4), IF(), nn.Linear(4, 4), LIF(2.0))) == (spec, None)


def test_late_resets_get_the_state_before_the_threshold(monkeypatch) -> None:
    _neurons(monkeypatch, a=Late("pre_fire"), b=Late("pre_fire"), lstm=Late())
    values = preset("keep-firing-2bit")
    spec, told = fitted(QuantSpec.from_dict(values), nn.Identity())
    found = spec.to_dict()
    assert found["membrane"]["placement"] == "pre_fire"
    assert (found["membrane"]["bits"], found["weights"]["bits"]) == (2, 2)
    assert [(rule["match"], rule["membrane"]) for rule in found["rules"]] == [("lstm", "float")]
    assert told is not None
    assert "pre_fire" in told
    assert "lstm (stores nothing there)" in told


def test_where_nothing_is_stored_the_preset_stays_and_is_refused_later(monkeypatch) -> None:
    _neurons(monkeypatch, lstm=Late())
    spec = QuantSpec.from_dict(preset("keep-firing"))
    assert fitted(spec, nn.Identity()) == (spec, None)
