"""What a sweep found, read from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from isofire.errors import DataError, SpecError
from isofire.firing import SpikeCounts
from isofire.firing.evidence.outcome import Margins
from isofire.study.reference import judged
from isofire.study.rows import Row, is_row, restored
from isofire.sweep.manifest import Kind
from isofire.sweep.store import Store, read_json
from isofire.sweep.task import baseline_title


class Results:
    """The finished cells of a sweep, read only; a sweep that still runs gives what there is now.

    Parameters
    ----------
    folder
        What `isofire sweep --out` wrote.
    plan
        `name`, `config`, `environment`, `baselines` and `cells`, as the sweep planned them.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Mapping[str, Any]) -> None:
        self.folder, self.plan = Path(folder), plan
        self._store = Store(folder)
        self._altered: set[str] = set()
        self._cells = {str(cell["key"]): cell for cell in plan["cells"]}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Results:
        """Read the plan of a sweep's folder.

        Raises
        ------
        DataError
            If the folder is not one of a sweep.
        """
        path = Path(folder) / "plan.json"
        if not os.path.exists(path):
            if os.path.isdir(Path(folder) / "cells"):
                raise DataError(f"{path} is missing beside finished cells; {_CURE}")
            if not os.path.exists(folder):
                raise DataError(f"there is no folder {folder}; name what isofire sweep --out wrote")
            raise DataError(
                f"{folder} is no folder of a sweep, it has no plan.json; name what isofire sweep --out wrote"
            )
        plan = read_json(path)
        if isinstance(plan, dict) and isinstance(plan.get("version"), int) and plan["version"] != 1:
            raise DataError(
                f"{path} must hold a plan of version 1, got {plan['version']}; read it with the isofire that wrote it"
            )
        _check(plan, path)
        if not os.path.isdir(Path(folder) / "cells") and _has_rows(Path(folder)):
            raise DataError(
                f"{folder} holds rows of finished cells (results.csv) but no folder cells, from which pages are made; "
                "take the whole folder that isofire sweep --out wrote, or read results.csv itself"
            )
        return cls(folder, plan)

    @cached_property
    def rows(self) -> Sequence[Row]:
        """A row for each finished cell, in the plan's order, judged beside the others; columns: docs/sweep.md."""
        # a baseline may have another name than in the sweep that computed the cell
        names = {item["key"]: item["name"] for item in self.plan["baselines"]}
        found = []
        for key, cell in self._cells.items():
            if not self._store.exists("cells", key):
                continue
            row = self._store.read("cells", key, "row.json")
            if not is_row(row) or row["cell"] != key:
                self._altered.add(key)
            else:
                found.append({**restored(row), "baseline": names[cell["baseline"]]})
        return judged(found, self.margins)

    @cached_property
    def margins(self) -> Margins:
        """What verdicts allow, as the sweep's file says; the defaults where it says nothing."""
        config = self.plan.get("config")
        given = config.get("margins") if isinstance(config, Mapping) else None
        try:
            return Margins() if given is None else msgspec.convert(given, Margins)
        except (msgspec.ValidationError, SpecError) as error:
            raise DataError(f"{self.folder / 'plan.json'}: margins: {error}; {_CURE}") from error

    @cached_property
    def failed(self) -> Sequence[Mapping[str, Any]]:
        """`key`, `title`, `type`, `reason`, `traceback`, `date` and `attempts` of each failed cell."""
        finished = {row["cell"] for row in self.rows}
        found = [self._store.failure(key) for key in self._cells if key not in finished]
        return [record for record in found if record is not None]

    @cached_property
    def damaged(self) -> Mapping[str, str]:
        """Cell -> why it does not count, of finished cells that are no longer what they were."""
        finished = {row["cell"] for row in self.rows}
        # asked last: a cell that was published meanwhile is whole
        lost = [
            key
            for key in self._cells
            if key not in finished
            and os.path.isdir(self._store.path("cells", key))
            and (key in self._altered or not self._store.exists("cells", key))
        ]
        return {key: "a file is missing or no longer what it was; sweep again to repair it" for key in lost}

    @property
    def pending(self) -> int:
        """Cells that neither finished nor failed; damaged ones are to be computed again."""
        return len(self._cells) - len(self.rows) - len(self.failed)

    @property
    def running(self) -> Sequence[Mapping[str, Any]]:
        """`key`, `title`, `host` and `pid` of cells and baselines that are being computed now."""
        titles = {key: cell["title"] for key, cell in self._cells.items()}
        titles |= {item["key"]: baseline_title(item["name"], item.get("seed")) for item in self.plan["baselines"]}
        owners = self._store.owners()
        return [
            {"key": key, "title": titles[key], "host": owners[key].host, "pid": owners[key].pid}
            for key in titles
            if key in owners
        ]

    def layers(self, cell_key: str) -> Sequence[Mapping[str, Any]]:
        """The layers of a comparison: the fields of `isofire.firing.LayerDrift`, and `emd_floor` (None: unknown)."""
        found = self._read("cells", cell_key, "comparison.json", dict)
        try:
            noise = (found.get("evidence") or {}).get("layers", {})
            floors = {name: (known["emd"].get("floor") or {}).get("value") for name, known in noise.items()}
            return [{**restored(layer), "emd_floor": floors.get(layer["layer"])} for layer in found["layers"]]
        except (KeyError, TypeError, AttributeError) as error:
            place = self._store.path("cells", cell_key) / "comparison.json"
            raise DataError(f"{place} must hold a comparison with its layers, and is damaged; {_CURE}") from error

    def counts(self, cell_key: str) -> SpikeCounts:
        """Spikes of a cell's quantized network."""
        return SpikeCounts.load(self._file(cell_key, "counts.safetensors"))

    def baseline_counts(self, cell_key: str) -> SpikeCounts:
        """Spikes of a cell's baseline."""
        return SpikeCounts.load(self._baseline(cell_key) / "counts.safetensors")

    def baseline(self, cell_key: str) -> Mapping[str, Any]:
        """`name`, `seed`, `model`, `data`, `accuracy`, `history` and `environment` of a cell's baseline."""
        return self._read("baselines", str(self._cells[cell_key]["baseline"]), "baseline.json", dict)

    def distributions(self, cell_key: str) -> Sequence[Mapping[str, Any]]:
        """What `isofire.study.distributions` gave for a cell."""
        return self._read("cells", cell_key, "distributions.json", list)

    def _read(self, kind: Kind, key: str, name: str, form: type[Any]) -> Any:
        found = self._store.read(kind, key, name)
        if not isinstance(found, form):
            raise DataError(f"{self._store.path(kind, key) / name} is damaged or missing; {_CURE}")
        return found

    def _file(self, cell_key: str, name: str) -> Path:
        return self._store.path("cells", cell_key) / name

    def _baseline(self, cell_key: str) -> Path:
        return self._store.path("baselines", str(self._cells[cell_key]["baseline"]))


