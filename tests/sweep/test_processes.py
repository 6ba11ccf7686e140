"""The command itself, in processes of its own: shared folders, dead workers, full disks, exit statuses."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from isofire.sweep import run_sweep
from isofire.sweep.executors import Processes
from isofire.sweep.store import Store

PTQ = ("seeds=[0]", 'cells=[{mode=["ptq"]}, {mode=["ptq"], bits=[2, 4], weights={method="lsq"}}]')
ONE = ("seeds=[0]", 'cells=[{mode=["ptq"]}]')
BAD = ("seeds=[0]", 'cells=[{}]', "qat={epochs=1, batch_size=16, lr=1e30, warmup_epochs=0.0}")  # fmt: skip

pytestmark = pytest.mark.slow


def start(config: Path, folder: Path, settings: tuple[str, ...], *options: str, limit: int | None = None):
    def limited() -> None:
        assert limit is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    changes = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "isofire", "sweep", str(config), "--out", str(folder), *changes, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limited if limit else None,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def end(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def events_of(folder: Path, kind: str | None = None) -> list[dict]:
    path = folder / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if kind in (None, event["event"])]


def wait_for(condition, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


def same(support, folder: Path, expected: dict, cells: int) -> None:
    found = support.contents(folder)
    assert len(found) == cells
    assert all(expected[key] == value for key, value in found.items())


def test_two_runs_share_the_cells_of_a_folder(tmp_path, support, expected) -> None:
    """The first stands still while the second begins, so that both have work whatever the machine's pace."""
    plan, store = support.plan_of(tmp_path, "seeds=[0]"), Store(tmp_path)
    claims = [claim for task in plan.cells[7:] if (claim := store.claim(task.key)) is not None]
    assert len(claims) == 7
    first = start(support.TINY, tmp_path, ("seeds=[0]",), "--workers", "1")
    wait_for(lambda: len(events_of(tmp_path, "finished")) == 8, first)
    # its worker too, which would go on by itself
    os.killpg(first.pid, signal.SIGSTOP)
    second = start(support.TINY, tmp_path, ("seeds=[0]",), "--workers", "1")
    for claim in claims:
        claim.release()
    wait_for(lambda: len(events_of(tmp_path, "finished")) > 8, second)
    os.killpg(first.pid, signal.SIGCONT)
    for process in (first, second):
        status, _, err = end(process)
        assert status == 0, err
    events = events_of(tmp_path)
    assert set(Counter((event["event"], event["key"]) for event in events).values()) == {1}
    assert len(events_of(tmp_path, "finished")) == 15
    assert len({event["pid"] for event in events}) == 2
    same(support, tmp_path, expected, 14)


def test_a_killed_worker_is_replaced_and_its_cell_given_out_again(tmp_path, support, expected) -> None:
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.005) and len(killed) < 2:
            for owner in Store(tmp_path).owners().values():
                if owner.pid not in killed:
                    os.kill(owner.pid, signal.SIGKILL)
                    killed.append(owner.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        results = run_sweep(support.plan_of(tmp_path, *PTQ), str(tmp_path), Processes(1))
    finally:
        over.set()
        killer.join()
    assert len(killed) == 2
    assert not results.failed
    assert len(events_of(tmp_path, "lost")) == 2
    same(support, tmp_path, expected, 3)


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(tmp_path, support, expected) -> None:
    # as on a full disk, files can no longer grow beyond some size
    status, _, err = end(start(support.TINY, tmp_path, ONE, "--workers", "1", limit=40_000))
    assert status == 2, err
    assert "cannot write" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "parts").glob("*"))
    assert not list((tmp_path / "failed").glob("*"))
    status, _, err = end(start(support.TINY, tmp_path, ONE, "--workers", "1"))
    assert status == 0, err
    same(support, tmp_path, expected, 1)


def test_the_exit_status_says_that_some_failed(tmp_path, support) -> None:
    status, out, err = end(start(support.TINY, tmp_path, BAD, "--workers", "1", "--json"))
    assert status == 3, err
    document = json.loads(out)
    assert (document["cells"], document["done"], document["pending"]) == (2, 1, 0)
    assert document["failed"][0]["attempts"] == 1
    assert "finite" in document["failed"][0]["reason"]
    assert "[2/2]" in err
    status, out, _ = end(start(support.TINY, tmp_path, BAD, "--workers", "1", "--json", "--retry-failed"))
    assert (status, json.loads(out)["failed"][0]["attempts"]) == (3, 2)
