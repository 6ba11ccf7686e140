"""A sweep's results in the form that page, Markdown and CSV are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from isofire.firing.evidence.outcome import Margins
from isofire.report.entries import Entry, Row, entries_of
from isofire.report.missing import Missing
from isofire.report.source import ResultsView


@dataclass(frozen=True, eq=False)
class Study:
    """Results with names resolved and settings gathered.

    Attributes
    ----------
    view
        Where they come from.
    rows
        Finished cells; `baseline` is the baseline's name.
    entries
        Rows gathered by setting.
    """

    view: ResultsView
    rows: tuple[Row, ...]
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, view: ResultsView, margins: Margins | None = None) -> Study:
        """Read the rows of a view, and judge them by these margins; None: by those of the sweep."""
        names = {str(item["key"]): str(item["name"]) for item in view.plan.get("baselines", [])}
        rows = tuple({**row, "baseline": names.get(str(row.get("baseline")), row.get("baseline"))} for row in view.rows)
        return cls(view, rows, entries_of(rows, margins or view.margins))

    @property
    def name(self) -> str:
        """What the sweep is called."""
        return str(self.view.plan.get("name") or "sweep")

    @property
    def environment(self) -> Mapping[str, Any]:
        """What the sweep was made with."""
        return self.view.plan.get("environment") or {}

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines that have a finished cell, in their order."""
        return list(dict.fromkeys(str(row["baseline"]) for row in self.rows))

    def of_baseline(self, name: str) -> list[Entry]:
        """The settings of one baseline, controls included."""
        return [entry for entry in self.entries if str(entry.label("baseline")) == name]

    @property
    def seeds(self) -> list[Any]:
        """Seeds of the finished cells."""
        return sorted({row.get("seed") for row in self.rows}, key=lambda seed: (isinstance(seed, str), seed))

    @cached_property
    def missing(self) -> Missing:
        """Cells of the plan that have no row."""
        return Missing.of(self.view)

    @cached_property
    def _planned(self) -> dict[str, Mapping[str, Any]]:
        return {str(cell["key"]): cell for cell in self.view.plan.get("cells", [])}

    def spec(self, row: Row) -> Mapping[str, Any] | None:
        """The spec of a row's cell; None for a control."""
        return self._planned.get(str(row["cell"]), {}).get("spec")

    def baseline_key(self, row: Row) -> str:
        """The key of the baseline that a row's cell was made from."""
        planned = self._planned.get(str(row["cell"]), {})
        return str(planned.get("baseline") or f"{row['baseline']} {row.get('seed')}")

    def baseline_files(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
        """Each planned baseline with what is known of it, by a finished cell of it."""
        by_key = {self.baseline_key(row): str(row["cell"]) for row in reversed(self.rows)}
        return [
            (item, self.view.baseline(by_key[str(item["key"])]) if str(item["key"]) in by_key else None)
            for item in self.view.plan.get("baselines", [])
        ]
