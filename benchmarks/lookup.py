"""`python -m benchmarks.lookup ROOT`: `isofire.fast` beside the networks it stands for.

The trained SEW-ResNet-8 on CIFAR-10's test images (below ROOT), weights of some bits; rows in turns in one process,
with freed memory kept for all of them. CPU time beside wall time, since a busy machine changes the one more than the
other; the result says how busy it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import isofire
from benchmarks.peers import peer_of
from isofire.allocator import keep_freed_memory
from isofire.models import SEWResNet, pretrained
from isofire.study.environment import environment

Row = Callable[[], Tensor]


def rows(root: str, batch: int, bits: int, compiled: bool) -> dict[str, Row]:
    """What is timed, the base first; all give the same classes, up to what rounding changes."""
    spec = isofire.QuantSpec(weights={"method": "uniform", "bits": bits})
    calibration, images = _images(root, "train", 512), _images(root, "test", batch)
    quantized = isofire.quantize_(pretrained("sew_resnet8-cifar10"), spec, calibration)
    assert isinstance(quantized, SEWResNet)
    last = images.contiguous(memory_format=torch.channels_last)
    tuned = peer_of(quantized).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    float32 = copy.deepcopy(quantized).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    networks: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "spikingjelly": (peer_of(quantized), images),
        "spikingjelly, channels_last": (tuned, last),
        **(
            {"spikingjelly, channels_last, torch.compile": (torch.compile(copy.deepcopy(tuned)), last)}
            if compiled
            else {}
        ),
        "isofire, fp32": (float32, last),
        "isofire.fast": (isofire.fast(quantized), images),
    }
    return {name: lambda net=net, x=x: net(x) for name, (net, x) in networks.items()}


def _images(root: str, split: str, count: int) -> Tensor:
    data = isofire.data.load("cifar10", split, root=root)  # type: ignore[arg-type]
    return next(iter(data.first(count).batches(count)))[0]


@torch.inference_mode()
def timed(cases: dict[str, Row], rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU and wall seconds of each row in each round, after two rounds that are not counted."""
    found: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in cases}
    for round_ in range(rounds + 2):
        for name, run in cases.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if round_ >= 2:
                found[name]["cpu"].append(cpu)
                found[name]["wall"].append(wall)
    return found


def agreement(cases: dict[str, Row]) -> dict[str, float]:
    """Share of images that each row puts in the class that the base does."""
    with torch.inference_mode():
        classes = {name: run().mean(0).argmax(-1) for name, run in cases.items()}
    base = next(iter(classes.values()))
    return {name: float((found == base).float().mean()) for name, found in classes.items()}


def summary(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, and base / row, round by round: median, least and largest."""
    base = next(iter(found.values()))
    result = {}
    for name, times in found.items():
        row = {}
        for clock in ("cpu", "wall"):
            faster = [b / t for b, t in zip(base[clock], times[clock], strict=True)]
            row[f"{clock}_ms"] = 1e3 * statistics.median(times[clock])
            row[f"{clock}_ratio"] = statistics.median(faster)
            row[f"{clock}_ratio_min"], row[f"{clock}_ratio_max"] = min(faster), max(faster)
        result[name] = row
    return result


def main() -> None:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--compiled", action="store_true", help="SpikingJelly under torch.compile too; takes a minute")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    cases = rows(given.root, given.batch, given.bits, given.compiled)
    load = os.getloadavg()[0]
    found = {
        "case": "inference by look-up",
        **{key: getattr(given, key) for key in ("batch", "rounds", "threads", "bits")},
        "load_before": load,
        "same_class_as_base": agreement(cases),
        "results": summary(timed(cases, given.rounds)),
        "environment": environment(),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
