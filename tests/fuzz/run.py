"""Thousands of inputs for every reader: `make fuzz`. Writes what came of them as JSON."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.fuzz.judge import BYTES, SECONDS, Wrong, judge
from tests.fuzz.readers import READERS

from isofire.files import write_text
from isofire.json_text import to_json_text
from isofire.study import environment


def run(name: str, examples: int, start: int) -> dict[str, Any]:
    """Try inputs of one reader; wrong ones are counted and told instead of ending the run."""
    inputs, share = READERS[name]
    outcomes: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    slowest = 0.0

    # without looking for a smaller one, so that every input drawn is judged once
    @seed(start)
    @settings(
        max_examples=max(2, int(examples * share)), deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), derandomize=False,
    )  # fmt: skip
    @given(inputs())
    def draw(case: Callable[[Path], Callable[[], object]]) -> None:
        nonlocal slowest
        with tempfile.TemporaryDirectory(prefix="isofire-fuzz-") as place:
            read, began = case(Path(place)), time.perf_counter()
            try:
                outcomes[judge(read, Path(place))] += 1
            except Wrong as error:
                outcomes["wrong"] += 1
                wrong.setdefault(str(error)[:400], "")
            slowest = max(slowest, time.perf_counter() - began)

    draw()
    return {
        "inputs": outcomes.total(), "wrong": outcomes["wrong"], "outcomes": dict(sorted(outcomes.items())),
        "slowest_seconds": round(slowest, 3), "told": list(wrong),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=450, help="inputs of a quick reader; slow ones get a share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(READERS), help="names of readers")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in asked.only:
        began = time.perf_counter()
        found[name] = run(name, asked.examples, asked.seed)
        last = found[name]
        print(
            f"{name:20} {last['inputs']:6} inputs  {last['wrong']:3} wrong  {time.perf_counter() - began:7.1f} s",
            flush=True,
        )
        for text in last["told"]:
            print(f"    {text}", flush=True)
    inputs, wrong = (sum(item[key] for item in found.values()) for key in ("inputs", "wrong"))
    print(f"{inputs} inputs, {wrong} wrong")
    if asked.out is not None:
        document = {
            "command": "make fuzz", "seed": asked.seed, "inputs": inputs, "wrong": wrong,
            "limits": {"seconds": SECONDS, "bytes": BYTES}, "environment": environment("cpu"), "readers": found,
        }  # fmt: skip
        write_text(asked.out, to_json_text(document))
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
