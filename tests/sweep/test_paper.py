"""configs/paper holds the paper's grids: every point of them, for two networks and two data sets."""

from __future__ import annotations

from collections import Counter

import pytest

from isofire.config.cells import combinations
from isofire.config.packaged import FOLDER
from isofire.models import build
from isofire.quantization import make_plan
from isofire.spec import LQNetWeights, UniformMembrane, UniformWeights
from isofire.sweep import read_sweep

GRIDS = FOLDER / "paper"
BITS = (2, 4, 6, 8)


@pytest.mark.parametrize("model", ["sew8", "sew18"])
@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_every_point_of_the_grid(model: str, data: str) -> None:
    sweep = read_sweep(GRIDS / f"{model}-{data}.toml")
    found = [point for i, group in enumerate(sweep.cells) for point in combinations(group, f"cells[{i}]")]
    weights = [point.spec.weights for point in found if point.spec is not None and point.spec.weights is not None]
    membranes = [point.spec.membrane for point in found if point.spec is not None and point.spec.membrane is not None]
    narrow, wide = (-1.0, 1.0), (-10.0, 10.0)
    wanted = [UniformWeights(bits=bits, range=span) for span in (narrow, wide) for bits in BITS]
    wanted += [LQNetWeights(bits=bits, clip=span) for span in (narrow, wide) for bits in BITS]
    states = [UniformMembrane(bits=bits, range=span) for span in (narrow, (0.0, 1.0)) for bits in BITS]
    # post-training and with training
    assert Counter(weights) == Counter(2 * wanted)
    assert Counter(membranes) == Counter(2 * states)
    assert Counter(point.mode for point in found) == {"ptq": 25, "qat": 25}
    assert sum(point.spec is None for point in found) == 2
    (baseline,) = sweep.baselines
    assert baseline.model is not None
    network = build(baseline.model)
    assert (network.fc.out_features, sweep.data.name) == ({"cifar10": 10, "cifar100": 100}[data], data)
    for point in found:
        if point.spec is not None:
            assert any(choice.setting is not None for choice in make_plan(network, point.spec).choices)
