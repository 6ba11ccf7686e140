"""Reports of sweeps: one self-contained page, and the same as Markdown and CSV."""

from isofire.report.compare import write_comparison
from isofire.report.figures import scatter_figure
from isofire.report.source import ResultsView
from isofire.report.write import write_report

__all__ = ["ResultsView", "scatter_figure", "write_comparison", "write_report"]
