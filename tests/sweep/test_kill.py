"""A sweep that is killed at random moments loses nothing, repeats nothing, and ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from isofire.sweep.store import Store

KILLS = int(os.environ.get("ISOFIRE_KILLS", "50"))


class Victims:
    """Runs the tiny sweep in a process group that can be killed; torch is imported once, so that starting is quick."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("support.py"))]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, kill_after: float | None = None) -> tuple[int, float]:
        """Exit status (negative: the signal) and seconds of one run."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        began = time.perf_counter()
        self.server.stdin.write(f"{folder}\n")
        self.server.stdin.flush()
        group = int(self.server.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            # everybody at once: runner, workers, and what they started
            os.killpg(group, signal.SIGKILL)
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline()), time.perf_counter() - began

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(60)


def stamps(folder: Path) -> dict[str, int]:
    """When each finished cell was written; asserts that nothing but finished cells bears a final name."""
    store, found = Store(folder), {}
    for kind in ("cells", "baselines"):
        for place in (folder / kind).glob("*"):
            assert store.check(kind, place.name), f"{place} has its final name and is not whole"
            found[place.name] = (place / "manifest.json").stat().st_mtime_ns
    return found


def check_journal(folder: Path) -> None:
    """No cell was finished twice, or started after it was finished."""
    finished: Counter[str] = Counter()
    for line in (folder / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        assert event["event"] in ("started", "finished")
        assert finished[event["key"]] == 0, f"{event} after it was finished"
        finished[event["key"]] += event["event"] == "finished"


@pytest.mark.slow
def test_kills(tmp_path, expected, support) -> None:
    victims, chance = Victims(), random.Random(2604)
    _, whole = victims.run(tmp_path / "undisturbed")
    assert support.contents(tmp_path / "undisturbed") == expected
    kills, rounds, seen = 0, 0, {}
    folder = tmp_path / "round0"
    folder.mkdir()
    while kills < KILLS:
        # most kills fall into the work, some into the start; together they cover the sweep more than once
        status, _ = victims.run(folder, kill_after=chance.uniform(0.02, 0.12 * whole))
        after = stamps(folder)
        assert seen.items() <= after.items(), "a finished cell was lost or written anew"
        seen = after
        if status == -signal.SIGKILL:
            kills += 1
            continue
        assert status == 0
        check_end(folder, expected, support)
        rounds += 1
        folder, seen = tmp_path / f"round{rounds}", {}
        folder.mkdir()
    assert victims.run(folder)[0] == 0
    victims.close()
    check_end(folder, expected, support)


def check_end(folder: Path, expected: dict, support) -> None:
    check_journal(folder)
    assert support.contents(folder) == expected
    for left in ("claims", "parts", "training", "failed", "damaged"):
        # names with a dot are temporary files, which are removed once they are old
        assert not list((folder / left).glob("[!.]*")), left
