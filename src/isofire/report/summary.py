"""The answer of a sweep: which setting keeps accuracy and firing, the best per bits, the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from isofire.firing.evidence.kept import LAYER_MEAN
from isofire.firing.evidence.outcome import FLOOR_IMAGES, Margins
from isofire.quantizers.setting import IMPLIED_RANGES
from isofire.report.entries import ORDER, Entry
from isofire.report.numbers import multiple_text, percent, points, significant
from isofire.report.palette import bits_order, bits_text


@dataclass(frozen=True)
class Best:
    """The best setting of one baseline, target and number of bits, of so many; `tied` of them drift no differently."""

    baseline: str
    target: str
    bits: str
    entry: Entry
    of: int
    tied: int


def best_per_bits(entries: Sequence[Entry]) -> list[Best]:
    """For each baseline, target and number of bits the setting that `rank` puts first."""
    groups: dict[tuple[str, str, tuple[float, str]], list[Entry]] = {}
    for entry in entries:
        if not entry.is_control:
            key = (str(entry.label("baseline")), str(entry.label("target")), bits_order(entry.label("bits")))
            groups.setdefault(key, []).append(entry)
    order = {(str(entry.label("baseline"))): i for i, entry in reversed(list(enumerate(entries)))}
    return [
        _best_of(key[0], key[1], found)
        for key, found in sorted(
            groups.items(), key=lambda item: (order[item[0][0]], _TARGETS.get(item[0][1], 9), item[0][1:])
        )
    ]


def _best_of(baseline: str, target: str, found: Sequence[Entry]) -> Best:
    entry = min(found, key=rank)
    tied = sum(other is not entry and other.outcome == entry.outcome and other.overlaps(entry) for other in found)
    return Best(baseline, target, bits_text(found[0].label("bits")), entry, len(found), tied)


def rank(entry: Entry) -> tuple[int, bool, float, float]:
    """By outcome; among equals those that do not fail accuracy first, by drift, the others by the accuracy lost."""
    lost = entry.kept.accuracy == "fails"
    return ORDER[entry.outcome], lost, entry.drop if lost else entry.drift, entry.drift


def pareto_front(entries: Sequence[Entry]) -> list[Entry]:
    """Settings of which no other has both more accuracy and less drift, from the least drift on; controls aside."""
    front: list[Entry] = []
    for entry in sorted(
        (entry for entry in entries if not entry.is_control), key=lambda e: (e.drift, -e.mean("accuracy"))
    ):
        if not front or entry.mean("accuracy") > front[-1].mean("accuracy"):
            front.append(entry)
    return front


def default_entry(entries: Sequence[Entry]) -> Entry | None:
    """What the page shows in detail before a reader chooses: the best of the fewest bits, by outcome."""
    best = [item.entry for item in best_per_bits(entries)]
    if not best:
        return entries[0] if entries else None
    return min(best, key=lambda e: (ORDER[e.outcome], e.kept.accuracy == "fails", bits_order(e.label("bits"))))


def verdict(entries: Sequence[Entry]) -> list[str]:
    """How many settings keep what, then a sentence a target: the fewest bits that keep both, or what comes closest."""
    settings = [entry for entry in entries if not entry.is_control]
    if not settings:
        return ["No quantized setting has finished yet."]
    total = f"{len(settings)} setting{'s' if len(settings) > 1 else ''}"
    if all(entry.kept.firing is None for entry in settings):
        exact = [entry for entry in settings if entry.kept.accuracy == "keeps"]
        return [
            f"{len(exact) or 'None'} of {total} {_verb('keep', len(exact))} accuracy.",
            "This sweep has no control and no noise floor, so drift has no reference; tables rank by drift alone.",
        ]
    count = {name: sum(entry.outcome == name for entry in settings) for name in ORDER}
    lead = f"{count['keeps'] or 'None'} of {total} {_verb('keep', count['keeps'])} accuracy and firing, "
    lead += f"{count['fails'] or 'none'} {_verb('fail', count['fails'])}, "
    lead += (
        f"{count['undecided'] or 'none'} {'is' if count['undecided'] == 1 else 'are'} undecided{_wanting(settings)}."
    )
    controls = len(entries) - len(settings)
    if controls:
        lead += " The control is not counted." if controls == 1 else " Controls are not counted."
    several = len({entry.label("baseline") for entry in settings}) > 1
    targets = sorted({str(entry.label("target")) for entry in settings}, key=lambda name: _TARGETS.get(name, 9))
    return [lead, *(_of_target(name, [e for e in settings if e.label("target") == name], several) for name in targets)]


def _wanting(settings: Sequence[Entry]) -> str:
    """What would decide those that are undecided, such as " (2 for want of images, 1 for want of seeds)"."""
    count = Counter(entry.kept.open_by for entry in settings)
    parts = [f"{count[name]} for want of {what}" for name, what in _WANTED.items() if count[name]]
    return f" ({', '.join(parts)})" if parts else ""


def _verb(word: str, count: int) -> str:
    return word if count > 1 else f"{word}s"


def _of_target(target: str, settings: Sequence[Entry], several: bool) -> str:
    """Such as "Weights, fewest bits that keep both: lsq 4 bit, learned range, qat; accuracy ...".

    `several` baselines are named.
    """
    name = {"both": "Weights with membranes", "membrane": "Membranes"}.get(target, target.capitalize())
    if both := [entry for entry in settings if entry.outcome == "keeps"]:
        found = min(both, key=lambda e: (bits_order(e.label("bits")), e.drift))
        return f"{name}, fewest bits that keep both: {told(found, several)}."
    if open_ := [entry for entry in settings if entry.outcome == "undecided"]:
        found = min(open_, key=lambda e: (bits_order(e.label("bits")), e.drift))
        return f"{name}, fewest bits that do not fail: {told(found, several)}."
    if exact := [entry for entry in settings if entry.kept.accuracy != "fails"]:
        found = min(exact, key=lambda e: (e.multiple is None, e.multiple or 0.0))
        return f"{name}, closest of those that do not fail accuracy: {told(found, several)}."
    return f"{name}, all fail accuracy, least lost by: {told(min(settings, key=lambda e: e.drop), several)}."


def told(entry: Entry, several: bool) -> str:
    """A setting with its main numbers, for a sentence; one of `several` baselines is named."""
    span = None if entry.label("range") in IMPLIED_RANGES else entry.label("range")
    of = f"of {entry.label('baseline')}" if several else None
    parts = [f"{entry.label('method')} {bits_text(entry.label('bits'))} bit", span, entry.label("placement")]
    parts += [entry.label("options"), entry.label("mode"), of]
    drift = f"EMD {significant(entry.drift)}"
    if entry.kept.multiple is not None:
        drift += f" ({multiple_text(entry.kept.multiple)} the {entry.reference})"
    accuracy = f"accuracy {percent(entry.mean('accuracy'))} % ({points(-entry.drop)} points)"
    return f"{', '.join(str(part) for part in parts if part is not None)}; {accuracy}, {drift}"


def explained(entries: Sequence[Entry]) -> list[str]:
    """The rule in sentences: what the outcomes mean for these settings, and what drift is held against."""
    margins = entries[0].margins if entries else Margins()
    said = [
        f"Keeps: the whole 95 % interval of the accuracy lost is at most {points_text(margins.accuracy)}, and that of "
        f"drift ÷ noise floor at most {margins.firing:g}. Fails: one of them lies beyond. Undecided: more images "
        "or seeds would tell."
    ]
    if any(entry.n > 1 for entry in entries):
        said.append("Several seeds are judged by their mean, with what other images and other seeds would change.")
    kinds = {reference.kind for entry in entries for reference in entry.references if reference is not None}
    if not kinds:
        return [*said, "No finished cell is a control and no noise floor was measured, so drift has no reference."]
    if len(kinds) > 1:
        said.append("The noise floor of a cell is the larger of its own and the drift of its control.")
    return [*said, *(text for kind, text in _KINDS.items() if kind in kinds)]


def drift_name(entries: Sequence[Entry]) -> str:
    """How layers are combined in the drift of these settings."""
    return "mean over layers" if entries and entries[0].measure == LAYER_MEAN else "weighted by neurons"


def of_text(item: Best) -> str:
    """How many settings it was chosen from, and how many of them are tied with it."""
    return f"{item.of}, {item.tied} tied" if item.tied else str(item.of)


def points_text(share: float) -> str:
    """A share of images as points."""
    number = f"{100 * share:g}"
    return f"{number} point" if number == "1" else f"{number} points"


_KINDS = {
    "control": (
        "Control: the cell of the same mode, baseline and seed that quantizes nothing (batch norm re-estimated for "
        "ptq, training continued for qat)."
    ),
    "image floor": f"Image floor: how far the baseline is from itself on {FLOOR_IMAGES:,} other images.",
    "seed floor": "Seed floor: how far baselines of different seeds are apart.",
    "noise floor": "Noise floor: the column of the results that ends in _floor.",
}
_WANTED = {"images": "images", "seeds": "seeds", "floor": "a noise floor", "baseline": "a baseline",
           "neurons": "rates of unknown neurons"}  # fmt: skip
_TARGETS = {"weights": 0, "membrane": 1, "both": 2}
