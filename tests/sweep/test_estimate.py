"""Estimates of time: what noise in the timings must not do, and what is not counted."""

from __future__ import annotations

import logging
from dataclasses import astuple

import pytest

from isofire.sweep import estimate as estimating
from isofire.sweep.estimate import Estimate, estimate, fastest, fitted

FEW = ("seeds=[0]", 'cells=[{bits=[2], weights={method="lsq"}}]')


@pytest.fixture
def plan(support, tmp_path):
    return support.plan_of(tmp_path, *FEW)


def test_costs_that_grow_with_images_are_found_again() -> None:
    # 3 s whatever the images, .05 s for each that is measured on, .2 s for each that is trained on beside 2 passes
    after, trained = ([3 + 0.05 * n + extra * n for n in (4, 12)] for extra in (0.0, 0.17))
    found = fitted((4, 12), after, trained, observing=0.01, passes=2)
    assert astuple(found) == pytest.approx((3.0, 0.05, 0.05 + 0.17 - 0.02))
    assert fitted((4, 12), after, None, observing=0.01, passes=2).trained == 0


@pytest.mark.parametrize("larger", [1.0, 0.5])
def test_an_image_costs_its_forward_passes_whatever_noise_says(larger: float) -> None:
    found = fitted((4, 12), [1.0, larger], [1.0, larger], observing=0.01, passes=2)
    assert astuple(found) == pytest.approx((1.0 - 4 * 0.02, 0.02, 0.015))


def test_short_cells_are_timed_twice_and_the_faster_counts() -> None:
    for seconds, expected in (([0.3, 0.2], 0.2), ([0.2, 0.3], 0.2), ([5.0, 4.0], 5.0)):
        assert fastest(iter(seconds).__next__) == expected


def test_finished_baselines_are_left_out(plan) -> None:
    key = plan.baselines[0].key
    assert estimate(plan, plan.cells).baselines["small"][0] == 1
    assert estimate(plan, plan.cells, {key}).baselines == {}


def test_a_cell_waits_for_its_baseline_and_cannot_be_split() -> None:
    found = Estimate({("a", "qat", "weights", "lsq"): (4, 10.0)}, {"a": (1, 30.0)})
    assert found.total == 70
    assert [found.span(workers) for workers in (1, 2, 8)] == [70, 40, 40]


def test_what_timings_warn_of_is_not_told(plan, monkeypatch, caplog) -> None:
    """The sweep says it of the cells; here it would be said once a timing, of no cell."""
    real = estimating.run_cell

    def warning(*given: object, **more: object) -> object:
        logging.getLogger("isofire.quantization").warning("nothing fires")
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(estimating, "run_cell", warning)
    estimate(plan, plan.cells[:1])
    assert "nothing fires" not in caplog.text
    logging.getLogger("isofire.quantization").warning("again")
    assert "again" in caplog.text


def test_a_loss_that_begins_late_is_timed_too(support, tmp_path, monkeypatch) -> None:
    """One epoch stands for all, and would end before the loss counts."""
    late = support.plan_of(tmp_path, *FEW, "qat.losses={paired={weight=2, warmup_epochs=1.5}}")
    cells = [cell for cell in late.cells if cell.cell.mode == "qat"]
    real, used = estimating.run_cell, []

    def noting(*given: object, **more: object) -> object:
        used.append(more["recipe"])
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(estimating, "run_cell", noting)
    estimate(late, cells[:1])
    # a baseline trains without further losses
    trained = [recipe.losses["paired"] for recipe in used if recipe is not None and recipe.losses]
    assert trained
    assert all((loss["weight"], loss["warmup_epochs"]) == (2, 0) for loss in trained)
