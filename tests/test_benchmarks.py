"""What the benchmarks say of themselves: ratios, how busy the machine was, what is stored and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import gpu, page, run
from benchmarks.cases.base import Case
from benchmarks.machine import Moment, others
from benchmarks.measure import Rows, interleaved, ratio
from benchmarks.networks import Given
from benchmarks.peers import peer_of

from isofire.cli import bench as command
from isofire.cli.app import main
from isofire.errors import SpecError
from isofire.models import sew_resnet8, sew_resnet18


def _logits(best: int) -> torch.Tensor:
    return torch.eye(10)[[best] * 4][None]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results, a case that takes no time, and a machine whose business the test decides."""
    rows = Rows({"peer": lambda: _logits(1), "isofire": lambda: _logits(1)}, same=["peer", "isofire"])
    monkeypatch.setattr(run, "CASES", {"one": Case("one", "Nothing.", lambda given: rows, 3)})
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "update", lambda: None)
    monkeypatch.setattr(run, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(run, "wait_for_quiet", lambda limit: 0.0)
    return tmp_path


def _run(monkeypatch: pytest.MonkeyPatch, share: float | None, **options: Any) -> list[dict[str, Any]]:
    monkeypatch.setattr("benchmarks.machine.others", lambda start, end: share)
    return list(run.run(["one"], Given(threads=torch.get_num_threads()), **options))


def test_ratios_are_of_the_same_round() -> None:
    assert ratio([2.0, 8.0, 9.0], [1.0, 2.0, 9.0]) == (2.0, 1.0, 4.0)


def test_every_round_runs_all_rows_in_turns_and_first_rounds_are_not_counted() -> None:
    order: list[str] = []
    found = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3, 1)
    assert "".join(order) == "abababab"
    assert all(len(values) == 3 for row in found.values() for values in row.values())


def test_cpu_time_is_not_wall_time() -> None:
    row = interleaved({"sleeps": lambda: time.sleep(0.05)}, 1, 0)["sleeps"]
    assert row["wall_ms"][0] >= 50
    assert row["cpu_ms"][0] < 25


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")
def test_work_of_another_process_is_seen_and_its_own_is_not() -> None:
    start = Moment.now()
    end = Moment(start.all + 3.0, start.own + 1.0, start.wall + 2.0)  # type: ignore[operator]
    # 3 s of CPU in 2 s, of which 1 s was ours
    assert others(start, end) == pytest.approx(2.0 / 2.0 / (os.cpu_count() or 1))
    assert others(start, Moment(start.all, start.own + 1.0, start.wall + 2.0)) == 0.0
    assert others(start, Moment(None, start.own, start.wall + 2.0)) is None


def test_another_network_is_no_peer() -> None:
    rows = Rows({"peer": lambda: _logits(1), "isofire": lambda: _logits(2)}, same=["peer", "isofire"])
    with pytest.raises(AssertionError, match=r"isofire gives the base's class for 0\.0%"):
        rows.check()


def test_peers_of_spikingjelly_are_the_same_networks() -> None:
    pytest.importorskip("spikingjelly.activation_based", reason="spikingjelly 2.0 is not installed")
    torch.manual_seed(0)
    for model in (sew_resnet8(width=0.25, alpha=2.0), sew_resnet18(width=0.125, alpha=2.0, T=2)):
        images = torch.randn(4, 3, 16, 16)
        with torch.no_grad():
            for _ in range(3):
                model(images)
            peer = peer_of(model.eval())
            assert torch.allclose(model(images), peer(images), atol=1e-4)


def test_what_cannot_be_had_is_named_with_the_reason() -> None:
    rows = Rows()
    rows.add("absent", lambda: __import__("no_such_library"))
    rows.add("broken", lambda: lambda: 1 / 0)
    assert rows.missing == {
        "absent": "no_such_library is not installed",
        "broken": "ZeroDivisionError: division by zero",
    }
    assert not rows.run


def test_a_busy_run_says_so_and_replaces_no_quiet_one(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _run(monkeypatch, 0.4)[0]
    assert first["machine"]["quiet"] is False
    assert "busy machine (others used 40% of it)" in page.table(first)
    quiet = _run(monkeypatch, 0.01)[0]
    assert "quiet machine (others used 1% of it)" in page.table(quiet)
    kept = (stored / "one.json").read_text()
    assert json.loads(kept)["machine"]["others_share"] == 0.01
    _run(monkeypatch, 0.4)
    assert (stored / "one.json").read_text() == kept


def test_resuming_leaves_out_what_was_quiet_and_of_the_same_sources(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(_run(monkeypatch, 0.4, resume=True)) == 1
    assert len(_run(monkeypatch, 0.0, resume=True)) == 1
    assert _run(monkeypatch, 0.0, resume=True) == []
    monkeypatch.setattr(run, "_sources", lambda: "others")
    assert len(_run(monkeypatch, 0.0, resume=True)) == 1


def test_a_case_that_fails_keeps_no_other_from_running(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.CASES, "bad", Case("bad", "Nothing.", lambda given: Rows({"peer": lambda: 1 / 0}), 1))
    with pytest.raises(RuntimeError, match="cases that failed: bad"):
        list(run.run(["bad", "one"], Given(threads=torch.get_num_threads())))
    assert [path.name for path in stored.iterdir()] == ["one.json"]


def test_a_look_is_not_stored(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(_run(monkeypatch, 0.0, rounds=1)[0]["times"]["peer"]["wall_ms"]) == 1
    assert not list(stored.iterdir())


def test_an_unknown_case_is_answered_by_a_list_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "emd", "infrence"]) == 2
    said = capsys.readouterr().err
    assert "no benchmark is called 'infrence'" in said
    assert "inference-1" in said
    assert "emd ..." not in said


def test_an_installed_package_says_that_a_clone_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "__file__", str(tmp_path / "site-packages" / "isofire" / "cli" / "bench.py"))
    with pytest.raises(SpecError, match="run this inside a clone"):
        command._benchmarks()


def test_the_command_works_from_a_clone_s_folder() -> None:
    root = Path(__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-m", "isofire", "bench", "nothing"], cwd=root, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert "there are: inference" in found.stderr


def test_slopes_are_those_of_a_power_law() -> None:
    times = {f"n {n}": {"wall_ms": [5.0 * n**1.5] * 3, "cpu_ms": [7.0 * n] * 3, "faults": [0.0] * 3} for n in (1, 2, 4)}
    lines = page._slopes({"notes": {"axes": {"n": {"fast": {f"n {n}": n for n in (1, 2, 4)}}}}, "times": times})
    assert lines[-1] == "| n | 1, 2, 4 | fast | 5.00, 14.1, 40.0 | 1.50 | 1.00 |"


def test_without_a_gpu_its_benchmark_measures_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert "needs a CUDA device, and torch finds none: nothing was measured" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
