"""`isofire status`."""

from __future__ import annotations

from pathlib import Path

from isofire.cli.options import Output
from isofire.cli.screen import Report
from isofire.cli.sweep_view import results_text, status_document
from isofire.sweep import Results


def status(folder: Path, /, *, output: Output | None = None) -> Report:
    """Say how far a sweep is, from any terminal or machine that sees its folder.

    ```
    isofire status which-bits
    ```

    Parameters
    ----------
    folder
        What `isofire sweep --out` writes.
    """
    results = Results.open(folder)
    return Report(status_document(results), results_text(results))
