"""Planned cells that a report cannot show, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isofire.report.source import ResultsView


@dataclass(frozen=True)
class Missing:
    """Cells of the plan without a row.

    Attributes
    ----------
    planned
        Number of all cells of the plan.
    damaged
        Title and reason of each cell that finished and cannot be read.
    failed
        `ResultsView.failed`.
    not_run
        Number of cells that neither finished nor failed.
    """

    planned: int
    damaged: tuple[tuple[str, str], ...]
    failed: tuple[Mapping[str, Any], ...]
    not_run: int

    @classmethod
    def of(cls, view: ResultsView) -> Missing:
        """Look for every cell of a view's plan."""
        titles = {str(cell["key"]): str(cell.get("title") or cell["key"]) for cell in view.plan.get("cells", [])}
        shown = {str(row["cell"]) for row in view.rows}
        damaged = {key: reason for key, reason in view.damaged.items() if key not in shown}
        failed = tuple(item for item in view.failed if str(item.get("key")) not in damaged)
        return cls(
            planned=len(titles),
            damaged=tuple((titles[key], reason) for key, reason in damaged.items()),
            failed=failed,
            not_run=len(titles) - len(shown) - len(damaged) - len(failed),
        )

    @property
    def count(self) -> int:
        """Number of cells without a row."""
        return len(self.damaged) + len(self.failed) + self.not_run

    @property
    def reasons(self) -> str:
        """Such as "1 damaged, 2 failed"; empty if nothing is missing."""
        counts = {"damaged": len(self.damaged), "failed": len(self.failed), "not run": self.not_run}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    @property
    def told(self) -> list[str]:
        """A sentence of what is missing, none if nothing is."""
        if not self.count:
            return []
        are = "is" if self.count == 1 else "are"
        return [f"{self.count} of {self.planned} planned cells {are} missing: {self.reasons}."]
