"""`isofire sweep`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from isofire.cli.named import ModelChoice
from isofire.cli.options import AllowCode, Machine, Output, SetChoice, Settings, refuse_processes
from isofire.cli.progress import clock
from isofire.cli.screen import Report, open_folder
from isofire.cli.sweep_view import SweepView, results_text, status_document
from isofire.cli.whole import WHOLE
from isofire.config import Sweep, parse_setting
from isofire.errors import SpecError
from isofire.limits import MOST_THREADS
from isofire.sweep import Plan, make_plan, read_sweep, run_sweep
from isofire.sweep.estimate import estimate
from isofire.sweep.executors import Executor, Processes
from isofire.sweep.store import Store
from isofire.text_table import counted

SOME_FAILED = 3
"""Exit status of a sweep that came to its end with failed cells."""

_OUT = "Folder of the sweep; finished cells in it are kept."
_WORKERS = "Cells at once, or jobs of SLURM; by default as many as the CPU's cores allow, of SLURM 16. Not for ray."
_OPTION = "What Ray's tasks or submitit's jobs take besides, e.g. slurm_partition=gpu; may be repeated."
_RUNNING = Group("Where cells run")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where cells run.

    Parameters
    ----------
    executor
        processes of this machine; ray: a cluster; slurm: jobs.
    address
        Of a Ray cluster; by default the one of RAY_ADDRESS, else this machine.
    """

    executor: Annotated[Literal["processes", "ray", "slurm"], Parameter(group=_RUNNING)] = "processes"
    workers: Annotated[int | None, WHOLE, Parameter(group=_RUNNING, help=_WORKERS)] = None
    address: Annotated[str | None, Parameter(group=_RUNNING)] = None
    option: Annotated[tuple[str, ...], Parameter(group=_RUNNING, help=_OPTION, negative=(), show_default=False)] = ()

    def open(self, folder: Path, threads: int, cuda: bool) -> Executor:
        """The executor.

        Raises
        ------
        SpecError
            If an option does not belong to it.
        OutputError, WorkerError
            If its package is missing, or it cannot be reached.
        """
        options = self.check()
        if self.executor == "ray":
            from isofire.sweep.executors.ray import Ray

            return Ray(self.address, threads=threads, gpus=options.pop("gpus", float(cuda)), options=options)
        if self.executor == "slurm":
            from isofire.sweep.executors.slurm import Slurm

            known: dict[str, Any] = {"gpus": int(cuda)} | ({} if self.workers is None else {"jobs": self.workers})
            known |= {name: options.pop(name) for name in ("gpus", "minutes", "cluster") if name in options}
            return Slurm(folder, threads=threads, options=options, **known)
        return Processes(self.at_once(threads))

    def check(self) -> dict[str, Any]:
        """The options of the executor, if all that is given goes together.

        Raises
        ------
        SpecError
            If something does not belong to the executor, or is out of range.
        """
        options = dict(parse_setting(text, "--option", "minutes=240") for text in self.option)
        if self.executor != "ray" and self.address is not None:
            raise SpecError(f"--address is for --executor ray, got {self.address!r} with {self.executor}")
        if self.executor == "ray" and self.workers is not None:
            raise SpecError("--workers is not for --executor ray, whose cluster says how many cells run at once")
        if self.executor == "processes" and options:
            raise SpecError(f"--option is for --executor ray or slurm, got {self.option[0]!r}")
        if self.workers is not None and not 1 <= self.workers <= MOST_THREADS:
            raise SpecError(f"--workers must lie in 1..{MOST_THREADS}, got {self.workers}")
        return options

    def at_once(self, threads: int) -> int:
        """Processes of this machine."""
        return max(1, (os.cpu_count() or 1) // threads) if self.workers is None else self.workers


def sweep(
    config: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help=_OUT)] = None,
    set: Settings = (),
    allow_code: AllowCode = False,
    baseline: Path | None = None,
    network: ModelChoice | None = None,
    choice: SetChoice | None = None,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    retry_failed: Annotated[bool, Parameter(negative=())] = False,
    place: Place | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Run a grid of cells; what is finished is never run again, whatever ended the run before.

    Two runs may share a folder: they share the cells. Exit status 3: all cells were run, some failed.

    ```
    isofire sweep configs/demo/digits.toml --dry-run
    isofire sweep start/sweep.toml --model nets:build --weights weights.safetensors --data nets:load --out which-bits
    isofire sweep configs/demo/digits.toml --out runs/demo
    ```

    Parameters
    ----------
    config
        TOML file of the sweep, see docs/sweep.md.
    baseline
        A model.safetensors in place of the one baseline that the file names.
    dry_run
        Only list the cells and estimate the time, from a few images of each kind of cell.
    retry_failed
        Run cells again that failed before.
    """
    refuse_processes("sweep")
    given, where = machine or Machine(), place or Place()
    settings = [*set, *([] if given.threads is None else [f"threads={given.threads}"])]
    chosen = network or ModelChoice()
    if chosen.weights is not None and (chosen.model is None or baseline is not None):
        raise SpecError("--weights fills the network of --model package.module:builder; name that, and no --baseline")
    data = (choice or SetChoice()).given()
    file = chosen.weights or baseline
    asked = read_sweep(config, settings, None if file is None else str(file), chosen.model, data, allow_code)
    # the machine that hands work to a cluster need not have the cluster's devices
    remote = where.executor != "processes" and given.device is not None
    device = str(given.device).partition(":")[0] if remote else given.claim(asked.threads).type
    if device not in ("cpu", "cuda"):
        raise SpecError(f"cells run on cpu or cuda, got --device {given.device}")
    if dry_run:
        where.check()
        return _listed(_planned(config, asked, out or Path(), device), where.at_once(asked.threads))
    if out is None:
        raise SpecError("a sweep needs a folder for its results; give --out DIR")
    # what cannot be planned leaves no folder
    plan = _planned(config, asked, out, device)
    folder = open_folder(out)
    with SweepView(plan) as view:
        executor = where.open(folder, asked.threads, device == "cuda")
        results = run_sweep(plan, str(folder), executor, retry_failed=retry_failed, watch=view)
    code = SOME_FAILED if results.failed else 0
    return Report(status_document(results) | {"folder": str(folder)}, results_text(results), code)


def _planned(config: Path, asked: Sweep, out: Path, device: str) -> Plan:
    """`make_plan`, whose errors of a group of cells name the file too."""
    try:
        return make_plan(asked, out, device)
    except SpecError as error:
        raise SpecError(f"{error} ({config})" if "cells[" in str(error) else str(error)) from error


def _timing_told() -> Callable[[int, int], None]:
    """Tells on stderr how far the timings are, first after 5 seconds."""
    began = last = time.monotonic()

    def tell(done: int, kinds: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _SILENT and done < kinds:
            last = now
            left = clock((now - began) / done * (kinds - done))
            print(f"timing: {done} of {kinds} kinds of cell, about {left} left", file=sys.stderr, flush=True)

    return tell


_SILENT = 5.0
"""Seconds after which a command says how far it is."""


def _listed(plan: Plan, workers: int) -> Report:
    """What a sweep would do."""
    store = Store(plan.cells[0].folder)
    waiting = [task for task in plan.cells if not store.exists("cells", task.key)]
    made = {task.key for task in plan.baselines if store.exists("baselines", task.key)}
    found = estimate(plan, waiting, made, _timing_told())
    lines = [f"{task.key}  {'finished' if task not in waiting else '        '}  {task.title}" for task in plan.cells]
    lines += [
        "",
        f"{counted(len(plan.cells), 'cell')} of {counted(len(plan.baselines), 'baseline')}, "
        f"{len(plan.cells) - len(waiting)} finished",
    ]
    lines += [f"{group}: nothing is left by exclude" for group in plan.left_out]
    kinds = {
        **{f"baseline {name}": value for name, value in found.baselines.items()},
        **{" ".join(str(part) for part in kind if part is not None): value for kind, value in found.cells.items()},
    }
    lines += [f"about {clock(seconds)} each  {number:>5} x {name}" for name, (number, seconds) in kinds.items()]
    lines.append(
        f"about {clock(found.span(workers))} with {workers} at once, by timings on this machine of a few images each"
    )
    document = {
        "name": plan.sweep.name,
        "cells": [{"key": task.key, "title": task.title, "finished": task not in waiting} for task in plan.cells],
        "kinds": [{"kind": name, "number": number, "seconds": seconds} for name, (number, seconds) in kinds.items()],
        "left_out": list(plan.left_out),
        "workers": workers,
        "seconds": found.span(workers),
    }
    return Report(document, "\n".join(lines))
