"""Bits under a budget: the choice against brute force, and a network from end to end."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import isofire
from isofire.errors import SpecError
from isofire.models import sew_resnet8
from isofire.study.allocate import Budget, Option, allocate, solve


def options(seed: int, layers: int = 5) -> list[Option]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(layers):
        target = ("weights", "membrane")[i % 2]
        size, scale = rng.integers(50, 500), rng.uniform(0.2, 2)
        for bits in (1, 2, 4):
            drift = scale * rng.uniform(0.5, 1) / bits
            made.append(Option(name=f"l{i}", target=target, bits=bits, bytes=float(size * bits), drift=float(drift)))
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["total_bytes", "weight_bytes", "state_bytes"])
def test_the_choice_is_the_best_of_all(seed: int, kind: str):
    found = options(seed)
    by_layer = [[o for o in found if o.name == name] for name in dict.fromkeys(o.name for o in found)]

    def size(choice: tuple[Option, ...]) -> float:
        target = {"weight_bytes": "weights", "state_bytes": "membrane"}.get(kind)
        return sum(o.bytes for o in choice if target in (None, o.target))

    every = list(product(*by_layer))
    limit = float(np.quantile([size(choice) for choice in every], 0.3))
    best = min(sum(o.drift for o in choice) for choice in every if size(choice) <= limit)
    chosen = solve(found, Budget(**{kind: limit}))
    assert size(tuple(chosen)) <= limit
    assert sum(o.drift for o in chosen) == pytest.approx(best, rel=1e-6)
    assert len(chosen) == len(by_layer)


def test_two_limits_hold_together():
    found = options(1)
    chosen = solve(found, Budget(weight_bytes=1500.0, state_bytes=900.0))
    assert sum(o.bytes for o in chosen if o.target == "weights") <= 1500
    assert sum(o.bytes for o in chosen if o.target == "membrane") <= 900


def test_of_equal_drifts_the_smaller_is_taken():
    same = [Option(name="a", target="weights", bits=b, bytes=10.0 * b, drift=0.1) for b in (4, 2, 8)]
    assert solve(same, Budget(total_bytes=1e6))[0].bits == 2


def test_a_budget_that_cannot_be_met_says_the_least():
    found = options(0)
    least = sum(o.bytes for o in found if o.bits == 1)
    with pytest.raises(SpecError, match=f"total_bytes = 10 cannot be met: the fewest bits need {least:,.0f}"):
        solve(found, Budget(total_bytes=10.0))


@pytest.mark.parametrize("limits", [{}, {"total_bytes": 0.0}, {"state_bytes": -1.0}, {"weight_bytes": float("nan")}])
def test_a_budget_limits_something(limits: dict[str, float]):
    with pytest.raises(SpecError, match=r"limits weight_bytes|must be positive"):
        Budget(**limits)


def test_a_network_is_given_bits_and_measured():
    torch.manual_seed(0)
    model = sew_resnet8(width=0.25, in_channels=1).eval()
    train, test = (isofire.data.load("digits", split).first(96) for split in ("train", "test"))
    spec = isofire.QuantSpec(membrane={"method": "uniform", "bits": 2, "range": (0, 1), "placement": "post_reset"})
    seen: list[tuple[int, int]] = []
    found = allocate(
        model,
        spec,
        [2, 4],
        Budget(state_bytes=500.0),
        train,
        test,
        calibration_images=32,
        on_step=lambda *at: seen.append(at),
    )
    assert found.state_bytes <= 500
    assert found.weight_bytes == 0.0
    assert set(found.bits.values()) == {2, 4}
    # the spec holds just those bits
    assert {("membrane", rule.match): rule.membrane.bits for rule in found.spec.rules} == dict(found.bits)
    assert found.uniform is not None
    assert found.uniform[0] == 2
    assert seen[0][1] == 9 * 2 + 3
    assert "bits everywhere: EMD" in found.table()
    assert found.to_dict()["measured"]["emd_layer_mean"] == found.comparison.overall["emd_layer_mean"]
    with pytest.raises(SpecError, match="nothing to choose"):
        allocate(model, spec, [], Budget(state_bytes=1000.0), train, test)
