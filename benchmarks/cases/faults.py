"""Minor page faults and CPU time of a batch, with and without freed memory kept.

Each row is a process of its own, since what malloc has once been told holds for its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from benchmarks.cases.base import Case
from benchmarks.measure import Times, interleaved
from benchmarks.networks import Given, last, trained
from isofire.allocator import keep_freed_memory

BATCH = 128
_ROOT = Path(__file__).parents[2]
_CHILD = "from benchmarks.cases.faults import main; main()"
_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "LD_PRELOAD")


def page_faults(given: Given) -> dict[str, Times]:
    """Inference and training, malloc as it comes and freed memory kept."""
    found = {}
    clean = {key: value for key, value in os.environ.items() if key not in _MALLOC}
    for training, work in enumerate(("inference", "training step")):
        for kept, memory in enumerate(("malloc as it comes", "freed memory kept")):
            settings = json.dumps([bool(kept), bool(training), given.threads, given.root])
            command = [sys.executable, "-c", _CHILD, settings]
            done = subprocess.run(command, env=clean, check=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
            found[f"{work}, {memory}"] = json.loads(done.stdout)
    return found


def measure(kept: bool, training: bool, threads: int, root: str | None) -> Times:
    """Rounds of SEW-ResNet-8, T = 4, batch 128, in this process."""
    if kept and not keep_freed_memory():
        raise SystemExit("this C library cannot be told to keep freed memory")
    torch.set_num_threads(threads)
    model = last(trained()).train(training)
    images, labels = Given(root).labelled(BATCH, "train")
    batch = last(images)

    def run() -> None:
        with torch.set_grad_enabled(training):
            logits = model(batch)
        if training:
            model.zero_grad()
            cross_entropy(logits.mean(0), labels).backward()

    return interleaved({"run": run}, 7, 4)["run"]


def main() -> None:
    """What the process of a row runs."""
    print(json.dumps(measure(*json.loads(sys.argv[1]))))


CASES = (
    Case(
        "page-faults",
        "Minor page faults and time of a batch of 128, SEW-ResNet-8, T = 4; each row a process of its own; base: "
        "inference with malloc as it comes.",
        page_faults, times_itself=True,
    ),
)  # fmt: skip
