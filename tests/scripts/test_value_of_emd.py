"""Made cells of which it is known what explains them; regressions against numpy's and scipy's."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import scipy.stats
import torch
from scripts.evidence.value_of_emd import measured, value_of_emd

from isofire.errors import DataError
from isofire.firing import SpikeCounts

module = importlib.import_module("scripts.evidence.value_of_emd")
BASE = module.BASE


def cells(number: int = 60, seed: int = 0, by: str = "paired_mae") -> list[dict]:
    """Rows in which `by` decides the operations, and nothing decides the agreement."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(number):
        shift = rng.gamma(2, 0.01)
        emd = shift + rng.gamma(2, 0.01)
        paired = emd + rng.gamma(2, 0.01)
        drift = {BASE: shift, "emd_weighted": emd, "paired_mae": paired}
        rows.append({
            "target": "weights", "mfr": 0.1 + shift, "mfr_fp": 0.1, "shift": shift, "emd_weighted": emd,
            "emd_layer_mean": emd * rng.uniform(0.9, 1.1), "paired_mae": paired, "agreement": rng.uniform(0.5, 1),
            "accuracy": 0.5, "accuracy_fp": 0.6,
            "synops_fp": 1000.0, "synops": 1000 * (1 + 5 * drift[by] + rng.normal(0, 0.005)),
        })  # fmt: skip
    return rows


@pytest.mark.parametrize("by", [BASE, "emd_weighted", "paired_mae"])
def test_what_decides_is_found(by: str) -> None:
    found = value_of_emd(cells(by=by))
    assert np.isnan(found.get("accuracy_change", "shift").r2), "the accuracy never changes in these cells"
    best = max(("|dMFR|", "emd_weighted", "paired_mae"), key=lambda name: found.get("synops", name).r2)
    assert best == by
    assert found.get("synops", by).r2 > 0.95
    assert found.get("synops", by).left_out > 0.95
    emd = found.get("synops", "emd_weighted")
    if by == BASE:
        assert emd.added < 0.15
        assert emd.p > 0.01
    else:
        assert emd.p < 0.01
        assert emd.added > (0.9 if by == "emd_weighted" else 0.2)
    assert found.cells == {"synops": 60, "disagreement": 60, "accuracy_change": 60}


def test_chance_explains_nothing_and_its_p_values_are_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 300 sweeps in which |dMFR| alone decides, p of another measure is below 0.1 about 30 times."""
    monkeypatch.setattr(module, "PERMUTATIONS", 199)
    low = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        base = rng.gamma(2, size=20)
        other, y = base + rng.gamma(2, size=20), base + rng.normal(size=20)
        low += module._beyond(base, other, y, rng)[1] < 0.1
    assert 16 <= low <= 46


def test_against_numpy_and_scipy() -> None:
    rows = cells(25, seed=3)
    x = np.array([row["emd_weighted"] for row in rows])
    base = np.array([row["mfr"] - row["mfr_fp"] for row in rows])
    y = np.array([abs(row["synops"] / 1000 - 1) for row in rows])
    item = value_of_emd(rows).get("synops", "emd_weighted")
    assert item.r2 == pytest.approx(scipy.stats.linregress(x, y).rvalue ** 2)
    assert item.r2_ranks == pytest.approx(scipy.stats.spearmanr(x, y).statistic ** 2)

    def rest(*columns: np.ndarray) -> float:
        design = np.stack([np.ones_like(y), *columns], 1)
        return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())

    assert item.added == pytest.approx(1 - rest(base, x) / rest(base))
    errors, plain = [], []
    for i in range(25):
        others = np.arange(25) != i
        line = scipy.stats.linregress(x[others], y[others])
        errors.append(y[i] - line.intercept - line.slope * x[i])
        plain.append(y[i] - y[others].mean())
    assert item.left_out == pytest.approx(1 - np.sum(np.square(errors)) / np.sum(np.square(plain)))


def test_a_measure_that_is_the_mean_rate_adds_nothing() -> None:
    """`shift` equals |dMFR| in these cells."""
    item = value_of_emd(cells()).get("synops", "shift")
    assert (item.added, item.p) == (0.0, 1.0)


def test_stored_counts_give_peaks_and_operations() -> None:
    images = torch.tensor([2, 0, 1])
    before = SpikeCounts({"a": torch.tensor([[4, 2], [0, 0], [8, 0]], dtype=torch.int32)}, images, 4)
    after = SpikeCounts({"a": torch.tensor([[8, 8], [0, 0], [1, 0]], dtype=torch.int32)}, images, 4)
    row = measured({"synops": None}, before, after, {"a": torch.tensor([9.0, 4.0]).double()})
    assert (row["peak_events_fp"], row["peak_events"]) == (8 / 4, 16 / 8)
    assert row["synops_fp"] == pytest.approx((12 * 9 + 2 * 4) / 3)
    assert abs(row["synops"] - row["synops_fp"]) <= row["synops_bound"]
    assert measured({"synops": 5.0}, before, after, {"a": torch.ones(2)})["synops"] == 5


def test_controls_and_few_cells() -> None:
    rows = [{**row, "target": "none"} for row in cells(4)] + cells(10)
    assert value_of_emd(rows).cells["synops"] == 10
    assert value_of_emd(rows, controls=True).cells["synops"] == 14
    assert "| synops | 10 | \\|dMFR\\| |" in value_of_emd(rows).table()
    with pytest.raises(DataError, match="at least 8 cells"):
        value_of_emd(cells(7))


def test_rows_that_lack_a_measure_are_refused() -> None:
    for wrong in (float("nan"), None, "0.1"):
        rows = [{**row, "emd_weighted": wrong} for row in cells(10)]
        with pytest.raises(DataError, match="every row needs a number for emd_weighted"):
            value_of_emd(rows)
    for wrong in ("runs/demo", 3, [1, 2]):
        with pytest.raises(DataError, match="rows of finished cells are needed"):
            value_of_emd(wrong)  # type: ignore[arg-type]


def test_robustness_counts_where_it_was_measured() -> None:
    rows = [{**row, "noise_kept": 0.5 - row["paired_mae"], "noise_kept_fp": 0.5} for row in cells()]
    found = value_of_emd(rows)
    assert found.get("noise_kept", "paired_mae").r2 == pytest.approx(1)
    assert found.cells["noise_kept"] == 60
    assert "noise_kept" not in value_of_emd(cells()).cells
