"""The time that is left, while a step takes longer than was expected."""

from __future__ import annotations

import time

import pytest
import torch

from isofire.cli import progress
from isofire.cli.progress import LayersTold
from isofire.quantization import Step


@pytest.fixture
def told(monkeypatch):
    """Lines, and a clock that the test turns."""
    clock = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(progress.time, "process_time", lambda: clock["cpu"])
    return clock, []


def wait_for(lines: list[str], number: int) -> None:
    for _ in range(500):
        if len(lines) >= number:
            return
        time.sleep(0.01)
    raise AssertionError(f"got {lines}")


def test_a_long_step_moves_the_time_left(told, monkeypatch) -> None:
    clock, lines = told
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with LayersTold(lines.append, every=0.02) as tell:
        clock["wall"], clock["cpu"] = 60.0, 30.0
        tell(Step("sn1", "rates corrected", share=0.8))
        assert lines[0] == "sn1: rates corrected; about 0:00:15 left"
        clock["wall"] = 240.0
        wait_for(lines, 3)
    # four times as long for the same work: four times as long for the rest; 30 s of 2 x 240 s on the cores
    assert any(line.startswith("working after sn1, for 0:04:00 now; about 0:01:00 left") for line in lines[1:])
    assert sum("--threads 1 may be several times faster" in line for line in lines) == 1
    number = len(lines)
    time.sleep(0.1)
    assert len(lines) == number


def test_a_quiet_machine_gets_no_hint(told, monkeypatch) -> None:
    clock, lines = told
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with LayersTold(lines.append, every=0.02):
        clock["wall"], clock["cpu"] = 10.0, 18.0
        wait_for(lines, 1)
    assert lines[0] == "working, for 0:00:10 now"
