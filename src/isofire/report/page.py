"""The HTML page of one sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isofire.report.details import Details
from isofire.report.entries import Entry, bits_order, bits_text, title_of
from isofire.report.heat import heat_maps
from isofire.report.html import embedded_json, render
from isofire.report.numbers import percent, points, significant
from isofire.report.palette import Palette
from isofire.report.provenance import baseline_lines, config_text, environment_lines, failed_lines
from isofire.report.published import CONFIDENCE, MARK, matches, published_baseline, published_table
from isofire.report.reference import DRIFT
from isofire.report.scatter import sample_text, scatter
from isofire.report.study import Study
from isofire.report.summary import best_per_bits, default_entry, verdict
from isofire.report.table import cells_of

_FILTERS = ("baseline", "target", "method", "bits", "range", "mode")


def sweep_page(study: Study) -> str:
    """The whole page as text; it makes no request when it is opened.

    Raises
    ------
    OutputError
        If jinja2 is not installed.
    """
    palette = Palette(study.rows)
    entries = study.entries
    cells, baselines = _details(study)
    first = default_entry(entries)
    chosen = None if first is None else first.cells[0]
    return render(
        "report.html.j2",
        title=study.name,
        verdict=verdict(entries),
        cards=_cards(study),
        sample=sample_text(study.rows) if study.rows else "no finished cell",
        best=[{"best": item, **_line(item.entry, palette)} for item in best_per_bits(entries)],
        lines=[_line(entry, palette) for entry in entries],
        filters=filters(entries),
        scatters=[
            scatter(name, [e for e in entries if str(e.label("baseline")) == name], palette) for name in study.baselines
        ],
        legend=palette.legend(),
        modes=list(dict.fromkeys(row.get("mode") for row in study.rows)),
        heat=heat_maps(entries),
        groups=_choices(study),
        chosen=chosen,
        detail=cells.get(chosen or ""),
        bases=baselines,
        data=embedded_json({"cells": cells, "baselines": baselines}),
        published=_published(study),
        environment=environment_lines(study.environment),
        baselines=baseline_lines(study.baseline_files()),
        config=config_text(study.view.plan.get("config")),
        failed=failed_lines(study.view.failed),
        pending=study.view.pending,
        several=len(study.seeds) > 1,
        has_reference=any(entry.multiple is not None for entry in entries),
        dagger=any(entry.multiple is not None and not entry.same_steps for entry in entries),
        several_baselines=len(study.baselines) > 1,
    )


def filters(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A choice for each label that takes several values."""
    found = []
    for key in _FILTERS:
        values = {_text(key, entry.label(key)): entry.label(key) for entry in entries if not entry.is_control}
        if len(values) > 1:
            order = (lambda text: bits_order(values[text])) if key == "bits" else None
            found.append({"key": key, "values": sorted(values, key=order)})
    return found


def _details(study: Study) -> tuple[dict[str, Any], list[Any]]:
    details = Details(study.view)
    cells = {
        str(row["cell"]): details.of(row, reference, study.spec(row), study.baseline_key(row))
        for entry in study.entries
        for row, reference in zip(entry.rows, entry.references, strict=True)
    }
    return cells, details.baselines


def _line(entry: Entry, palette: Palette) -> dict[str, Any]:
    row = entry.rows[0]
    keys = {
        "accuracy": entry.mean("accuracy"),
        "change": -entry.drop,
        "emd": entry.mean(DRIFT),
        "multiple": entry.multiple,
        "dead": entry.mean("dead_05"),
        "rate": entry.mean("mfr"),
        "paired": entry.mean("paired_mae"),
        "bits": bits_order(entry.label("bits"))[0],
    }
    return {
        "entry": entry,
        "title": title_of(row),
        "labels": {key: _text(key, entry.label(key)) for key in (*_FILTERS, "granularity", "placement", "options")},
        "text": cells_of(entry),
        # 17 digits: equal numbers stay equal, different ones different
        "sort": {key: "" if value is None or value != value else repr(float(value)) for key, value in keys.items()},
        "colour": palette.colour(row),
        "shape": palette.shape(row),
        "kind": "cross" if entry.is_control else "full" if row.get("mode") == "qat" else "open",
    }


def _text(key: str, value: Any) -> str:
    if key == "bits":
        return bits_text(value)
    return "–" if value is None else str(value)


def _choices(study: Study) -> list[dict[str, Any]]:
    """Cells to choose from, gathered by baseline."""
    return [
        {
            "name": name,
            "cells": [
                {"key": row["cell"], "title": f"{title_of(row)}, seed {row.get('seed')}"}
                for entry in study.entries
                for row in entry.rows
                if str(row["baseline"]) == name
            ],
        }
        for name in study.baselines
    ]


def _cards(study: Study) -> list[tuple[str, str, str]]:
    """Number, what it is, and a remark."""
    rows = study.rows
    total = len(rows) + len(study.view.failed) + study.view.pending
    missing = [f"{len(study.view.failed)} failed"] if study.view.failed else []
    missing += [f"{study.view.pending} not finished"] if study.view.pending else []
    cards = [(f"{len(rows)} of {total}", "cells finished", ", ".join(missing) or "none failed")]
    for key, name, form in (
        ("accuracy_fp", "baseline accuracy (%)", percent),
        ("mfr_fp", "baseline rate", significant),
    ):
        values = [row[key] for row in rows]
        if values:
            low, high = form(min(values)), form(max(values))
            remark = "spikes per neuron per step" if key == "mfr_fp" else sample_text(rows).partition(", T")[0]
            cards.append((low if low == high else f"{low} to {high}", name, remark))
    count = len(study.seeds)
    cards.append((str(count), "seed" if count == 1 else "seeds", "no spread, so no ranking of close settings" if count == 1 else "± is one standard deviation"))  # fmt: skip
    return cards


def _published(study: Study) -> dict[str, Any] | None:
    found = matches(study.entries)
    if not found:
        return None
    return {
        "mark": MARK,
        "citation": published_table()["citation"],
        "setup": published_table()["setup"],
        "measure": published_table()["measure"],
        "confidence": CONFIDENCE,
        "epochs": sorted({int(row.get("epochs") or 0) for item in found for row in item.entry.rows}),
        "lines": [
            {
                "title": title_of(item.entry.rows[0]),
                "ours": cells_of(item.entry),
                "n": item.entry.n,
                "accuracy": percent(item.theirs["accuracy"], 1),
                "change": _their_change(item.entry, item.theirs),
                "emd": significant(item.theirs["emd"], 3),
                "dead": percent(item.theirs["dead"], 1),
                "place": item.theirs["place"],
                "confidence": item.theirs["confidence"],
            }
            for item in found
        ],
    }


def _their_change(entry: Entry, theirs: dict[str, Any]) -> str:
    base = published_baseline(entry.label("model"), entry.label("data"))
    return points(None if base is None else theirs["accuracy"] - base["accuracy"], 1)
