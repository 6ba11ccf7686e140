"""A few hundred damaged and hostile inputs for every reader; `make fuzz` draws thousands."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from tests.fuzz.judge import judge
from tests.fuzz.readers import READERS

EXAMPLES = 30


@pytest.mark.parametrize("name", READERS)
def test_a_reader(name: str) -> None:
    inputs, share = READERS[name]

    @settings(max_examples=max(2, int(EXAMPLES * share)), deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs())
    def holds(case) -> None:
        with tempfile.TemporaryDirectory(prefix="isofire-fuzz-") as place:
            judge(case(Path(place)), Path(place))

    holds()
