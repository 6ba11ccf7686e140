"""Writing a report: page, Markdown and CSV beside each other."""

from __future__ import annotations

import os
from pathlib import Path

from isofire.errors import SpecError
from isofire.files import write_text
from isofire.firing.evidence.outcome import Margins
from isofire.report.markdown import sweep_markdown
from isofire.report.page import sweep_page
from isofire.report.source import ResultsView
from isofire.report.study import Study
from isofire.report.table import records
from isofire.study import to_csv


def write_report(view: ResultsView, out: str | os.PathLike[str], *, margins: Margins | None = None) -> list[Path]:
    """Write the report of a sweep to `out` (a name that ends in .html) and, beside it, as .md and .csv.

    `margins` are what verdicts allow; None: as the sweep's file says.

    Raises
    ------
    SpecError
        If `out` does not end in .html.
    OutputError
        If a file cannot be written, or jinja2 is not installed.
    """
    page = page_name(out)
    study = Study.of(view, margins)
    texts = sweep_page(study), sweep_markdown(study), to_csv(records(study.entries))
    return write_all(page, texts)


def page_name(out: str | os.PathLike[str]) -> Path:
    """Check the name of a page.

    Raises
    ------
    SpecError
        If it does not end in .html.
    """
    page = Path(out)
    if page.suffix != ".html":
        raise SpecError(
            f"--out must name a file that ends in .html, got {out}; its .md and .csv are written beside it. "
            "Figures go beside it too, by --figures pdf, and a table for a paper by --latex"
        )
    return page


def write_all(page: Path, texts: tuple[str, str, str]) -> list[Path]:
    """Write page, Markdown and CSV."""
    names = page, page.with_suffix(".md"), page.with_suffix(".csv")
    return [write_text(name, text) for name, text in zip(names, texts, strict=True)]
