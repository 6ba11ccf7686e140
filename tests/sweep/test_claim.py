"""Claims: one holder at a time, given up at once by the dead, and by age where no lock is seen."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from isofire.errors import OutputError
from isofire.sweep import claim as module
from isofire.sweep.claim import STALE, Claim, owner_of


def test_one_holder_at_a_time(tmp_path) -> None:
    path = tmp_path / "claims" / "a"
    with Claim.take(path) as first:
        assert first is not None
        assert Claim.take(path) is None
        assert owner_of(path).pid == os.getpid()
        other = Claim.take(tmp_path / "claims" / "b")
        assert other is not None
        other.release()
        other.release()
    assert list(path.parent.iterdir()) == []
    second = Claim.take(path)
    assert second is not None
    second.release()


def test_of_many_that_race_one_wins(tmp_path) -> None:
    start, found = threading.Barrier(16), []

    def race() -> None:
        start.wait()
        found.append(Claim.take(tmp_path / "a"))

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [claim for claim in found if claim is not None]
    assert len(winners) == 1
    winners[0].release()
    assert list(tmp_path.iterdir()) == []


def _hold(path, held) -> None:
    assert Claim.take(path) is not None
    held.set()
    time.sleep(60)


def test_a_killed_holder_is_stale_at_once(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "a", held))
    process.start()
    assert held.wait(60)
    assert Claim.take(tmp_path / "a") is None
    assert owner_of(tmp_path / "a").pid == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / "a").exists()
    assert owner_of(tmp_path / "a") is None
    claim = Claim.take(tmp_path / "a")
    assert claim is not None
    claim.release()


def test_another_machines_claim_counts_until_it_is_old(tmp_path) -> None:
    """As on a network file system where that machine's lock is not seen."""
    path = tmp_path / "a"
    path.write_text(json.dumps({"host": "far", "pid": 1, "machine": "another"}))
    assert Claim.take(path) is None
    assert owner_of(path).host == "far"
    young, old = time.time() - STALE + 60, time.time() - STALE - 60
    os.utime(path, (young, young))
    assert Claim.take(path) is None
    os.utime(path, (old, old))
    assert owner_of(path) is None
    claim = Claim.take(path)
    assert claim is not None
    claim.release()


def test_a_holder_shows_that_it_lives(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.01)
    path = tmp_path / "a"
    with Claim.take(path):
        os.utime(path, (0, 0))
        end = time.monotonic() + 120
        while path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot claim .*file"):
        Claim.take(tmp_path / "file" / "a")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_living_holder_of_this_machine_keeps_its_claim(tmp_path, monkeypatch, number: int) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "lock_descriptor", no_locks)
    path = tmp_path / "a"
    with Claim.take(path):
        assert Claim.take(path) is None
        assert owner_of(path).pid == os.getpid()
    # a process of this machine that is gone is stale at once, one of another host by age alone
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    owner = {"host": platform.node(), "pid": int(gone.stdout), "machine": module._machine()}
    path.write_text(json.dumps({**owner, "host": "another container"}))
    assert Claim.take(path) is None
    path.write_text(json.dumps(owner))
    claim = Claim.take(path)
    assert claim is not None
    claim.release()
    # a number that was given to another process does not keep a claim for good
    path.write_text(json.dumps({**owner, "pid": os.getpid()}))
    old = time.time() - STALE - 60
    os.utime(path, (old, old))
    assert owner_of(path) is None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "{", '{"pid": -1}', '{"pid": 99999999999}', '{"pid": "x"}', "[" * 4000, '{"host": 3}', "\xff"],
)
def test_a_damaged_claim_counts_until_it_is_old(tmp_path, text: str) -> None:
    path = tmp_path / "a"
    path.write_text(text)
    assert Claim.take(path) is None
    assert owner_of(path).pid is None
    os.utime(path, (0, 0))
    claim = Claim.take(path)
    assert claim is not None
    claim.release()


def test_a_claim_that_an_earlier_version_left_is_read(tmp_path) -> None:
    path = tmp_path / "a"
    path.write_text(json.dumps({"host": platform.node(), "pid": os.getpid(), "machine": module._machine()}))
    # nobody has it locked, so whoever wrote it is gone
    assert owner_of(path) is None
    with path.open("r+") as stream:
        assert module.lock_descriptor(stream.fileno(), blocking=False)
        assert owner_of(path).pid == os.getpid()
        assert Claim.take(path) is None
    claim = Claim.take(path)
    assert claim is not None
    claim.release()


_HIDDEN = """
import importlib, pkgutil, sys
import torch  # whose own wheels know their system
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty"):
    sys.modules[name] = None
import isofire
for found in pkgutil.walk_packages(isofire.__path__, "isofire."):
    if found.name == "isofire.__main__":
        continue
    try:
        importlib.import_module(found.name)
    except ImportError as error:
        # a library that is not installed is another matter
        assert error.name not in sys.modules or sys.modules[error.name] is not None, (found.name, error)
from isofire.sweep.claim import Claim, owner_of
from pathlib import Path
path = Path(sys.argv[1])
with Claim.take(path):
    assert Claim.take(path) is None
    assert owner_of(path).pid is not None
assert not path.exists()
print("fine")
"""


def test_nothing_that_only_one_system_has_is_needed(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HIDDEN, str(tmp_path / "a")], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "fine\n", done.stderr
