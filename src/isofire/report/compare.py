"""The report of two sweeps: matched cells side by side, what differs, and what only one of them has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isofire.firing.evidence.kept import LAYER_MEAN
from isofire.firing.evidence.outcome import HEADLINE
from isofire.firing.measures import Measure
from isofire.report.axes import Axis, linear_axis, log_axis
from isofire.report.entries import LABELS, entries_of, title_of
from isofire.report.html import embedded_json, render
from isofire.report.markdown import escaped, table
from isofire.report.matching import Matched, Pair, match, what_differs
from isofire.report.numbers import percent, points, signed, significant, times
from isofire.report.page import filters
from isofire.report.palette import Palette, bits_order, bits_text
from isofire.report.scatter import sample_text
from isofire.report.source import ResultsView
from isofire.report.study import Study
from isofire.report.table import measure_text
from isofire.report.write import page_name, write_all
from isofire.study import to_csv

_EDGE, _FAR, _TOP, _LOW = 56, 350, 10, 304
_SCORES = ("accuracy", "accuracy_fp", HEADLINE, LAYER_MEAN)
_LABELS = (*LABELS[:-1], "seed", LABELS[-1])


def write_comparison(a: ResultsView, b: ResultsView, out: str | os.PathLike[str]) -> list[Path]:
    """Write the comparison of two sweeps to `out` (a name that ends in .html) and, beside it, as .md and .csv.

    Raises
    ------
    SpecError
        If `out` does not end in .html.
    OutputError
        If a file cannot be written, or jinja2 is not installed.
    """
    page = page_name(out)
    first, second = Study.of(a), Study.of(b)
    found = match(first, second)
    texts = (
        comparison_page(first, second, found),
        comparison_markdown(first, second, found),
        to_csv(pair_records(found)),
    )
    return write_all(page, texts)


def comparison_page(a: Study, b: Study, found: Matched) -> str:
    """The whole page as text."""
    palette = Palette([pair.a for pair in found.pairs])
    names = names_of(a, b)
    return render(
        "compare.html.j2",
        title=" against ".join(names),
        names=("A: " + names[0], "B: " + names[1]),
        samples=tuple(sample_text(study.rows) if study.rows else "no finished cell" for study in (a, b)),
        caveats=caveats(a, b, found),
        lead=lead(found),
        lines=[_line(number, pair, palette, found.measures) for number, pair in enumerate(found.pairs)],
        measures=found.measures,
        filters=filters(entries_of([pair.a for pair in found.pairs])),
        legend=palette.legend(),
        modes=list(dict.fromkeys(pair.a.get("mode") for pair in found.pairs)),
        figures=_figures(found, palette),
        several_baselines=len({pair.a["baseline"] for pair in found.pairs}) > 1,
        unmatched=[(name, [_told(row) for row in rows]) for name, rows in (("A", found.only_a), ("B", found.only_b))],
        differences=differences(a, b),
        data=embedded_json({"cells": {}, "baselines": []}),
    )


def comparison_markdown(a: Study, b: Study, found: Matched) -> str:
    """The whole comparison as text."""
    names = [escaped(name) for name in names_of(a, b)]
    lines = [f"# {names[0]} (A) against {names[1]} (B)", ""]
    lines += [line for text in caveats(a, b, found) for line in (f"**{escaped(text)}**", "")]
    lines += [*(escaped(text) for text in lead(found)), ""]
    head = ("baseline", "cell", "accuracy % A", "B", "B - A", "EMD A", "B", "B - A")
    head += tuple(text for measure in found.measures for text in (f"{measure.heading} A", "B"))
    shown = (*_SHOWN, *(f"{measure.headline}_{side}" for measure in found.measures for side in "ab"))
    body = []
    for pair in found.pairs:
        values = _values(pair, found.measures)
        body.append((pair.a["baseline"], _told(pair.a), *(values[key][1] for key in shown)))
    lines += [*table(head, body, text=2), ""]
    for name, rows in (("A", found.only_a), ("B", found.only_b)):
        lines += [f"Only in {name}: {escaped('; '.join(map(_told, rows)) or 'none')}.", ""]
    lines += ["## What differs", "", *table(("setting", "A", "B"), differences(a, b), text=3)]
    return "\n".join(lines) + "\n"


def names_of(a: Study, b: Study) -> tuple[str, str]:
    """What the two sweeps are called, with the folders that tell them apart where they are called the same."""
    if a.name != b.name:
        return a.name, b.name
    first, second = (Path(os.path.realpath(study.view.folder)) for study in (a, b))
    above = Path(os.path.commonpath([first.parent, second.parent]))
    return f"{a.name} ({first.relative_to(above)})", f"{b.name} ({second.relative_to(above)})"


def caveats(a: Study, b: Study, found: Matched) -> list[str]:
    """What a reader must know before the numbers: cells that are missing, and images that are not the same."""
    said = [f"{side}: {text}" for side, study in (("A", a), ("B", b)) for text in study.missing.told]
    images = {(int(pair.a["n_images"]), int(pair.b["n_images"])) for pair in found.pairs}
    if different := sorted((n, m) for n, m in images if n != m):
        counts = ", ".join(f"{n:,} against {m:,}" for n, m in different)
        said.append(f"A and B used different test images ({counts}): a part of every difference is that of the images.")
    return said


def lead(found: Matched) -> list[str]:
    """How many cells match, and how far apart they are."""
    pairs = found.pairs
    said = [
        f"{len(pairs)} cell{'' if len(pairs) == 1 else 's'} in both (same baseline name, mode, seed and spec), "
        f"{len(found.only_a)} only in A, {len(found.only_b)} only in B."
    ]
    if not pairs:
        return said
    equal = sum(all(pair.a.get(key) == pair.b.get(key) for key in _compared(found)) for pair in pairs)
    if equal == len(pairs):
        return [*said, "All of them have the same numbers."]
    accuracy = [pair.difference("accuracy") for pair in pairs]
    drift = [pair.difference(HEADLINE) for pair in pairs]
    most = max(pairs, key=lambda pair: abs(pair.difference("accuracy")))
    largest = f"Largest change of accuracy: {points(most.difference('accuracy'))} points ({_told(most.a)})."
    return [
        *said,
        f"{equal} have the same numbers. B minus A on average: {points(sum(accuracy) / len(pairs))} points of "
        f"accuracy, {signed(sum(drift) / len(pairs))} EMD. "
        + (largest if most.difference("accuracy") else "No accuracy differs."),
    ]


def differences(a: Study, b: Study) -> list[tuple[str, str, str]]:
    """What differs between two sweeps' environments and configurations."""
    found = [(f"environment: {key}", *values) for key, *values in what_differs(a.environment, b.environment)]
    configs = [study.view.plan.get("config") or {} for study in (a, b)]
    return [*found, *((f"configuration: {key}", *values) for key, *values in what_differs(*configs))]  # type: ignore[misc]


