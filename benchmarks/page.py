"""`python -m benchmarks.page`: docs/benchmarks.md and README's line from what is stored; `--check` only compares."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scripts.page import keep
from scripts.readme import section

from benchmarks.measure import ratio
from benchmarks.peers import COMPILED
from isofire.files import write_text

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGE, README, TRIED = ROOT / "docs" / "benchmarks.md", ROOT / "README.md", Path(__file__).parent / "tried.md"
COMMAND = "python -m benchmarks.page"

_HEAD = """# Benchmarks

`isofire bench [CASE ...]` in a clone of the repository times these cases and stores them in `benchmarks/results/`;
`make bench` runs them all, in an environment with the peers. This page and README's line are written from the stored
results by `python -m benchmarks.page`.

Rows of a case run in turns in one process, with freed memory kept for all of them. A ratio is base time / row time
round by round (above 1: faster than the base): median [least, largest]. "÷ best other" is the same against the
fastest row that is not isofire's. CPU time counts the work of all threads. Minor faults are pages that the system had
to hand out during a run. A run in which others used more than 5 % of the machine's CPU time is called busy: its
ratios by CPU time mean something, its wall times little.

**On a GPU nothing was measured.** `python -m benchmarks.gpu` times the Triton kernels there beside SpikingJelly (its
own kernels for CUDA, and CuPy where its release has that), `torch.compile` and CUDA graphs: a layer both ways,
inference and a training step. It was prepared without a GPU and has not run on one.
"""


def page() -> str:
    """docs/benchmarks.md, from the stored results and what is told of what did not work."""
    parts = [_HEAD]
    for result in stored().values():
        parts.append(f"## {result['case']}\n\n{result['about']}\n\n{table(result)}\n")
    return "\n".join([*parts, TRIED.read_text(encoding="utf-8")])


def stored() -> dict[str, dict[str, Any]]:
    """The stored results by case."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return {result["case"]: result for result in found}


def table(result: dict[str, Any]) -> str:
    """A result in Markdown: its rows, what is missing, and how the machine was."""
    lines = _slopes(result) if "axes" in result["notes"] else _rows(result["times"])
    if result["missing"]:
        lines += ["", "Missing: " + "; ".join(f"{name} ({why})" for name, why in result["missing"].items()) + "."]
    return "\n".join([*lines, "", _about(result)])


def line() -> str:
    """README's line: the network of 4-bit weights beside SpikingJelly."""
    result = stored().get("inference")
    if result is None:
        return "Speed, measured side by side: [docs/benchmarks.md](docs/benchmarks.md)."
    times, clock = result["times"], "wall_ms" if result["machine"]["quiet"] else "cpu_ms"
    fast = times["isofire.fast, 4 bits"][clock]
    peers = {"spikingjelly": "SpikingJelly as it comes", COMPILED: "that under torch.compile"}
    parts = []
    for name, words in peers.items():
        if name in times:
            middle, low, high = map(_short, ratio(times[name][clock], fast))
            parts.append(f"{middle} times faster than {words} [{low}, {high}]")
    busy = "" if result["machine"]["quiet"] else ", by CPU time on a busy machine"
    return (
        f"Speed: the packaged SEW-ResNet-8 with 4-bit weights runs {', '.join(parts)} (batch 128, "
        f"{result['threads']} threads, median and range of {len(fast)} rounds{busy}): "
        "[docs/benchmarks.md](docs/benchmarks.md)."
    )


def update() -> None:
    """Write both."""
    write_text(PAGE, page())
    write_text(README, _readme())


def _readme() -> str:
    return section("speed", line(), README.read_text(encoding="utf-8"))


def _rows(times: dict[str, dict[str, list[float]]]) -> list[str]:
    base = next(iter(times.values()))
    others = [name for name in times if not name.startswith("isofire")]
    ranked = 2 <= len(others) < len(times)
    best = min(others, key=lambda name: statistics.median(times[name]["wall_ms"])) if ranked else None
    heads = [
        "",
        "wall ms",
        "CPU ms",
        "minor faults",
        "base / row",
        "by CPU time",
        *(["÷ best other"] if ranked else []),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, row in times.items():
        medians = [statistics.median(row[key]) for key in ("wall_ms", "cpu_ms", "faults")]
        cells = [name, _short(medians[0]), _short(medians[1]), f"{medians[2]:,.0f}"]
        cells += [_span(base["wall_ms"], row["wall_ms"]), _span(base["cpu_ms"], row["cpu_ms"])]
        if best is not None:
            cells.append("" if name in others else _span(times[best]["wall_ms"], row["wall_ms"]))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"Best other: {best}."] if ranked else lines


def _slopes(result: dict[str, Any]) -> list[str]:
    lines = ["| axis | sizes | path | wall ms | slope by wall | by CPU time |", "|---|---|---|---:|---:|---:|"]
    for axis, paths in result["notes"]["axes"].items():
        for path, points in paths.items():
            sizes = list(points.values())
            medians = {
                key: [statistics.median(result["times"][name][key]) for name in points] for key in ("wall_ms", "cpu_ms")
            }
            slopes = [np.polyfit(np.log(sizes), np.log(values), 1)[0] for values in medians.values()]
            shown = ", ".join(f"{size:g}" for size in sizes)
            walls = ", ".join(map(_short, medians["wall_ms"]))
            lines.append(f"| {axis} | {shown} | {path} | {walls} | {slopes[0]:.2f} | {slopes[1]:.2f} |")
    return lines


def _about(result: dict[str, Any]) -> str:
    env, machine = result["environment"], result["machine"]
    share = machine["others_share"]
    if share is None:
        state = "how busy the machine was is not known"
    else:
        state = f"{'quiet' if machine['quiet'] else 'busy'} machine (others used {share:.0%} of it)"
    peers = ", ".join(f"{name} {found}" for name, found in result["versions"].items() if found)
    git = env.get("git")
    commit = f", commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}" if git else ""
    rounds = len(next(iter(result["times"].values()))["wall_ms"])
    return (
        f"{rounds} rounds, {result['threads']} threads, {state}; {env['cpu']}, {machine['cpus']} cores; "
        f"{env['date'][:16].replace('T', ' ')}, torch {env['torch']}, {peers}{commit}."
    )


def _span(base: list[float], row: list[float]) -> str:
    middle, least, largest = map(_short, ratio(base, row))
    return f"{middle} [{least}, {largest}]"


def _short(value: float) -> str:
    """Three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{min(digits, 2)}f}"


def main() -> int:
    """Exit status: 1 if `--check` finds another page."""
    return max(keep(PAGE, page(), COMMAND), keep(README, _readme(), COMMAND))


if __name__ == "__main__":
    raise SystemExit(main())
