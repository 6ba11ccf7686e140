"""`python -m benchmarks.page_faults`: minor faults and CPU time of a batch, with and without freed memory kept.

Each row is a process of its own, since what malloc has once been told holds for its process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

import torch
from torch.nn.functional import cross_entropy

from benchmarks.cases import BATCH, images, network
from benchmarks.run import PAGE, RESULTS, page
from isofire.allocator import keep_freed_memory
from isofire.files import write_text
from isofire.study.environment import environment

_ROUNDS, _WARMUP = 7, 4
_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "LD_PRELOAD")


def measure(kept: bool, training: bool, threads: int) -> dict[str, float]:
    """Medians over batches of 128 of SEW-ResNet-8, T = 4, in this process."""
    if kept and not keep_freed_memory():
        raise SystemExit("this C library cannot be told to keep freed memory")
    torch.set_num_threads(threads)
    model = network().to(memory_format=torch.channels_last).train(training)  # type: ignore[call-overload]
    x, labels = images().contiguous(memory_format=torch.channels_last), torch.arange(BATCH) % 10

    def run() -> None:
        with torch.set_grad_enabled(training):
            logits = model(x)
        if training:
            model.zero_grad()
            cross_entropy(logits.mean(0), labels).backward()

    rows = []
    for round_ in range(_WARMUP + _ROUNDS):
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        run()
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if round_ >= _WARMUP:
            rows.append((after.ru_minflt - before.ru_minflt, cpu, wall))
    faults, cpu, wall = (sorted(column)[len(rows) // 2] for column in zip(*rows, strict=True))
    return {"faults": faults, "cpu_seconds": cpu, "wall_seconds": wall, "rounds": len(rows)}


def main() -> int:
    """All rows, stored and written into the page."""
    if sys.argv[1:]:
        kept, training, threads = map(int, sys.argv[1:])
        print(json.dumps(measure(bool(kept), bool(training), threads)))
        return 0
    rows = {}
    clean = {key: value for key, value in os.environ.items() if key not in _MALLOC}
    for training in (0, 1):
        for kept in (0, 1):
            name = f"{('inference', 'training step')[training]}, {('malloc as it comes', 'freed memory kept')[kept]}"
            command = [sys.executable, "-m", "benchmarks.page_faults", str(kept), str(training), "1"]
            done = subprocess.run(command, env=clean, check=True, capture_output=True, text=True)
            rows[name] = json.loads(done.stdout)
            print(name, rows[name], file=sys.stderr, flush=True)
    about = "Minor page faults and CPU time of a batch of 128, one thread, each row a process of its own; medians."
    stored = {"case": "page faults", "about": about, "environment": environment(), "faults": rows}
    write_text(RESULTS / "page-faults.json", json.dumps(stored, indent=2) + "\n")
    write_text(PAGE, page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