def pair_records(found: Matched) -> list[dict[str, Any]]:
    """A record a matched cell, then those of one sweep alone, whose other values are empty."""
    records = []
    both = [(pair.a, pair.b) for pair in found.pairs]
    for first, second in [*both, *((row, None) for row in found.only_a), *((None, row) for row in found.only_b)]:
        known = first or second
        assert known is not None
        record: dict[str, Any] = {key: known.get(key) for key in _LABELS}
        record["cell_a"], record["cell_b"] = (row["cell"] if row else None for row in (first, second))
        for key in _compared(found):
            values = [float(row[key]) if row and row.get(key) is not None else None for row in (first, second)]
            record[f"{key}_a"], record[f"{key}_b"] = values
            record[f"{key}_difference"] = None if None in values else values[1] - values[0]  # type: ignore[operator]
        records.append(record)
    return records


_SHOWN = ("accuracy_a", "accuracy_b", "accuracy", "emd_a", "emd_b", "emd")


def _compared(found: Matched) -> tuple[str, ...]:
    return (*_SCORES, *(measure.headline for measure in found.measures))


def _values(pair: Pair, measures: Sequence[Measure]) -> dict[str, tuple[Any, str]]:
    """What is shown of a pair, by its column: a number, and how it is written."""
    ratio = pair.b[HEADLINE] / pair.a[HEADLINE] if pair.a[HEADLINE] else None
    change, drift = pair.difference("accuracy"), pair.difference(HEADLINE)
    found = {"accuracy": (change, points(change)), "emd": (drift, signed(drift)), "ratio": (ratio, times(ratio))}
    for side, row in (("a", pair.a), ("b", pair.b)):
        found[f"accuracy_{side}"] = row["accuracy"], percent(row["accuracy"])
        found[f"emd_{side}"] = row[HEADLINE], significant(row[HEADLINE])
        for measure in measures:
            value = row.get(measure.headline)
            found[f"{measure.headline}_{side}"] = value, measure_text(measure, value)
    return found


def _line(number: int, pair: Pair, palette: Palette, measures: Sequence[Measure]) -> dict[str, Any]:
    values = _values(pair, measures)
    labels = {key: "–" if pair.a.get(key) is None else str(pair.a[key]) for key in _LABELS}
    return {
        "number": number,
        "title": title_of(pair.a),
        "labels": labels | {"bits": bits_text(pair.a.get("bits"))},
        "order": bits_order(pair.a.get("bits"))[0],
        "text": {key: text for key, (_, text) in values.items()},
        "sort": {key: "" if value is None else repr(float(value)) for key, (value, _) in values.items()},
        **palette.mark(pair.a),
    }


def _figures(found: Matched, palette: Palette) -> list[dict[str, Any]]:
    """A against B, for accuracy and for drift; on the line they are equal."""
    if not found.pairs:
        return []
    accuracies = [100 * float(row["accuracy"]) for pair in found.pairs for row in (pair.a, pair.b)]
    drifts = [float(row[HEADLINE]) for pair in found.pairs for row in (pair.a, pair.b)]
    x, y = linear_axis(accuracies, _EDGE, _FAR, 1.0), linear_axis(accuracies, _LOW, _TOP, 1.0)
    log_x, log_y = log_axis(drifts, _EDGE, _FAR), log_axis(drifts, _LOW, _TOP)
    return [
        _figure("accuracy (%)", found, palette, x, y, lambda row: 100 * row["accuracy"]),
        _figure("EMD (spikes per neuron per step)", found, palette, log_x, log_y, lambda row: row[HEADLINE]),
    ]


def _figure(name: str, found: Matched, palette: Palette, x: Axis, y: Axis, value: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": f"{name}: B against A",
        "desc": f"{len(found.pairs)} cells; below the line B is lower than A.",
        "x_ticks": x.marked(4),
        "y_ticks": y.marked(4),
        "marks": [
            {
                "x": x.at(max(value(pair.a), x.low)), "y": y.at(max(value(pair.b), y.low)), "entry": number,
                **palette.mark(pair.a),
                "text": f"{_told(pair.a)}\nA {significant(value(pair.a), 4)}, B {significant(value(pair.b), 4)}",
            }
            for number, pair in enumerate(found.pairs)
        ],
    }  # fmt: skip


def _told(row: Any) -> str:
    return f"{title_of(row)}, {row['baseline']}, seed {row.get('seed')}"
