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
    """One to three sentences: how many settings keep both, the fewest bits that do, and what holds them back else."""
    settings = [entry for entry in entries if not entry.is_control]
    if not settings:
        return ["No quantized setting has finished yet."]
    exact = [entry for entry in settings if entry.keeps_accuracy]
    both = [entry for entry in exact if entry.keeps_firing]
    total = f"{len(settings)} setting{'s' if len(settings) > 1 else ''}"
    if all(entry.keeps_firing is None for entry in settings):
        return [
            f"Of {total}, {_count(len(exact), 'keeps', 'keep')} accuracy within one standard error of the baseline.",
            "This sweep has no control, so there is no reference for drift; the table ranks by drift alone.",
        ]
    said = [
        f"Of {total}, {_count(len(exact), 'keeps', 'keep')} accuracy (within one standard error of the baseline); of "
        f"these {_count(len(both), 'keeps', 'keep')} firing too (drift no larger than that of the control, which "
        "quantizes nothing)."
    ]
    if both:
        found = min(both, key=lambda e: (bits_order(e.label("bits")), e.mean(DRIFT)))
        said.append(f"Fewest bits that keep both: {told(found)}.")
    elif exact:
        found = min(exact, key=lambda e: (e.multiple is None, e.multiple or 0.0))
        said.append(f"Closest among those that keep accuracy: {told(found)}.")
    else:
        said.append(f"The least accuracy is lost by {told(min(settings, key=lambda e: e.drop))}.")
    return said


def told(entry: Entry) -> str:
    """A setting with its main numbers, for a sentence."""
    kind = f"{entry.label('target')} {entry.label('method')} at {bits_text(entry.label('bits'))} bit"
    span = f", range {entry.label('range')}" if entry.label("range") else ""
    place = f", {entry.label('placement')}" if entry.label("placement") else ""
    of = f" of {entry.label('baseline')}" if entry.label("baseline") else ""
    drift = f"EMD {significant(entry.mean(DRIFT))}"
    if entry.multiple is not None:
        drift += f", {times(entry.multiple)} the control's"
    accuracy = f"accuracy {percent(entry.mean('accuracy'))} % ({points(-entry.drop)} points)"
    return f"{kind}{span}{place} ({entry.label('mode')}){of}: {accuracy}, {drift}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number or 'none'} {one if number <= 1 else many}"


_TARGETS = {"weights": 0, "membrane": 1, "both": 2}
