"""The HTML page of one sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isofire.report.caveats import caveats, reference_sizes
from isofire.report.details import Details, more_of_layers
from isofire.report.entries import ORDER, Entry, reference_name, title_of
from isofire.report.gained import Gain, gains_of, memory_figure
from isofire.report.heat import heat_maps
from isofire.report.html import embedded_json, render
from isofire.report.numbers import percent, significant, span
from isofire.report.overview import overview
from isofire.report.palette import Palette, bits_order, bits_text
from isofire.report.provenance import baseline_lines, config_text, environment_lines, failed_lines
from isofire.report.scatter import sample_text, scatter
from isofire.report.scope import scope
from isofire.report.study import Study
from isofire.report.summary import best_per_bits, default_entry, drift_name, explained, verdict
from isofire.report.table import Places, beside_drift, cells_of, places_of

_FILTERS = ("baseline", "target", "method", "bits", "range", "mode")
_ORDERS: dict[str, Callable[[Any], Any]] = {"bits": bits_order, "kept": lambda text: text}
_MOST_SPREAD = ("accuracy", "emd")
"""Columns whose spread the page's table shows; the CSV has all."""


def sweep_page(study: Study) -> str:
    """The whole page as text; it makes no request when it is opened.

    Raises
    ------
    OutputError
        If jinja2 is not installed.
    """
    palette = Palette(study.rows)
    entries = study.entries
    gains, places = gains_of(entries), places_of(entries)
    cells, baselines = _details(study)
    first = default_entry(entries)
    chosen = None if first is None else first.cells[0]
    return render(
        "report.html.j2",
        title=study.name,
        caveats=caveats(study),
        verdict=verdict(entries),
        facts=_facts(study),
        overview=overview(entries),
        sample=sample_text(study.rows) if study.rows else "no finished cell",
        best=[{"best": item, **_line(item.entry, palette, gains, places)} for item in best_per_bits(entries)],
        lines=[_line(entry, palette, gains, places) for entry in entries],
        measures=beside_drift(study.rows),
        gains=gains,
        memories=[
            found for name in study.baselines if (found := memory_figure(name, study.of_baseline(name), palette))
        ],
        filters=[*filters(entries), *_kept_filter(entries)],
        scatters=[scatter(name, study.of_baseline(name), palette) for name in study.baselines],
        legend=palette.legend(),
        modes=list(dict.fromkeys(row.get("mode") for row in study.rows)),
        heat=heat_maps(entries),
        groups=_choices(study),
        chosen=chosen,
        detail=cells.get(chosen or ""),
        more=[measure.heading for measure in more_of_layers()],
        bases=baselines,
        data=embedded_json({"cells": cells, "baselines": baselines}),
        environment=environment_lines(study.environment),
        baselines=baseline_lines(study.baseline_files(), study.view.plan.get("config")),
        config=config_text(study.view.plan.get("config")),
        damaged=study.missing.damaged,
        failed=failed_lines(study.missing.failed),
        not_run=study.missing.not_run,
        several=len(study.seeds) > 1,
        unequal=len({entry.n for entry in entries}) > 1,
        several_modes=len({entry.label("mode") for entry in entries}) > 1,
        reference=reference_name(entries),
        explained=explained(entries),
        scope=scope(study),
        combined=drift_name(entries),
        margin=f"{entries[0].margins.firing:g}" if entries else "",
        dagger=any(entry.multiple is not None and not entry.same_steps for entry in entries),
        several_baselines=len(study.baselines) > 1,
    )


def filters(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """A choice for each label that takes several values."""
    settings = [entry for entry in entries if not entry.is_control]
    found = []
    for key in _FILTERS:
        found.append(_filter(key, {_text(key, entry.label(key)): entry.label(key) for entry in settings}))
    return [item for item in found if len(item["values"]) > 1]


def _kept_filter(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    found = _filter("kept", {entry.verdict: str(ORDER[entry.outcome]) + entry.verdict for entry in entries})
    return [found] if len(found["values"]) > 1 else []


def _filter(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    order = _ORDERS.get(key, str)
    return {"key": key, "values": sorted(values, key=lambda text: order(values[text]))}


def _details(study: Study) -> tuple[dict[str, Any], list[Any]]:
    details = Details(study.view)
    cells = {
        str(row["cell"]): details.of(row, entry.measure, reference, study.spec(row), study.baseline_key(row))
        for entry in study.entries
        for row, reference in zip(entry.rows, entry.references, strict=True)
    }
    return cells, details.baselines


def _line(entry: Entry, palette: Palette, gains: Sequence[Gain], places: Places) -> dict[str, Any]:
    row = entry.rows[0]
    keys = {
        "accuracy": entry.mean("accuracy"),
        "change": -entry.drop,
        "emd": entry.drift,
        "multiple": entry.multiple,
        **{measure.headline: entry.mean(measure.headline) for measure in beside_drift(entry.rows)},
        **{gain.key: gain.mean(entry) for gain in gains},
        "bits": bits_order(entry.label("bits"))[0],
        "kept": float(ORDER[entry.outcome]),
    }
    text = cells_of(entry, places)
    return {
        "entry": entry,
        "title": title_of(row),
        "labels": {key: _text(key, entry.label(key)) for key in (*_FILTERS, "granularity", "placement", "options")}
        | {"kept": text["kept"]},
        "gains": {gain.key: gain.text(entry) for gain in gains},
        "text": text | {key: text[key].partition(" ±")[0] for key in text if key not in _MOST_SPREAD},
        # 17 digits: equal numbers stay equal, different ones different
        "sort": {key: "" if value is None or value != value else repr(float(value)) for key, value in keys.items()},
        **palette.mark(row),
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


def _facts(study: Study) -> list[tuple[str, str, str]]:
    """What it is, number, and a remark."""
    rows, missing = study.rows, study.missing
    facts = [("cells finished", f"{len(rows)} of {missing.planned}", missing.reasons)]
    if rows:
        images = sample_text(rows).partition(", T")[0]
        facts.append(("baseline accuracy", f"{span(percent, [row['accuracy_fp'] for row in rows])} %", images))
        rate = span(significant, [row["mfr_fp"] for row in rows])
        facts.append(("baseline rate", rate, "spikes per neuron per step"))
        dead = span(lambda value: percent(value, 1), [row["dead_05_fp"] for row in rows])
        facts.append(("baseline dead", f"{dead} %", "rate below 0.05"))
    if sizes := reference_sizes(study.entries):
        shares, values, _ = zip(*sizes, strict=True)
        share = span(lambda value: percent(value, 1), shares)
        facts.append(("reference drift", span(significant, values), f"{share} % of the baseline's rate"))
    if len(study.seeds) == 1:
        facts.append(("seeds", "1", "no spread: do not rank close settings"))
    else:
        facts.append(("seeds", str(len(study.seeds)), "± is one standard deviation" if study.seeds else ""))
    return facts
