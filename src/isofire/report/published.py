"""The paper's own numbers, for settings that match ours; copied, never measured here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from isofire.report.entries import Entry

_MATCHED = ("model", "data", "T", "target", "method", "bits", "range")

MARK = "copied from arXiv 2604.14487, not measured here"

CONFIDENCE = (
    "The paper's numbers are taken from a summary of it and were not checked against its own tables. Its recipe, its "
    "number of test images, and where in the step it quantizes a membrane are not public, so the training behind the "
    "two columns differs: compare the order of settings rather than the values."
)


@dataclass(frozen=True)
class Published:
    """A setting of ours beside the paper's number for it."""

    entry: Entry
    theirs: dict[str, Any]


@cache
def published_table() -> dict[str, Any]:
    """The data file: source, setup and rows."""
    text = (resources.files("isofire.report") / "assets" / "published.json").read_text(encoding="utf-8")
    return json.loads(text)


def matches(entries: Sequence[Entry]) -> list[Published]:
    """Settings whose model, data, T, target, method, bits and range the paper reports; it gives no granularity."""
    known = {tuple(row[key] for key in _MATCHED): row for row in published_table()["rows"] if row["target"] != "none"}
    found = []
    for entry in entries:
        key = tuple(entry.label(name) for name in _MATCHED)
        if key in known:
            found.append(Published(entry, known[key]))
    return found


def published_baseline(model: Any, data: Any, steps: Any) -> dict[str, Any] | None:
    """The paper's full-precision row of a model, data set and T."""
    wanted = {"target": "none", "model": model, "data": data, "T": steps}
    return next((row for row in published_table()["rows"] if wanted.items() <= row.items()), None)
