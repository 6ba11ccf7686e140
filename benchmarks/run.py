"""Times cases and stores what was found; `isofire bench` is its command."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.cases import CASES
from benchmarks.cases.base import Case
from benchmarks.machine import Watch, wait_for_quiet
from benchmarks.measure import Rows, interleaved
from benchmarks.networks import Given
from benchmarks.page import RESULTS, ROOT, table, update
from isofire.allocator import keep_freed_memory
from isofire.errors import SpecError
from isofire.files import write_text
from isofire.study.environment import environment, version

PEERS = ("spikingjelly", "snntorch", "onnxruntime", "openvino", "scipy", "POT")


def run(
    names: Sequence[str], given: Given, *, wait_s: float = 60.0, rounds: int | None = None, resume: bool = False
) -> Iterator[dict[str, Any]]:
    """Time cases one after the other, and store each when it is done.

    A run in which others used more than a twentieth of the machine says so, and does not replace one that was quiet.

    Parameters
    ----------
    names
        Of `CASES`; none: all.
    wait_s
        How long a case waits for a quiet machine, at most.
    rounds
        For a quick look, of which nothing is stored. None: as many as the case has.
    resume
        Leave out cases of which a quiet result of these same sources is stored.

    Raises
    ------
    SpecError
        If no case has a name; before anything is run.
    """
    for name in names:
        if name not in CASES:
            raise SpecError(f"no benchmark is called {name!r}; there are: {', '.join(CASES)}")
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    sources, failed = _sources(), dict[str, Exception]()
    for name in names or CASES:
        if resume and _is_done(name, sources):
            print(f"{name}: done before", file=sys.stderr, flush=True)
            continue
        try:
            result = {**_timed(CASES[name], given, wait_s, rounds), "sources": sources}
        except Exception as error:
            # the other cases are worth having; what failed is told again at the end
            failed[name] = error
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"\n{table(result)}", file=sys.stderr, flush=True)
        if rounds is None:
            _store(result)
        yield result
    if failed:
        raise RuntimeError(f"cases that failed: {', '.join(failed)}") from next(iter(failed.values()))


def _timed(case: Case, given: Given, wait_s: float, rounds: int | None) -> dict[str, Any]:
    began, waited = time.perf_counter(), wait_for_quiet(wait_s)
    print(f"{case.name} ...", file=sys.stderr, flush=True)
    # torch.compile gives up on code that it compiled for too many networks before, without a word in the times
    torch.compiler.reset()
    made = Rows() if case.times_itself else case.rows(given)
    assert isinstance(made, Rows)
    made.check()
    with Watch() as watch:
        times = case.rows(given) if case.times_itself else interleaved(made.run, rounds or case.rounds, case.warmup)
    return {
        "case": case.name,
        "about": case.about,
        "threads": given.threads,
        "machine": {**watch.said(), "waited_s": round(waited, 1)},
        "seconds": round(time.perf_counter() - began, 1),
        "missing": made.missing,
        "notes": made.notes,
        "times": times,
        "versions": {name: version(name) for name in PEERS},
        "environment": environment(),
    }


def _store(result: dict[str, Any]) -> None:
    path = RESULTS / f"{result['case']}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if stored and stored["machine"]["quiet"] and not result["machine"]["quiet"]:
        print("not stored: the machine was busy, and the stored run was quiet", file=sys.stderr, flush=True)
        return
    write_text(path, json.dumps(result, indent=1) + "\n")
    update()


def _is_done(name: str, sources: str) -> bool:
    path = RESULTS / f"{name}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return stored.get("sources") == sources and bool(stored["machine"]["quiet"])


def _sources() -> str:
    """A hash of all that is timed and times."""
    made = hashlib.sha256()
    for folder in ("src/isofire", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                made.update(path.read_bytes())
    return made.hexdigest()[:16]
