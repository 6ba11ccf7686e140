from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import SpecError
from isofire.training import learning_rate


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, [2.0, 2.0, 2.0, 2.0]),
        ({"schedule": "constant", "warmup": 2}, [1.0, 2.0, 2.0, 2.0]),
        ({"schedule": "constant", "warmup": 2.5}, [0.8, 1.6, 2.0, 2.0]),
        ({"schedule": "constant", "warmup": 4}, [0.5, 1.0, 1.5, 2.0]),
        ({"schedule": "cosine"}, [2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5]),
        ({"schedule": "cosine", "final_fraction": 0.5}, [2.0, 1.5 + 0.125**0.5, 1.5, 1.5 - 0.125**0.5]),
        ({"schedule": "cosine", "warmup": 2}, [1.0, 2.0, 2.0, 1.0]),
        ({"schedule": "cosine", "warmup": 4}, [0.5, 1.0, 1.5, 2.0]),
        ({"schedule": "one_cycle"}, [2.0, 1.5, 1.0, 0.5]),
        ({"schedule": "one_cycle", "warmup": 2, "final_fraction": 0.1}, [1.0, 2.0, 2.0, 1.1]),
    ],
)
def test_values_worked_out_by_hand(options: dict, expected: list[float]) -> None:
    assert [learning_rate(step, 4, peak=2.0, **options) for step in range(4)] == pytest.approx(expected)


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17, eta_min=0.03)
    for step in range(17):
        assert learning_rate(step, 17, peak=0.3, final_fraction=0.1) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["cosine", "one_cycle", "constant"]), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_it_rises_then_falls_and_stays_within_the_peak(schedule: str, total: int, part: float, final: float) -> None:
    options = {"peak": 0.7, "warmup": part * total, "schedule": schedule, "final_fraction": final}
    rates = [learning_rate(step, total, **options) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 0.7 * (1 + 1e-12) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(later <= sooner * (1 + 1e-12) for sooner, later in zip(rates[top:], rates[top + 1 :], strict=False))


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(SpecError, match=r"step must lie in 0\.\.3, got"):
        learning_rate(step, 4, peak=1.0)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(SpecError, match="schedule must be one of cosine, one_cycle, constant, got 'step'"):
        learning_rate(0, 4, peak=1.0, schedule="step")
