"""Models by name."""

from __future__ import annotations

from typing import Any

import pytest

from isofire.errors import SpecError
from isofire.models import build


def test_a_builder_gets_its_arguments() -> None:
    config = {"builder": "sew_resnet18", "width": 0.0625, "T": 3}
    model = build(config)
    assert model.T == 3
    assert model.stem.out_channels == 4
    assert len(model.stages) == 4
    assert config == {"builder": "sew_resnet18", "width": 0.0625, "T": 3}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"a table with a builder \(sew_resnet8, sew_resnet18\), got {}"),
        ({"builder": ["x"]}, "a table with a builder"),
        ({"builder": "resnet"}, "builder must be one of sew_resnet8, sew_resnet18, got 'resnet'"),
        ({"builder": "sew_resnet8", "depth": 3}, "model settings for sew_resnet8: .*'depth'"),
        ({"builder": "sew_resnet8", "width": "wide"}, "model settings for sew_resnet8"),
        ({"builder": "sew_resnet8", "neuron": "relu"}, "unknown neuron 'relu'; known: cuba_lif, if, lif, plif"),
    ],
)
def test_bad_configs(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(config)
