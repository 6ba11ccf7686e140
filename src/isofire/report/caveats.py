"""What a reader must know before the headline: what is missing, and what makes "kept" say little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isofire.firing.evidence.interval import MIN_BLOCKS
from isofire.firing.evidence.kept import doubt_of
from isofire.report.entries import Entry, Row
from isofire.report.numbers import percent, significant
from isofire.report.study import Study

LARGE = 0.25
"""A reference above this share of the baseline's mean rate is itself a large change of firing."""


def caveats(study: Study) -> list[str]:
    """A sentence each; none for a complete sweep of baselines that can be judged by."""
    return [
        *study.missing.told, *_at_chance(study), *_in_no_rate(study), *_large_references(study), *_without_floor(study),
    ]  # fmt: skip


def reference_sizes(entries: Sequence[Entry]) -> list[tuple[float, float, str]]:
    """Share of the baseline's mean rate, value and kind of every reference; a silent baseline has no share."""
    return [
        (reference.value / row["mfr_fp"], reference.value, reference.kind)
        for entry in entries
        if not entry.is_control
        for row, reference in zip(entry.rows, entry.references, strict=True)
        if reference is not None and row["mfr_fp"] > 0
    ]


def _at_chance(study: Study) -> list[str]:
    """Baselines that guess or never fire; rows of earlier versions by their number of classes, where it is known."""
    told: list[str] = []
    found: dict[int, list[str]] = {}
    for row in _row_of_each_baseline(study):
        known = study.view.baseline(str(row["cell"]))
        seed = "" if known.get("seed") is None else f" (seed {known['seed']})"
        if row.get("accuracy_chance") is not None:
            doubt = doubt_of(row)
            told += [] if doubt is None else [f"Baseline {row['baseline']}{seed} {doubt}."]
            continue
        classes, images = _classes(known), int(row["n_images"])
        if classes is None:
            continue
        guess = 1 / classes
        if row["accuracy_fp"] <= guess + 2 * math.sqrt(guess * (1 - guess) / images):
            text = f"{row['baseline']}{seed} is right on {percent(row['accuracy_fp'])} % of {images:,} test images"
            found.setdefault(classes, []).append(text)
    return told + [
        f"Baseline no better than chance: {', '.join(texts)}, guessing among {classes} classes gives "
        f"{percent(1 / classes, 1)} %. That a setting keeps this says nothing."
        for classes, texts in found.items()
    ]


def _in_no_rate(study: Study) -> list[str]:
    """What gives spikes that no rate holds, so that no firing is kept."""
    told = {(str(row["baseline"]), row["firing_left_out"]) for row in study.rows if row.get("firing_left_out")}
    return [f"Of baseline {name} the rates leave out {what}." for name, what in sorted(told)]


def _large_references(study: Study) -> list[str]:
    """The largest reference of each kind, if it is large beside its baseline's mean rate."""
    largest = {kind: (share, value) for share, value, kind in sorted(reference_sizes(study.entries))}
    return [
        f"The {kind} itself drifts by {significant(value)}, {percent(share, 0)} % of the baseline's mean rate: "
        "firing that counts as kept may have changed as much."
        for kind, (share, value) in largest.items()
        if share > LARGE
    ]


def _without_floor(study: Study) -> list[str]:
    """Why there is no noise floor, where too few images are the reason."""
    few = {}
    for row in _row_of_each_baseline(study):
        if row.get("emd_floor") is None:
            counts = study.view.baseline_counts(str(row["cell"]))
            few[int((counts.images_per_block > 0).sum())] = counts.n_images
    return [
        f"No noise floor was measured: an interval needs images in at least {MIN_BLOCKS} blocks, the {images:,} test "
        f"images fill {blocks}; test more images."
        for blocks, images in few.items()
        if blocks < MIN_BLOCKS
    ]


def _row_of_each_baseline(study: Study) -> list[Row]:
    rows: dict[str, Row] = {}
    for row in study.rows:
        rows.setdefault(study.baseline_key(row), row)
    return list(rows.values())


def _classes(baseline: Mapping[str, Any]) -> int | None:
    """Of isofire's own models; a user's network does not tell."""
    model = baseline.get("model")
    classes = model.get("num_classes") if isinstance(model, Mapping) else None
    return classes if isinstance(classes, int) and classes > 1 else None
