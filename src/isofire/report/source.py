"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from isofire.firing import SpikeCounts
from isofire.firing.evidence.outcome import Margins


class ResultsView(Protocol):
    """The finished cells of a sweep, read only; `isofire.sweep.results.Results` is one."""

    @property
    def folder(self) -> Path:
        """Where they lie; it tells sweeps of one name apart."""
        ...

    @property
    def plan(self) -> Mapping[str, Any]:
        """`name`, `config`, `environment`, `baselines` and `cells`, as the sweep planned them."""
        ...

    @property
    def margins(self) -> Margins:
        """What verdicts allow."""
        ...

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """A row for each finished cell, in the plan's order, with `cell` and `baseline` beside the columns.

        Of the noise that `isofire.firing.Comparison.row` gives, floors and intervals are used where a row has them.
        """
        ...

    @property
    def failed(self) -> Sequence[Mapping[str, Any]]:
        """`key`, `title`, `reason`, `type` and more of each failed cell."""
        ...

    @property
    def damaged(self) -> Mapping[str, str]:
        """Key and reason of each cell that finished and cannot be read."""
        ...

    def layers(self, cell_key: str) -> Sequence[Mapping[str, Any]]:
        """The layers of a comparison: the fields of `isofire.firing.LayerDrift`, and `emd_floor` (None: unknown)."""
        ...

    def counts(self, cell_key: str) -> SpikeCounts:
        """Spikes of a cell's quantized network."""
        ...

    def baseline_counts(self, cell_key: str) -> SpikeCounts:
        """Spikes of a cell's baseline."""
        ...

    def baseline(self, cell_key: str) -> Mapping[str, Any]:
        """What is known of a cell's baseline."""
        ...

    def distributions(self, cell_key: str) -> Sequence[Mapping[str, Any]]:
        """What `isofire.study.distributions` gave for a cell."""
        ...
