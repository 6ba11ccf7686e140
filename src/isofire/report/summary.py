"""The answer of a sweep: which setting keeps accuracy and firing, the best per bits, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isofire.report.entries import Entry, bits_order, bits_text
from isofire.report.numbers import percent, points, significant, times
from isofire.report.reference import DRIFT


@dataclass(frozen=True)
class Best:
    """The best setting of one baseline, target and number of bits."""

    baseline: str
    target: str
    bits: str
    entry: Entry
    of: int


def best_per_bits(entries: Sequence[Entry]) -> list[Best]:
    """For each baseline, target and number of bits the setting that `rank` puts first."""
    groups: dict[tuple[str, str, tuple[float, str]], list[Entry]] = {}
    for entry in entries:
        if not entry.is_control:
            key = (str(entry.label("baseline")), str(entry.label("target")), bits_order(entry.label("bits")))
            groups.setdefault(key, []).append(entry)
    order = {(str(entry.label("baseline"))): i for i, entry in reversed(list(enumerate(entries)))}
    return [
        Best(key[0], key[1], bits_text(found[0].label("bits")), min(found, key=rank), len(found))
        for key, found in sorted(
            groups.items(), key=lambda item: (order[item[0][0]], _TARGETS.get(item[0][1], 9), item[0][1:])
        )
    ]


def rank(entry: Entry) -> tuple[bool, float, float]:
    """Settings that keep accuracy first, by drift; the others by the accuracy that they lose."""
    lost = not entry.keeps_accuracy
    return lost, entry.drop if lost else entry.mean(DRIFT), entry.mean(DRIFT)


def pareto_front(entries: Sequence[Entry]) -> list[Entry]:
    """Settings of which no other has both more accuracy and less drift, from the least drift on; controls aside."""
    front: list[Entry] = []
    for entry in sorted(
        (entry for entry in entries if not entry.is_control), key=lambda e: (e.mean(DRIFT), -e.mean("accuracy"))
    ):
        if not front or entry.mean("accuracy") > front[-1].mean("accuracy"):
            front.append(entry)
    return front


def default_entry(entries: Sequence[Entry]) -> Entry | None:
    """What the page shows in detail before a reader chooses: the best of the fewest bits that keeps accuracy."""
    best = [item.entry for item in best_per_bits(entries)]
    if not best:
        return entries[0] if entries else None
    return min(best, key=lambda e: (not e.keeps_accuracy, e.keeps_firing is False, bits_order(e.label("bits"))))


def verdict(entries: Sequence[Entry]) -> list[str]:
    """How many settings keep what, then a sentence a target: the fewest bits that keep both, or what comes closest."""
    settings = [entry for entry in entries if not entry.is_control]
    if not settings:
        return ["No quantized setting has finished yet."]
    exact = [entry for entry in settings if entry.keeps_accuracy]
    total = f"{len(settings)} setting{'s' if len(settings) > 1 else ''}"
    if all(entry.keeps_firing is None for entry in settings):
        return [
            f"{len(exact) or 'None'} of {total} {_keep(exact)} accuracy.",
            "This sweep has no control and no noise floor, so drift has no reference; tables rank by drift alone.",
        ]
    both = [entry for entry in exact if entry.keeps_firing]
    more = len(exact) - len(both)
    lead = f"{len(both) or 'None'} of {total} {_keep(both)} accuracy and firing"
    lead += f", {more} {'keeps' if more == 1 else 'keep'} accuracy alone." if more else "."
    several = len({entry.label("baseline") for entry in settings}) > 1
    targets = sorted({str(entry.label("target")) for entry in settings}, key=lambda name: _TARGETS.get(name, 9))
    return [lead, *(_of_target(name, [e for e in settings if e.label("target") == name], several) for name in targets)]


def _keep(found: Sequence[Entry]) -> str:
    return "keep" if len(found) > 1 else "keeps"


def _of_target(target: str, settings: Sequence[Entry], several: bool) -> str:
    """Such as "Weights, fewest bits that keep both: lsq 4 bit, learned range, qat; accuracy ...".

    `several` baselines are named.
    """
    name = {"both": "Weights with membranes", "membrane": "Membranes"}.get(target, target.capitalize())
    both = [entry for entry in settings if entry.kept == "both"]
    exact = [entry for entry in settings if entry.keeps_accuracy]
    if both:
        found = min(both, key=lambda e: (bits_order(e.label("bits")), e.mean(DRIFT)))
        return f"{name}, fewest bits that keep both: {told(found, several)}."
    if exact:
        found = min(exact, key=lambda e: (e.multiple is None, e.multiple or 0.0))
        return f"{name}, closest of those that keep accuracy: {told(found, several)}."
    return f"{name}, none keeps accuracy, least lost by: {told(min(settings, key=lambda e: e.drop), several)}."


def told(entry: Entry, several: bool) -> str:
    """A setting with its main numbers, for a sentence; one of `several` baselines is named."""
    span = None if entry.label("range") == "learned" else entry.label("range")
    of = f"of {entry.label('baseline')}" if several else None
    parts = [f"{entry.label('method')} {bits_text(entry.label('bits'))} bit", span, entry.label("placement")]
    parts += [entry.label("options"), entry.label("mode"), of]
    drift = f"EMD {significant(entry.mean(DRIFT))}"
    if entry.multiple is not None:
        drift += f" ({times(entry.multiple)} the {entry.reference}'s)"
    accuracy = f"accuracy {percent(entry.mean('accuracy'))} % ({points(-entry.drop)} points)"
    return f"{', '.join(str(part) for part in parts if part is not None)}; {accuracy}, {drift}"


def explained(entries: Sequence[Entry]) -> list[str]:
    """What "firing is kept" means for these settings; the first sentence follows those words."""
    kinds = {reference.kind for entry in entries for reference in entry.references if reference is not None}
    if not kinds:
        return [
            " is not known: no finished cell is a control and no noise floor was measured, so drift has no reference."
        ]
    name = (
        f"the {kinds.copy().pop()}'s" if len(kinds) == 1 else "its reference's, the larger of noise floor and control"
    )
    return [f" if the drift is at most {name}.", *(text for kind, text in _KINDS.items() if kind in kinds)]


_KINDS = {
    "control": (
        "Control: the cell of the same mode, baseline and seed that quantizes nothing (batch norm re-estimated for "
        "ptq, training continued for qat)."
    ),
    "image floor": "Image floor: how far the baseline is from itself on other images, as many.",
    "seed floor": "Seed floor: how far baselines of different seeds are apart.",
    "noise floor": "Noise floor: the column emd_floor of the results.",
}
_TARGETS = {"weights": 0, "membrane": 1, "both": 2}
