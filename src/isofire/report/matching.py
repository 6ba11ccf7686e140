"""Cells of two sweeps brought together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.firing.measures import Measure
from isofire.report.entries import Row
from isofire.report.study import Study
from isofire.report.table import beside_drift


@dataclass(frozen=True)
class Pair:
    """The same cell of two sweeps."""

    a: Row
    b: Row

    def difference(self, key: str) -> float:
        """Second minus first."""
        return float(self.b[key]) - float(self.a[key])


@dataclass(frozen=True)
class Matched:
    """What two sweeps have in common, and what only one has.

    Attributes
    ----------
    pairs
        In the first sweep's order.
    only_a, only_b
        The cells that have no partner.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[Row, ...]
    only_b: tuple[Row, ...]

    @property
    def measures(self) -> list[Measure]:
        """The measures beside the drift that any row of either has, those of first rank: two columns a measure."""
        both = [row for pair in self.pairs for row in (pair.a, pair.b)]
        return [m for m in beside_drift([*both, *self.only_a, *self.only_b]) if "maps" in m.shown]


def match(a: Study, b: Study) -> Matched:
    """Bring together cells of the same baseline name, mode, seed and spec; where several are equal, in their order."""
    waiting: dict[tuple[str, ...], list[Row]] = {}
    for row in b.rows:
        waiting.setdefault(_key(row), []).append(row)
    pairs, only_a = [], []
    for row in a.rows:
        partners = waiting.get(_key(row))
        if partners:
            pairs.append(Pair(row, partners.pop(0)))
        else:
            only_a.append(row)
    left = {str(row["cell"]) for rows in waiting.values() for row in rows}
    return Matched(tuple(pairs), tuple(only_a), tuple(row for row in b.rows if str(row["cell"]) in left))


def what_differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, first and second value of everything in which two nested mappings differ.

    Examples
    --------
    >>> what_differs({"x": {"y": 1}, "z": 2}, {"x": {"y": 3}, "z": 2})
    [('x.y', '1', '3')]
    """
    first, second = _flat(a), _flat(b)
    keys = [*first, *(key for key in second if key not in first)]
    return [(key, first.get(key, "–"), second.get(key, "–")) for key in keys if first.get(key) != second.get(key)]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(key)) for key in ("baseline", "mode", "seed", "spec"))


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, item in value.items():
        name = f"{before}{key}"
        if isinstance(item, Mapping):
            found |= _flat(item, f"{name}.")
        elif isinstance(item, Sequence) and not isinstance(item, str) and any(isinstance(x, Mapping) for x in item):
            found |= _flat({str(i): x for i, x in enumerate(item)}, f"{name}.")
        else:
            found[name] = item if isinstance(item, str) else json.dumps(item)
    return found
