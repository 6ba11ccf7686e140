"""`python -m benchmarks.run [CASE ...]`: time every case, store the figures, write the table in docs/benchmarks.md.

`--check` times nothing and says whether the page is what the stored figures give.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import interleaved, ratios
from isofire.files import write_text
from isofire.study.environment import environment

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main() -> int:
    """0, or 1 if `--check` finds another page."""
    if sys.argv[1:] == ["--check"]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        print("the page is up to date" if same else f"{PAGE.name} differs: run `python -m benchmarks.run`")
        return 0 if same else 1
    from benchmarks.cases import CASES, ROUNDS

    wanted = sys.argv[1:] or list(CASES)
    about = environment()
    for name in wanted:
        cases = CASES[name]()
        base = next(iter(cases))
        print(f"{name} ...", file=sys.stderr, flush=True)
        result = {
            "case": name,
            "about": " ".join((CASES[name].__doc__ or "").split()),
            "base": base,
            "environment": about,
            "results": ratios(interleaved(cases, ROUNDS.get(name, 9)), base),
        }
        write_text(RESULTS / f"{name.replace(' ', '-').lower()}.json", json.dumps(result, indent=2) + "\n")
    write_text(PAGE, page())
    return 0


def page() -> str:
    """docs/benchmarks.md, from the stored results alone."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks.run` from `benchmarks/results/`. Each table is one run, its rows in turns;",
        "a ratio is base time / row time round by round (above 1: faster than the base), median [minimum, maximum].",
        "The network is a pretrained SEW-ResNet-8 where the package has one, else one with random weights, on random",
        "images; no kernel here skips zeros, so its firing rate is not part of the comparison.",
        "",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {stored['case']}", "", stored["about"], "", *_table(stored)]
        env = stored["environment"]
        about = ", ".join(f"{key} {env[key]}" for key in ("date", "torch", "threads", "cpu") if env.get(key))
        if env.get("git"):
            about += f", commit {env['git']['commit'][:12]}{' with changes' if env['git']['dirty'] else ''}"
        lines += ["", f"{next(iter(_rows(stored).values()))['rounds']} rounds; {about}.", ""]
    return "\n".join(lines)


def _rows(stored: dict[str, Any]) -> dict[str, Any]:
    return stored.get("results") or stored["faults"]


def _table(stored: dict[str, Any]) -> list[str]:
    if "faults" in stored:
        lines = ["| | minor faults | CPU ms |", "|---|---|---|"]
        return lines + [
            f"| {name} | {row['faults']:,.0f} | {row['cpu_seconds'] * 1e3:.0f} |" for name, row in _rows(stored).items()
        ]
    lines = ["| | median ms | base / row |", "|---|---|---|"]
    for name, row in _rows(stored).items():
        span = f"{row['ratio_median']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]"
        lines.append(f"| {name} | {row['seconds_median'] * 1e3:.1f} | {span} |")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
