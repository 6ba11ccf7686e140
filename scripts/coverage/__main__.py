"""`python -m scripts.coverage`: how often intervals and decisions hold, into results/ and docs/evidence.md.

`PART...` (scenarios-N for N images, noise, check, network) makes only those; several may run at once. "network" needs
`--root FOLDER` with CIFAR-10. `--quick` simulates little and writes nothing; `--page` only writes the page, `--check`
only compares it. A run that was stopped goes on where it was: every cell is stored when it is done.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from scripts.coverage.decisions import CHECK_CASES, NOISE_CASES, Case, more_than_noise, outcomes, ratio
from scripts.coverage.network import populations
from scripts.coverage.pages import section_text
from scripts.coverage.scenarios import SCENARIOS
from scripts.coverage.study import Sampled, cover
from scripts.coverage.truth import DRAWS
from scripts.evidence.run import ROOT
from scripts.page import keep
from scripts.readme import section

from isofire.files import write_text
from isofire.study import environment

FOLDER = ROOT / "results" / "2026-11-28_interval-coverage"
PAGE = ROOT / "docs" / "evidence.md"
IMAGES = (50, 500, 10_000)
PARTS = (*(f"scenarios-{n}" for n in IMAGES), "noise", "check", "network")
OF_NETWORK = (50, 500)
WITH_RANKS = (50,)
"""Numbers of images at which the rank correlation, the slowest measure, is tried too."""
OF_NOISE = 500
"""Images on which drifts are called noise or not."""
SIMULATIONS, QUICK = 400, 2


class Store:
    """The cells of one part by what they are, written after each."""

    def __init__(self, path: Path | None, simulations: int) -> None:
        self.path, self.simulations = path, simulations
        kept = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
        self.found: dict[str, Any] = {"simulations": simulations, "environment": environment("cpu"), "cells": []}
        if kept.get("simulations") == simulations:
            self.found["cells"] = kept["cells"]

    def add(self, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> None:
        """Make a cell unless it is there."""
        cells = self.found["cells"]
        if any(all(cell[name] == value for name, value in key.items()) for cell in cells):
            return
        cells.append({**make(), **key})
        if self.path is not None:
            write_text(self.path, json.dumps(self.found, indent=1) + "\n")
        print(*key.values(), flush=True)


def scenarios(store: Store, images: Sequence[int]) -> None:
    """Every scenario at every number of images."""
    for name, make in SCENARIOS.items():
        population = make()
        for number in images:
            key = {"scenario": name, "images": number}
            store.add(key, partial(_cell, name, population, number, store.simulations, number in WITH_RANKS))


def noise(store: Store) -> None:
    """What is called noise."""
    for case in NOISE_CASES:
        key = {"name": case.name, "common": case.common, "images": OF_NOISE}
        store.add(key, partial(_share, case, store.simulations))


def check(store: Store, images: Sequence[int]) -> None:
    """What a limit on drift decides."""
    for case in CHECK_CASES:
        for number in images:
            key = {"name": case.name, "images": number}
            store.add(key, partial(_outcomes, case, number, max(images), store.simulations))


def network(store: Store, root: Path) -> None:
    """The packaged network."""
    for name, population in populations(root).items():
        for number in OF_NETWORK:
            key = {"scenario": name, "images": number}
            store.add(key, partial(_cell, name, population, number, store.simulations, False))


def _cell(name: str, population: Sampled, images: int, simulations: int, ranks: bool) -> dict[str, Any]:
    draws = DRAWS if simulations > QUICK else 100
    return asdict(cover(name, population, images, simulations, ranks=ranks, draws=draws))


def _share(case: Case, simulations: int) -> dict[str, Any]:
    return {"share": more_than_noise(case, OF_NOISE, simulations)}


def _outcomes(case: Case, images: int, most: int, simulations: int) -> dict[str, Any]:
    return {"ratio": ratio(case, most), **outcomes(case, images, simulations)}


def page() -> str:
    """docs/evidence.md with the stored tables in it."""
    files = {part: FOLDER / f"{part}.json" for part in PARTS}
    stored = {part: json.loads(file.read_text(encoding="utf-8")) for part, file in files.items() if file.exists()}
    return section("coverage", section_text(stored), PAGE.read_text(encoding="utf-8"))


def main(words: list[str]) -> int:
    """0 if the page is (now) what the stored run gives, 1 if `--check` finds it is not."""
    if "--quick" in words:
        scenarios(Store(None, QUICK), IMAGES[:1])
        noise(Store(None, 1))
        check(Store(None, 1), IMAGES[:1])
        return 0
    if not {"--check", "--page"} & set(words):
        root = Path(words[words.index("--root") + 1]) if "--root" in words else None
        for part in [word for word in words if word in PARTS] or PARTS:
            _make(part, Store(FOLDER / f"{part}.json", SIMULATIONS), root)
        if missing := [part for part in PARTS[:-1] if not (FOLDER / f"{part}.json").exists()]:
            print(f"the page needs {', '.join(missing)} too")
            return 0
    return keep(PAGE, page(), "python -m scripts.coverage --page")


def _make(part: str, store: Store, root: Path | None) -> None:
    match part:
        case "noise":
            noise(store)
        case "check":
            check(store, IMAGES)
        case "network":
            if root is not None:
                network(store, root)
        case _:
            scenarios(store, [int(part.removeprefix("scenarios-"))])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
