"""`isofire bench`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from isofire.cli.options import Output
from isofire.cli.screen import Report
from isofire.cli.whole import WHOLE
from isofire.errors import SpecError
from isofire.limits import MOST_THREADS

_OFF = Parameter(negative=(), show_default=False)


def bench(
    *cases: str,
    root: Path | None = None,
    threads: Annotated[int, WHOLE, Parameter(validator=Number(gte=1, lte=MOST_THREADS))] = 2,
    wait: Annotated[float, Parameter(validator=Number(gte=0))] = 60.0,
    rounds: Annotated[int | None, WHOLE, Parameter(validator=Number(gte=1))] = None,
    resume: Annotated[bool, _OFF] = False,
    output: Output | None = None,
) -> Report:
    """Time isofire beside other libraries; in a clone of the repository, which has the benchmarks.

    ```
    isofire bench inference emd --root data
    ```

    Each case waits for a quiet machine, runs its rows in turns, and is stored in benchmarks/results, from which
    docs/benchmarks.md is written. What a busy machine gave is called so, and replaces nothing that a quiet one gave.

    Parameters
    ----------
    cases
        Such as inference, training-step or emd; none: all. Another name is answered by a list.
    root
        Where CIFAR-10 lies; by default where it is downloaded to.
    threads
        CPU threads, of isofire and of the peers.
    wait
        Seconds that a case waits for a quiet machine, at most.
    rounds
        A quick look of so many rounds, which is not stored.
    resume
        Leave out what is stored already, of a quiet machine and of these same sources.
    """
    benchmarks = _benchmarks()
    given = benchmarks.Given(None if root is None else str(root), threads)
    found = list(benchmarks.run(cases, given, wait_s=wait, rounds=rounds, resume=resume))
    return Report({"results": found}, "")


def _benchmarks() -> Any:
    """The module that runs them, from the clone that we are in or were installed from."""
    for folder in (Path.cwd(), Path(__file__).parents[3]):
        if all((folder / part).is_file() for part in ("benchmarks/run.py", "src/isofire/__init__.py")):
            sys.path.insert(0, str(folder))
            return importlib.import_module("benchmarks.run")
    raise SpecError(
        "the benchmarks are part of the repository, not of the installed package, as the libraries are that they "
        "compare with; run this inside a clone of it"
    )
