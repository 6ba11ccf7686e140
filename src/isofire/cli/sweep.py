"""`isofire sweep`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from isofire.cli.options import Machine, Output, Settings, refuse_processes
from isofire.cli.screen import Report, open_folder
from isofire.cli.sweep_view import SweepView, results_text, status_document
from isofire.errors import SpecError
from isofire.sweep import make_plan, read_sweep, run_sweep
from isofire.sweep.executors import Executor, Processes

SOME_FAILED = 3
"""Exit status of a sweep that came to its end with failed cells."""

_OUT = "Folder of the sweep; finished cells in it are kept."
_WORKERS = "Cells at once; by default as many as the CPU's cores allow."


def sweep(
    config: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help=_OUT)] = None,
    set: Settings = (),
    baseline: Path | None = None,
    workers: Annotated[int | None, Parameter(help=_WORKERS)] = None,
    retry_failed: Annotated[bool, Parameter(negative=())] = False,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Run a grid of cells; what is finished is never run again, whatever ended the run before.

    Two runs may share a folder: they share the cells. Exit status 3: all cells were run, some failed.

    ```
    isofire sweep configs/demo/digits.toml --out runs/demo
    isofire sweep configs/studies/cifar10-first-look.toml --set data.root=DIR --baseline MODEL --out runs/first-look
    isofire status runs/demo
    ```

    Parameters
    ----------
    config
        TOML file of the sweep, see docs/sweep.md.
    baseline
        A model.safetensors in place of the one baseline that the file names.
    retry_failed
        Run cells again that failed before.
    """
    refuse_processes("sweep")
    given = machine or Machine()
    settings = [*set, *([] if given.threads is None else [f"threads={given.threads}"])]
    asked = read_sweep(config, settings, None if baseline is None else str(baseline))
    if out is None:
        raise SpecError("a sweep needs a folder for its results; give --out DIR")
    folder = open_folder(out)
    plan = make_plan(asked, folder, given.claim().type)
    with SweepView(plan) as view:
        results = run_sweep(plan, str(folder), _executor(workers, asked.threads), retry_failed=retry_failed, watch=view)
    code = SOME_FAILED if results.failed else 0
    return Report(status_document(results) | {"folder": str(folder)}, results_text(results), code)


def _executor(workers: int | None, threads: int) -> Executor:
    return Processes(max(1, (os.cpu_count() or 1) // threads) if workers is None else workers)
