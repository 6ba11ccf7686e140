"""Layer drift as plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from isofire.firing.cost.bound import SynOpsDrifts
from isofire.firing.cost.left_out import LeftOut
from isofire.firing.drift import LayerDrift
from isofire.firing.evidence.decisions import Decisions
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.kept import Kept
from isofire.firing.evidence.outcome import HEADLINE, MARKS, Margins
from isofire.firing.evidence.summary import DriftVsFloor, Evidence
from isofire.firing.measures import FP, RATE_UNIT, Measure, shown_in
from isofire.firing.rates import PAPER_CUT
from isofire.text_table import TextTable


def layer_table(
    layers: Sequence[LayerDrift],
    overall: Mapping[str, float | int],
    decisions: Decisions | None = None,
    width: int | None = None,
) -> str:
    """A heading, one line per layer, one for all neurons, and the other overall distances."""
    return "\n".join(
        [
            f"accuracy {overall['accuracy']:.4f} (fp {overall['accuracy_fp']:.4f}), "
            f"agreement {overall['agreement']:.4f}, n = {overall['n_images']:,} images, T = {overall['T']}",
            *_intervals_of(decisions),
            f"rates and distances in {RATE_UNIT}; dead: share of neurons with rate < {PAPER_CUT:g}",
            "",
            drift_table(layers, overall).text(width),
            f"EMD: neuron-weighted {overall['emd_weighted']:.5f}, layer mean {overall['emd_layer_mean']:.5f}, "
            f"pooled {overall['emd_pooled']:.5f}, max {overall['emd_max']:.5f}",
        ]
    )


def drift_table(layers: Sequence[LayerDrift], overall: Mapping[str, float | int]) -> TextTable:
    """A line per layer, and one for all neurons."""
    columns = _columns()
    everywhere = {
        measure.name + end: overall[_by_neurons(measure) + end] for _, _, measure in columns for end in measure.endings
    }
    lines = [(layer.layer, layer.neurons, layer.values) for layer in layers]
    lines.append(("all neurons", sum(layer.neurons for layer in layers), everywhere))
    return TextTable(
        ["layer", "neurons", *(title for title, _, _ in columns)],
        [[name, f"{n:,}", *(measure.text(values[key]) for _, key, measure in columns)] for name, n, values in lines],
        rules=frozenset({len(layers)}),
    )


def _intervals_of(decisions: Decisions | None) -> list[str]:
    if decisions is None:
        return []
    drop, agreement = decisions.accuracy_drop(), decisions.agreement()
    return [
        f"95 % intervals: change of accuracy {-drop.high:+.4f} .. {-drop.low:+.4f}, "
        f"agreement {agreement.low:.4f} .. {agreement.high:.4f}"
    ]


def evidence_table(found: Evidence, layers: Sequence[LayerDrift], width: int | None = None) -> str:
    """EMD of each layer and over all with its interval, its noise floor and EMD ÷ floor.

    All of them are of EMD as so many images show it.
    """
    enough = found.images_enough()
    n = found.intervals.n_images
    if enough is None:
        images = "unchanged rates are not ruled out, so it cannot be said how many images would be enough"
    elif enough <= n:
        images = f"{n:,} images are enough for an interval of +-10 %"
    else:
        images = f"about {_rounded_up(enough):,} images would be enough for an interval of +-10 %"
    return "\n".join(
        [
            noise_table(found, layers).text(width),
            *textwrap.wrap(_floor_told(found), 100),
            *_noise_and_truth(found.against().interval, n),
            images,
        ]
    )


def _floor_told(found: Evidence) -> str:
    """Which floor, and how well it is known."""
    floor = found.against().floor
    if floor is None or math.isnan(floor.unit.low):
        return f"floor: {found.floor.about}; its interval is not known"
    ends = f"{floor.unit.low:.5f} .. {floor.unit.high:.5f}"
    return f"floor: {found.floor.about}; of all neurons {floor.value:.5f}, 95 % {ends}"


def _noise_and_truth(interval: Interval, n: int) -> list[str]:
    unchanged = f"with unchanged rates the EMD of {n:,} images would be {interval.noise:.5f}"
    return [
        unchanged + ("" if interval.resolved else ", so all of it may be noise"),
        f"with unlimited images it would be between {interval.true_low:.5f} and {interval.true_high:.5f}",
    ]


def synops_lines(found: SynOpsDrifts) -> str:
    """The change in synaptic operations beside the most that the EMDs allow."""
    total = found.overall
    share = f" ({total.change / total.baseline:+.1%})" if total.baseline else ""
    if total.baseline and found.ratio is not None:
        low, high = found.ratio.low - 1, found.ratio.high - 1
        share = f" ({total.change / total.baseline:+.1%}, 95 % {low:+.1%} .. {high:+.1%})"
    part = ", of a part of the network (isofire cost counts all)" if found.left_out else ""
    lines = [
        f"SynOps an inference{part}: {total.quantized:,.0f} (fp {total.baseline:,.0f}), "
        f"change {total.change:+,.0f}{share}",
    ]
    if others := [name for name, layer in found.layers.items() if layer.structure]:
        told = f"of it {total.structure:+,.0f} by structure: spikes of {', '.join(others)} come to other synapses"
        lines += textwrap.wrap(told, 100, subsequent_indent="    ")
    with_it = " and this structure" if others else ""
    lines.append(f"with these EMDs{with_it} it could have been at most +-{total.bound:,.0f}")
    for item in (*found.left_out, *found.by_input):
        lines += textwrap.wrap(f"NOT IN THESE SynOps: {item}", 100, subsequent_indent="    ")
    return "\n".join(lines)


def noise_table(found: Evidence, layers: Sequence[LayerDrift]) -> TextTable:
    """EMD of each layer and their mean, with its interval, its floor, EMD ÷ noise floor and what that says."""
    lines = [_noise_line(layer.layer, found.against("emd", layer.layer)) for layer in layers]
    lines.append(_noise_line("all neurons", found.against(HEADLINE)))
    lines.append(_noise_line("mean over layers", found.against("emd_layer_mean")))
    titles = ["EMD and its noise", "EMD", "95 % interval", "floor", "EMD/floor", "95 % interval"]
    return TextTable(titles, lines, texts=frozenset({0}), rules=frozenset({len(layers)}))


def _noise_line(name: str, against: DriftVsFloor) -> list[str]:
    interval, floor = against.interval, against.floor
    # silent in both networks, or a network beside itself, has no ratio
    multiple = against.multiple
    ratio = "-" if math.isnan(multiple.estimate) else f"{multiple.estimate:.1f}"
    ends = "-" if math.isnan(multiple.low) else f"{multiple.low:.1f} .. {multiple.high:.1f}"
    value = "-" if floor is None else f"{floor.value:.5f}"
    return [name, f"{interval.estimate:.5f}", f"{interval.low:.5f} .. {interval.high:.5f}", value, ratio, ends]


def kept_lines(found: Kept, margins: Margins, doubt: str | None = None, unknown: Sequence[LeftOut] = ()) -> list[str]:
    """The verdict in words, with what it was taken from, below why the baseline is no reference, if it is none, and
    above what is in no rate."""
    accuracy, firing = found.told
    doubts = [] if doubt is None else textwrap.wrap(f"! baseline {doubt}", 100, subsequent_indent="    ")
    lines = [*doubts, f"{MARKS[found.accuracy]} {accuracy}, {found.allowed(margins)}"]
    allowed = "" if found.firing is None else f", allowed {margins.firing:g}"
    return [*lines, f"{MARKS[found.firing or 'undecided']} {firing}{allowed}", *left_out_lines(unknown)]


def left_out_lines(unknown: Iterable[LeftOut]) -> list[str]:
    """What gives spikes that are in no rate."""
    return [textwrap.fill(f"NOT IN THE RATES: {item}", 100, subsequent_indent="    ") for item in unknown]


def _rounded_up(number: int) -> int:
    """Two significant digits, since a forecast is no better."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


_Column = tuple[str, str, Measure]
"""Heading, name of the value, and what it is a value of."""


def _columns() -> list[_Column]:
    found: list[_Column] = []
    for measure in shown_in("layers"):
        if measure.networks == 1:
            found.append((f"{measure.heading.removesuffix(' %')} fp", measure.name + FP, measure))
        found.append((measure.heading, measure.name, measure))
    return found


def _by_neurons(measure: Measure) -> str:
    """The column in which all neurons weigh alike, else the first."""
    return next((name for name, how in measure.overall.items() if how == "neurons"), measure.headline)
