"""`isofire report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

from isofire.cli.options import MarginChoice, Output
from isofire.cli.screen import Report
from isofire.errors import SpecError
from isofire.report import ResultsView, compare, write_comparison, write_report
from isofire.report.caveats import caveats
from isofire.report.figures import FigureFormat, write_figures
from isofire.report.matching import match
from isofire.report.paper import write_latex
from isofire.report.study import Study
from isofire.report.summary import verdict
from isofire.report.table import records
from isofire.study import write_parquet
from isofire.sweep.results import Results

_OUT = "Page to write, FILE.html; FILE.md and FILE.csv go beside it."


def report(
    folder: Path,
    other: Path | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help=_OUT)] = None,
    latex: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    figures: FigureFormat | None = None,
    parquet: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    margin: MarginChoice | None = None,
    output: Output | None = None,
) -> Report:
    """Make a page of a sweep's results, or of two sweeps side by side.

    Writes report.html, report.md and report.csv into the sweep's folder; with two sweeps comparison.html, comparison.md
    and comparison.csv into the first one's. The page is one file that fetches nothing. A sweep that is not finished
    gives a report of what there is.

    ```
    isofire report which-bits --latex --figures pdf
    isofire report which-bits --parquet
    isofire report before after --out changes.html
    isofire report which-bits
    ```

    Parameters
    ----------
    folder
        What `isofire sweep --out` wrote.
    other
        A second sweep to compare with; cells are matched by baseline, mode, seed and spec.
    latex
        Also write FILE.tex: a booktabs table, a paragraph of methods, the citation. Of one sweep.
    figures
        Also write figures of column width: pdf, svg or png. Of one sweep.
    parquet
        Also write FILE.parquet, a row a cell, for pandas and polars. Of one sweep.
    """
    if other is not None and (latex or figures or parquet):
        raise SpecError("--latex, --figures and --parquet are of one sweep; leave them out, or the second folder")
    first = _open(folder)
    document: dict[str, Any]
    if other is None:
        margins = (margin or MarginChoice()).over(first.margins)
        files = write_report(first, out or folder / "report.html", margins=margins)
        study = Study.of(first, margins)
        page = files[0]
        files += [write_latex(study, page.with_suffix(".tex"))] if latex else []
        files += write_figures(study, page, figures) if figures is not None else []
        files += [write_parquet(page.with_suffix(".parquet"), study.rows)] if parquet else []
        warned, said = caveats(study), verdict(study.entries)
        missing = study.missing
        counts = {"damaged": len(missing.damaged), "failed": len(missing.failed), "pending": missing.not_run}
        document = {"settings": records(study.entries), **counts}
    else:
        second = _open(other)
        files = write_comparison(first, second, out or folder / "comparison.html")
        studies = Study.of(first), Study.of(second)
        found = match(*studies)
        warned, said = compare.caveats(*studies, found), compare.lead(found)
        parts = {"matched": found.pairs, "only_first": found.only_a, "only_second": found.only_b}
        document = {name: len(part) for name, part in parts.items()}
    named = [str(file) for file in files]
    text = "\n".join([*warned, *said, "", *(f"wrote {name}" for name in named)])
    return Report({"caveats": warned, "summary": said, **document, "files": named}, text)


def _open(folder: Path) -> ResultsView:
    # pyright takes a cached property for another type than a property
    return cast(ResultsView, Results.open(folder))
