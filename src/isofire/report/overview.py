"""The answer as one map: what every setting keeps, settings down and bits across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isofire.report.entries import Entry, range_of
from isofire.report.numbers import points, times
from isofire.report.palette import bits_order, bits_text

_GROUP = ("baseline", "target")
_LINE = (*_GROUP, "method", "range", "granularity", "placement", "options", "mode")


def overview(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Columns (bits) and lines of the map, gathered by baseline and target; None without a quantized setting.

    Lines that differ in nothing but the bits are one. Of several settings in one field the first is shown and marked.
    """
    settings = [entry for entry in entries if not entry.is_control]
    if not settings:
        return None
    numbers = {bits_text(entry.label("bits")): entry.label("bits") for entry in settings}
    columns = sorted(numbers, key=lambda text: bits_order(numbers[text]))
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[Entry]]] = {}
    for entry in settings:
        lines = groups.setdefault(_key(entry, _GROUP), {})
        lines.setdefault(_key(entry, _LINE), []).append(entry)
    return {
        "columns": columns,
        "groups": [
            {
                "baseline": baseline,
                "target": target,
                "lines": [_line(found, columns) for found in lines.values()],
            }
            for (baseline, target), lines in groups.items()
        ],
    }


def _line(found: Sequence[Entry], columns: Sequence[str]) -> dict[str, Any]:
    row = found[0].rows[0]
    per = "per tensor" if row.get("granularity") == "tensor" else None
    return {
        "method": str(row.get("method")),
        "more": ", ".join(str(part) for part in (range_of(row), per, row.get("mode")) if part is not None),
        "fields": [_field([e for e in found if bits_text(e.label("bits")) == column]) for column in columns],
    }


def _field(found: Sequence[Entry]) -> dict[str, Any] | None:
    if not found:
        return None
    entry = found[0]
    return {
        "entry": entry.number,
        "kept": entry.outcome,
        "word": entry.verdict + ("*" if len(found) > 1 else ""),
        "change": points(-entry.drop, 1),
        "multiple": "" if entry.multiple is None else times(entry.multiple) + ("" if entry.same_steps else "†"),
    }


def _key(entry: Entry, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(entry.label(label)) for label in labels)