_CURE = "give the same isofire sweep command again, which writes it anew; finished cells are kept"


def _has_rows(folder: Path) -> bool:
    path = folder / "results.json"
    stored = read_json(path) if os.path.exists(path) else None
    return isinstance(stored, dict) and bool(stored.get("rows"))


def _check(plan: Any, path: Path) -> None:
    """Refuse a plan that lacks what results are read by."""

    def lists(key: str, *keys: str) -> bool:
        items = plan.get(key)
        return isinstance(items, list) and all(
            isinstance(item, dict) and all(isinstance(item.get(name), str) for name in keys) for item in items
        )

    whole = (
        isinstance(plan, dict)
        and plan.get("version") == 1
        and lists("cells", "key", "title", "baseline", "mode")
        and lists("baselines", "key", "name")
        and {cell["baseline"] for cell in plan["cells"]} <= {item["key"] for item in plan["baselines"]}
    )
    if not whole:
        raise DataError(f"{path} must hold a sweep's plan with its cells and baselines, and is damaged; {_CURE}")


def load_results(folder: str | os.PathLike[str]) -> list[Row]:
    """The rows of a sweep's finished cells, a flat record each.

    `pandas.DataFrame` takes them; `polars.DataFrame` with `strict=False`, since bits are texts where weights and states
    have their own ("4 | 2").

    Raises
    ------
    DataError
        If the folder is not one of a sweep.

    Examples
    --------
    >>> rows = load_results("runs/demo")  # doctest: +SKIP
    >>> min(rows, key=lambda row: row["emd_weighted"])["method"]  # doctest: +SKIP
    'lsq'
    """
    return list(Results.open(folder).rows)
