"""Words that say how values are combined, judged and shown: unknown ones are refused, not read as others."""

from __future__ import annotations

from typing import Any

import pytest

from isofire.errors import SpecError
from isofire.firing.aggregate import combined
from isofire.firing.evidence.outcome import outcome_of
from isofire.firing.measures.register import shown_in


@pytest.mark.parametrize("how", ["neuron", "pooled", "Max", None])
def test_ways_of_combining_layers(how: Any) -> None:
    with pytest.raises(SpecError, match=r"combined by 'neurons', 'layers', 'max', got"):
        combined(how, [1.0, 3.0], [1, 3])


def test_values_of_layers_are_combined_as_asked() -> None:
    values, neurons = [1.0, 3.0, float("nan")], [1, 3, 100]
    assert [combined(how, values, neurons) for how in ("neurons", "layers", "max")] == [2.5, 2.0, 3.0]


@pytest.mark.parametrize("at", ["minimum", "at least", None])
def test_sides_of_a_limit(at: Any) -> None:
    with pytest.raises(SpecError, match=r"at must be one of 'most', 'least', got"):
        outcome_of(0.1, 0.2, 0.3, at)


@pytest.mark.parametrize("place", ["layer", "tables", None])
def test_places_of_measures(place: Any) -> None:
    with pytest.raises(SpecError, match=r"place must be one of .*'layers'.*, got"):
        shown_in(place)
