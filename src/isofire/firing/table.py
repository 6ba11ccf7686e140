"""Layer drift as plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from isofire.firing.cost.bound import SynOpsDrifts
from isofire.firing.drift import LayerDrift
from isofire.firing.evidence.decisions import Decisions
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.summary import DriftVsFloor, Evidence
from isofire.firing.measures import FP, RATE_UNIT, Measure, shown_in
from isofire.firing.rates import PAPER_CUT

_NAME_WIDTH = 20


def layer_table(
    layers: Sequence[LayerDrift], overall: Mapping[str, float | int], decisions: Decisions | None = None
) -> str:
    """At most 100 columns: a heading, one line per layer, one for all neurons, and the other overall distances."""
    columns = _columns()
    widths = [max(len(title), measure.digits + 2) for title, _, measure in columns]
    titles = [title.rjust(width) for (title, _, _), width in zip(columns, widths, strict=True)]
    neurons = sum(layer.neurons for layer in layers)
    head = " ".join(["layer".ljust(_NAME_WIDTH), "neurons".rjust(9), *titles])
    everywhere = {
        measure.name + end: overall[_by_neurons(measure) + end] for _, _, measure in columns for end in measure.endings
    }
    return "\n".join(
        [
            f"accuracy {overall['accuracy']:.4f} (fp {overall['accuracy_fp']:.4f}), "
            f"agreement {overall['agreement']:.4f}, n = {overall['n_images']:,} images, T = {overall['T']}",
            *_intervals_of(decisions),
            f"rates and distances in {RATE_UNIT}; dead: share of neurons with rate < {PAPER_CUT:g}",
            "",
            head,
            "-" * len(head),
            *(_line(layer.layer, layer.neurons, layer.values, columns, widths) for layer in layers),
            "-" * len(head),
            _line("all neurons", neurons, everywhere, columns, widths),
            f"EMD: layer mean {overall['emd_layer_mean']:.5f}, neuron-weighted {overall['emd_weighted']:.5f}, "
            f"pooled {overall['emd_pooled']:.5f}, max {overall['emd_max']:.5f}",
        ]
    )


def _intervals_of(decisions: Decisions | None) -> list[str]:
    if decisions is None:
        return []
    drop, agreement = decisions.accuracy_drop(), decisions.agreement()
    return [
        f"95 % intervals: change of accuracy {-drop.high:+.4f} .. {-drop.low:+.4f}, "
        f"agreement {agreement.low:.4f} .. {agreement.high:.4f}"
    ]


def evidence_table(found: Evidence, layers: Sequence[LayerDrift]) -> str:
    """At most 100 columns: EMD of each layer and over all with its interval, its noise floor and EMD ÷ floor.

    All of them are of EMD as so many images show it.
    """
    head = f"{'EMD and its noise'.ljust(_NAME_WIDTH)} {'EMD':>9} {'95 % interval':>19} {'floor':>9} {'EMD/floor':>10}"
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
            head,
            "-" * len(head),
            *(_noise_line(layer.layer, found.against("emd", layer.layer)) for layer in layers),
            "-" * len(head),
            _noise_line("mean over layers", found.against("emd_layer_mean")),
            *textwrap.wrap(f"floor: {found.floor.about}", 100),
            *_noise_and_truth(found.against().interval, n),
            images,
        ]
    )


def _noise_and_truth(interval: Interval, n: int) -> list[str]:
    unchanged = f"with unchanged rates the mean EMD of {n:,} images would be {interval.noise:.5f}"
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
    lines = [
        f"SynOps an inference: {total.quantized:,.0f} (fp {total.baseline:,.0f}), change {total.change:+,.0f}{share}",
        f"with these EMDs it could have been at most +-{total.bound:,.0f}",
    ]
    for item in (*found.left_out, *found.by_input):
        lines += textwrap.wrap(f"NOT IN THESE SynOps: {item}", 100, subsequent_indent="    ")
    return "\n".join(lines)


def _noise_line(name: str, against: DriftVsFloor) -> str:
    interval, floor = against.interval, against.floor
    ends = f"{interval.low:.5f} .. {interval.high:.5f}"
    cells = f"{'-':>9} {'-':>10}" if floor is None else f"{floor.value:9.5f} {against.ratio:10.1f}"
    if floor is not None and math.isnan(against.ratio):
        # silent in both networks, or a network beside itself
        cells = f"{floor.value:9.5f} {'-':>10}"
    unknown = "" if floor is None else "  noise unknown"
    note = unknown if against.within_noise is None else "  within noise" if against.within_noise else ""
    return f"{shortened(name, _NAME_WIDTH).ljust(_NAME_WIDTH)} {interval.estimate:9.5f} {ends:>19} {cells}{note}"


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


def _line(name: str, neurons: int, values: Mapping[str, Any], columns: Sequence[_Column], widths: Sequence[int]) -> str:
    cells = [measure.text(values[key]).rjust(width) for (_, key, measure), width in zip(columns, widths, strict=True)]
    return " ".join([shortened(name, _NAME_WIDTH).ljust(_NAME_WIDTH), f"{neurons:,}".rjust(9), *cells])


def shortened(name: str, width: int) -> str:
    """A name of at most `width` characters; a longer one loses its middle, since layers differ at both ends."""
    if len(name) <= width:
        return name
    front = (width - 1) // 2
    return f"{name[:front]}…{name[len(name) - (width - 1 - front) :]}"
