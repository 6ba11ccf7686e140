"""Freed memory is kept: page faults of a process that allocates the same again and again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from isofire import allocator
from isofire.cli import main

SCRIPT = """
import resource, sys, torch
from isofire.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else None)
for round_ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [torch.ones(n << 20) for n in (1, 3, 40)]
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = (44 << 22) // 4096


def faults(word: str, **environment: str) -> tuple[str, int]:
    clean = {key: value for key, value in os.environ.items() if "MALLOC" not in key and key != "LD_PRELOAD"}
    command = [sys.executable, "-c", SCRIPT, word]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_second_batch_meets_no_fresh_page() -> None:
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("the C library is not glibc")
    assert count < PAGES // 100
    # huge pages may spare the system faults, but not all of them
    assert faults("leave")[1] > 10 * max(count, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
@pytest.mark.parametrize(
    "setting",
    [
        {"MALLOC_TRIM_THRESHOLD_": "100000"},
        {"MALLOC_MMAP_MAX_": "65536"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=100000"},
    ],
)
def test_the_users_own_settings_stand(setting: dict[str, str]) -> None:
    assert faults("keep", **setting)[0] == "False"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False


def test_the_program_does_it_and_a_call_from_python_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("isofire.own_process.keep_freed_memory", lambda: calls.append(1))
    assert main(["--version"]) == 0
    assert calls == []
    monkeypatch.setattr(sys, "argv", ["isofire", "--version"])
    assert main() == 0
    assert calls == [1]
