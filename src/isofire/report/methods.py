"""The paragraph of a paper that says how the numbers were made, from what was run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isofire.firing.evidence.noise_floor import DRAWS
from isofire.firing.evidence.outcome import FLOOR_IMAGES
from isofire.firing.evidence.summary import RESAMPLES
from isofire.report.entries import Entry, Row
from isofire.report.latex import escaped
from isofire.report.numbers import percent, span, whole
from isofire.report.palette import bits_order, bits_text
from isofire.report.scope import listed, scope
from isofire.report.study import Study
from isofire.report.summary import drift_name, points_text

BIBLIOGRAPHY = r"""@inproceedings{smith2026quantization,
  title  = {Quantization of Spiking Neural Networks Beyond Accuracy},
  author = {Smith, E. G. and Whitehill, J. and Ganji, F.},
  year   = {2026},
  note   = {arXiv:2604.14487}
}
@software{isofire,
  title   = {isofire: quantize spiking neural networks, and keep their firing},
  author  = {{The isofire maintainers}},
  version = {VERSION},
  year    = {2026}
}
@inproceedings{horowitz2014computing,
  title     = {Computing's Energy Problem (and What We Can Do About It)},
  author    = {Horowitz, M.},
  booktitle = {IEEE International Solid-State Circuits Conference (ISSCC), Digest of Technical Papers},
  year      = {2014}
}"""
_CITED = re.compile(r"\[\[(\w+)\]\]")


def methods(study: Study) -> str:
    r"""A paragraph of LaTeX, a sentence a line, with \cite of what `BIBLIOGRAPHY` has; empty without a row."""
    if not study.rows:
        return ""
    said = [*_networks(study), *_quantizers(study), *scope(study), *_calibration(study), *_drift(study), *_rule(study)]
    return "\n".join(_CITED.sub(r"~\\cite{\1}", escaped(sentence)) for sentence in said)


def _networks(study: Study) -> Iterator[str]:
    """Each baseline: what it is, how large, how accurate."""
    for name in study.baselines:
        rows = [row for row in study.rows if row["baseline"] == name]
        counts = study.view.baseline_counts(str(rows[0]["cell"]))
        scores = sorted({float(row["accuracy_fp"]) for row in rows})
        accuracy = f"{percent(scores[0])} %" if len(scores) == 1 else f"{percent(scores[0])} to {percent(scores[-1])} %"
        layers = len(counts.layers)
        yield (
            f"The full-precision network {rows[0].get('model')} has {counts.n_neurons():,} spiking neurons in {layers} "
            f"layer{'s' if layers > 1 else ''}, runs for {rows[0]['T']} time steps, and is right on {accuracy} of "
            f"{span(whole, (int(row['n_images']) for row in rows))} test images of {rows[0].get('data')}."
        )


def _quantizers(study: Study) -> Iterator[str]:
    """What was quantized and how, by isofire of which version."""
    about = study.environment
    machine = ", ".join(str(about[key]) for key in ("gpu", "device") if about.get(key))
    yield (
        f"It was quantized and compared by isofire {about.get('isofire')}[[isofire]] (torch {about.get('torch')}"
        f"{f', {machine}' if machine else ''}):".replace(
            "It was", "They were" if len(study.baselines) > 1 else "It was"
        )
        + f" {'; '.join(_settings(study.entries))}."
    )


def _settings(entries: Sequence[Entry]) -> Iterator[str]:
    """Such as "weights by uniform (2, 4 and 8 bits; range mse, ptq)"."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        if not entry.is_control:
            keys = ("target", "method", "range", "granularity", "placement", "options", "mode")
            groups.setdefault(tuple(entry.label(key) for key in keys), []).append(entry)
    for (target, method, bounds, per, placement, options, mode), found in groups.items():
        bits = sorted(
            {bits_text(e.label("bits")): e.label("bits") for e in found}.items(), key=lambda i: bits_order(i[1])
        )
        what = {"both": "weights and membranes", "membrane": "membranes"}.get(str(target), str(target))
        parts = [None if bounds is None else f"range {bounds}", None if per is None else f"per {per}", placement,
                 options, {"ptq": "after training", "qat": "with training"}.get(str(mode), mode)]  # fmt: skip
        more = ", ".join(str(part).replace(" | ", " and ") for part in parts if part is not None)
        ending = "bit" if [text for text, _ in bits] == ["1"] else "bits"
        by = str(method).replace(" | ", " and ")
        yield f"{what} by {by} ({listed(text for text, _ in bits)} {ending}; {more})"


def _calibration(study: Study) -> Iterator[str]:
    """On how many images, and what happened to batch norm."""
    quantized = [row for row in study.rows if study.spec(row)]
    images = {int(row["calibration_images"]) for row in quantized if row.get("calibration_images")}
    seeds = listed(study.seeds)
    drawn = f"anew by each of the seeds {seeds}" if len(study.seeds) > 1 else f"by seed {seeds}"
    if images:
        yield f"Quantizers were calibrated on {span(whole, images)} training images, drawn {drawn}."
    policies = {_policy(study.spec(row) or {}) for row in quantized if row.get("mode") == "ptq"}
    if policies == {"never"}:
        yield "Batch-norm statistics were left as they were."
    elif policies:
        where = "" if policies == {"always"} else " where weights were quantized"
        yield f"Statistics of batch norm, where the network has any, were measured anew on these images{where}."
    epochs = {int(row["epochs"]) for row in study.rows if row.get("mode") == "qat" and row.get("epochs")}
    if epochs:
        yield (
            f"With training means {span(whole, epochs)} epochs with quantizers in place, from the full-precision "
            "network."
        )


def _policy(spec: Mapping[str, Any]) -> str:
    policy = str(spec.get("reestimate_bn"))
    return policy if policy != "weights" or spec.get("weights") else "never"


def _drift(study: Study) -> Iterator[str]:
    rows, entries = study.rows, study.entries
    blocks = {int((study.view.baseline_counts(str(row["cell"])).images_per_block > 0).sum()) for row in _first(rows)}
    yield (
        "Drift is the earth mover's distance (EMD) of the neurons' firing rates before and after"
        f"[[smith2026quantization]], {drift_name(entries)}; its 95 % intervals are of {span(whole, blocks)} "
        f"blocks of test images (jackknife, and bootstrap of {RESAMPLES} draws), those of accuracy of the images lost "
        "and won (mid-P)."
    )
    seeds = {entry.n for entry in entries if entry.n > 1}
    if seeds:
        yield (
            f"A setting is the mean of {span(whole, seeds)} seeds; its interval adds the variance between seeds, "
            "pooled over the settings of a baseline, to that of images."
        )
    kinds = {reference.kind for entry in entries for reference in entry.references if reference is not None}
    images = span(whole, (int(row["n_images"]) for row in rows))
    texts = {
        "image floor": "the drift of the full-precision network from itself between two sets of "
        f"{FLOOR_IMAGES:,} images, drawn by blocks with replacement from the {images} test images ({DRAWS} draws)",
        "control": "the drift of a control that went through the same steps without quantization",
        "seed floor": "the drift between full-precision networks of other seeds",
    }
    floors = [text for kind, text in texts.items() if kind in kinds]
    if floors:
        most = "the larger of " if len(floors) > 1 else ""
        yield f"Its noise floor is {most}{' and '.join(floors)}."


def _rule(study: Study) -> Iterator[str]:
    margins = study.entries[0].margins
    yield (
        "A setting keeps accuracy if the whole interval of the accuracy lost is at most "
        f"{points_text(margins.accuracy)}, and firing if that of drift over floor is at most "
        f"{margins.firing:g}; it fails where none of it is, and is undecided otherwise."
    )
    if any(row.get("energy_uj") is not None for row in study.rows):
        yield (
            "Energy is an estimate from counted operations and memory accesses with published constants of a 45 nm "
            "process[[horowitz2014computing]], not a measurement."
        )


def _first(rows: Sequence[Row]) -> list[Row]:
    """A row of each baseline."""
    return list({row["baseline"]: row for row in reversed(rows)}.values())
