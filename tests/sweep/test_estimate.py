"""Estimates of time: what noise in the timings must not do, and what is not counted."""

from __future__ import annotations

import pytest

from isofire.sweep import estimate as module
from isofire.sweep.estimate import Estimate, estimate

FEW = ("seeds=[0]", 'cells=[{bits=[2], weights={method="lsq"}}]')


@pytest.fixture
def plan(support, tmp_path):
    return support.plan_of(tmp_path, *FEW)


def test_training_costs_more_than_a_forward_pass_whatever_the_timings_say(plan, monkeypatch) -> None:
    # as if a larger timing had taken no longer than a smaller one
    monkeypatch.setattr(module._Sample, "_time", lambda *_, **__: 1.0)
    monkeypatch.setattr(module._Sample, "_observing", 0.01)
    monkeypatch.setattr(module._Sample, "_few", 4)
    found = estimate(plan, plan.cells)
    (_, ptq), (_, qat) = (found.cells["small", mode, "weights", "lsq"] for mode in ("ptq", "qat"))
    recipe = next(task.cell.recipe for task in plan.cells if task.cell.mode == "qat")
    # the tiny sweep trains on 32 images
    assert qat - ptq == pytest.approx(1.5 * 0.01 * recipe.epochs * 32)


def test_every_image_costs_at_least_two_forward_passes_after_training_too(plan, monkeypatch) -> None:
    monkeypatch.setattr(module._Sample, "_time", lambda *_, **__: 1.0)
    monkeypatch.setattr(module._Sample, "_observing", 0.01)
    monkeypatch.setattr(module._Sample, "_few", 4)
    _, ptq = estimate(plan, plan.cells).cells["small", "ptq", "weights", "lsq"]
    # 16 images to calibrate and 20 to compare; one timing of 4 images holds as much already
    assert ptq == pytest.approx(1.0 + 2 * 0.01 * ((16 + 20) / 2 - 4))


def test_short_cells_are_timed_twice_and_the_faster_counts(plan, monkeypatch) -> None:
    sample, cell = module._Sample(plan.cells[0].baseline), plan.cells[0].cell
    for seconds, expected in (([9.0, 3.0, 2.0], 2.0), ([9.0, 2.0, 3.0], 2.0), ([50.0, 40.0], 40.0)):
        left, sample._warm = list(seconds), set()
        monkeypatch.setattr(sample, "_run", lambda *_, left=left, **__: left.pop(0))
        # the first warms up
        assert sample._time(cell, 4, train=False) == expected
        assert left == []


def test_finished_baselines_are_left_out(plan) -> None:
    key = plan.baselines[0].key
    assert estimate(plan, plan.cells).baselines["small"][0] == 1
    assert estimate(plan, plan.cells, {key}).baselines == {}


def test_a_cell_waits_for_its_baseline_and_cannot_be_split() -> None:
    found = Estimate({("a", "qat", "weights", "lsq"): (4, 10.0)}, {"a": (1, 30.0)})
    assert found.total == 70
    assert [found.span(workers) for workers in (1, 2, 8)] == [70, 40, 40]
