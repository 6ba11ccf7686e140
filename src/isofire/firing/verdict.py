"""Does a quantized network keep to its limits: it keeps, it fails, or these images cannot tell.

A measure is compared with its limit by its 95 % interval and the rule of `isofire.firing.evidence.outcome`. So a
network does not pass because too few images were looked at. Nor does its accuracy pass beside a baseline that guesses,
or its firing beside one that never fires: that is a finding of its own, "baseline", and undecided.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from isofire.adapters import find_keepers
from isofire.batches import Data
from isofire.errors import SpecError
from isofire.firing.compare import observe_together, require_order
from isofire.firing.comparison import Comparison
from isofire.firing.cost.memory import memory_of
from isofire.firing.cost.synops_per_spike import SynopsPerSpike
from isofire.firing.cost.unreached import Unreached
from isofire.firing.evidence.interval import Interval, drift_intervals
from isofire.firing.evidence.noise_floor import NoiseFloor
from isofire.firing.evidence.outcome import HEADLINE, At, Outcome, outcome_of, together
from isofire.firing.evidence.ratio import Magnitude, ratio_interval
from isofire.firing.evidence.student import LEVEL
from isofire.firing.evidence.summary import RESAMPLES
from isofire.firing.limits import Limits
from isofire.firing.measures import CHANGE, FP, quantity
from isofire.firing.observation import Observation
from isofire.firing.record import spiking_adapters
from isofire.text_table import TextTable, counted, screen_width


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One limit, and what was found.

    Parameters
    ----------
    name, limit
        See `Limits`.
    value, low, high
        As measured, and its 95 % interval; NaN where it could not be measured.
    about
        What the value is, in words.
    at
        Whether the limit is the "most" or the "least" that the value may be.
    enough
        If undecided: number of images that would decide it, if the value stays; None if none can be named.
    """

    name: str
    limit: float
    value: float
    low: float
    high: float
    about: str
    enough: int | None = None
    at: At = "most"

    @property
    def outcome(self) -> Outcome:
        """Keeps, fails or undecided."""
        return outcome_of(self.low, self.high, self.limit, self.at)


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict:
    """All limits of one network.

    Parameters
    ----------
    findings
        One a limit.
    comparison
        What they are from.
    """

    findings: tuple[Finding, ...]
    comparison: Comparison

    @property
    def outcome(self) -> Outcome:
        """Of all limits together."""
        return together(finding.outcome for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        findings = [{**asdict(finding), "outcome": finding.outcome} for finding in self.findings]
        return {"outcome": self.outcome, "n_images": self.comparison.n_images, "findings": findings}

    def __repr__(self) -> str:
        said = ", ".join(f"{item.name} {item.outcome}" for item in self.findings)
        return f"Verdict({self.outcome}: {said}; {self.comparison.n_images:,} images)"

    def _repr_html_(self) -> str:
        return f"<p>{self.outcome}, n = {self.comparison.n_images:,} images</p>{self._lines().html()}"

    def table(self, width: int | None = None) -> str:
        """Plain text: a line a limit, as wide as the screen or `width`, then what each value is."""
        lines = [f"{self.outcome}, n = {self.comparison.n_images:,} images", "", self._lines().text(width), ""]
        if (doubt := self.comparison.doubt) and all(item.name != "baseline" for item in self.findings):
            lines += textwrap.wrap(f"! baseline {doubt}", width or screen_width(), subsequent_indent="    ")
        for item in self.findings:
            more = "" if item.enough is None else f"; about {item.enough:,} images would decide it"
            lines += textwrap.wrap(
                f"{item.name}: {item.about}{more}", width or screen_width(), subsequent_indent="    "
            )
        return "\n".join(lines)

    def _lines(self) -> TextTable:
        rows = []
        for item in self.findings:
            allowed = f"{'≤' if item.at == 'most' else '≥'} {item.limit:.5g}"
            ends = "" if math.isnan(item.low) else f"{item.low:.5g} .. {item.high:.5g}"
            value = "" if math.isnan(item.value) else f"{item.value:.5g}"
            rows.append([item.name, allowed, value, ends, item.outcome])
        return TextTable(["limit", "allowed", "measured", "95 % interval", ""], rows, texts=frozenset({0, 4}))


def check(
    baseline: nn.Module,
    quantized: nn.Module,
    data: Data,
    limits: Limits,
    *,
    floor: NoiseFloor | None = None,
    max_images: int | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    blocks: int | None = None,
    run: int | None = None,
) -> Verdict:
    """Hold a quantized network against limits.

    Parameters
    ----------
    baseline, quantized, data, max_images, batch_size, device, blocks, run
        As in `isofire.compare`.
    limits
        What it has to keep to.
    floor
        What `limits.drift` is a multiple of; None takes the baseline on `FLOOR_IMAGES` other images, see
        `isofire.firing.evidence.outcome`.

    Raises
    ------
    ModelError, DataError, SpecError
        As `isofire.compare`.

    Examples
    --------
    >>> check(model, quantized, test_set, Limits(accuracy_drop=0.01, drift=5)).outcome  # doctest: +SKIP
    'keeps'
    """
    if not isinstance(limits, Limits):
        raise SpecError(f"limits must be isofire.Limits, got {type(limits).__name__}; write Limits(drift=2)")
    require_order(baseline, quantized)
    first, second = observe_together(
        (baseline, quantized), data, max_images=max_images, batch_size=batch_size, device=device, blocks=blocks,
        run=run, probe=limits.needs_probe,
    )  # fmt: skip
    return judge(first, second, limits, floor=floor, quantized=quantized)


def judge(
    baseline: Observation,
    quantized_seen: Observation,
    limits: Limits,
    *,
    quantized: nn.Module,
    floor: NoiseFloor | None = None,
) -> Verdict:
    """`check` for two observations of the same images.

    Parameters
    ----------
    baseline, quantized_seen
        What `observe` saw of each network; `limits.synops` and `limits.state_bytes` need their `reached`.
    quantized
        The network itself, for the bits of its states.
    """
    found = Comparison.observed(baseline, quantized_seen, floor=floor)
    makers = {
        "accuracy_drop": lambda limit: _accuracy(found, limit),
        "drift": lambda limit: _of_all(found, _multiple(found, "drift", HEADLINE, limit)),
        "dead_share": lambda limit: _of_all(found, _measure(found, "dead_share", "dead_05", limit, "most")),
        "synops": lambda limit: _synops(found, limit),
        "state_bytes": lambda limit: _state(quantized, found, limit),
    }
    findings = [makers[name](limit) for name, limit in limits.named.items()]
    more = [_measure(found, name, quantity(name)[0], limit, "most") for name, limit in limits.most.items()]
    more += [_measure(found, name, quantity(name)[0], limit, "least") for name, limit in limits.least.items()]
    more += [_multiple(found, name, quantity(name)[0], limit) for name, limit in limits.multiples.items()]
    findings += [*(_of_all(found, finding) for finding in more), *_baseline(found, limits)]
    return Verdict(findings=tuple(findings), comparison=found)


def _baseline(found: Comparison, limits: Limits) -> list[Finding]:
    """A baseline that is no reference: nothing is kept of an accuracy that guesses, or of a firing that is none.

    Firing that there is can be kept whatever the classes are worth, as with labels that stand for none; state memory
    depends on no image.
    """
    if found.chance is None or found.doubt is None:
        return []
    silent = found.chance.silent and limits.of_firing
    if limits.accuracy_drop is None and not silent:
        return []
    value, limit = found.chance.accuracy.estimate, found.chance.guessing
    return [replace(_unknown("baseline", limit, found.doubt, value), at="least")]


def _unknown(name: str, limit: float, about: str, value: float = math.nan) -> Finding:
    """A limit of which nothing can be said."""
    return Finding(name=name, limit=limit, value=value, low=math.nan, high=math.nan, about=about)


def _of_all(found: Comparison, finding: Finding) -> Finding:
    """Nothing is kept of a network's firing where spikes are in no rate."""
    if finding.outcome != "keeps" or not found.unknown_neurons:
        return finding
    about = f"{finding.about}; undecided, since this leaves out {'; '.join(map(str, found.unknown_neurons))}"
    return replace(_unknown(finding.name, finding.limit, about, finding.value), at=finding.at)


def _finding(name: str, limit: float, interval: Interval, n: int, about: str, at: At = "most") -> Finding:
    value, low, high = interval.estimate, interval.low, interval.high
    finding = Finding(name=name, limit=limit, value=value, low=low, high=high, about=about, at=at)
    gap = abs(limit - value)
    if finding.outcome != "undecided" or not math.isfinite(high - low) or gap == 0:
        return finding
    # half an interval falls with the square root of the images; two digits are as good as the forecast is
    images = math.ceil(n * max(1.0, ((high - low) / 2 / gap) ** 2))
    digits = 10 ** max(len(str(images)) - 2, 0)
    return Finding(**{**vars(finding), "enough": max(-(-images // digits) * digits, n + 1)})


def _accuracy(found: Comparison, limit: float) -> Finding:
    votes = found.decisions
    assert votes is not None
    lost = counted(votes.lost, "image")
    about = f"accuracy {found.accuracy:.4f} against {found.accuracy_fp:.4f}; {lost} lost, {votes.won:,} won"
    return _finding("accuracy_drop", limit, votes.accuracy_drop(LEVEL), votes.images, about)


def _multiple(found: Comparison, name: str, key: str, limit: float) -> Finding:
    """A measure of the whole network as a multiple of its noise floor."""
    said, estimate = quantity(key)[1].measure.heading, _value(found, key)
    if found.evidence is None:
        return _unknown(name, limit, f"{said} {estimate:.5f}; too few images for an interval and a floor")
    against = found.evidence.against(key)
    if against.floor is None:
        return _unknown(
            name, limit, f"{said} {estimate:.5f}; this floor knows none of {key}: {found.evidence.floor.about}"
        )
    if against.floor.value == 0:
        return _unknown(name, limit, f"{said} {estimate:.5f}; its floor is 0, so there is nothing to compare it with")
    floor, interval = against.floor, against.multiple
    about = f"{said} {estimate:.5f} ÷ noise floor {floor.value:.5f}: {found.evidence.floor.about}"
    finding = _finding(name, limit, interval, found.n_images, about)
    # more images do not narrow the floor: where it alone leaves the limit open, no number of them decides
    known = Magnitude(*[abs(estimate)] * 3)
    least, most = ratio_interval(known, floor.unit)
    return replace(finding, enough=None) if least <= limit <= most else finding


def _measure(found: Comparison, name: str, key: str, limit: float, at: At) -> Finding:
    """A measure of the whole network, in its own unit."""
    asked, value = quantity(key)[1], _value(found, key)
    unit = f", in {asked.measure.unit}" if asked.measure.unit else ""
    about = asked.title + unit
    if asked.measure.networks == 1 and asked.part == "value":
        about += f"; the baseline has {found.overall[key + FP]:.4g}"
    if found.evidence is None:
        return replace(_unknown(name, limit, f"{about}; too few images for an interval", value), at=at)
    intervals = found.evidence.intervals
    if asked.measure.slow:
        intervals = drift_intervals(found.baseline, found.quantized, resamples=RESAMPLES, ranks=True)
    return _finding(name, limit, intervals.overall[key].apart_from_noise(asked.measure), found.n_images, about, at)


def _value(found: Comparison, key: str) -> float:
    value = key.removesuffix(CHANGE)
    return found.overall[key] if key in found.overall else found.overall[value] - found.overall[value + FP]


def _synops(found: Comparison, limit: float) -> Finding:
    if found.synops is None:
        why = found.unknown_synops or "the synapses that spikes come to were not looked for"
        return _unknown("synops", limit, f"undecided: {why}")
    total, ratio = found.synops.overall, found.synops.ratio
    if ratio is None:
        about = "the baseline causes no operation" if total.baseline == 0 else "too few images for an interval"
        return _unknown("synops", limit, about)
    about = f"{total.quantized:,.0f} an inference against {total.baseline:,.0f}"
    if total.structure:
        about += f", of which the structure, which is another one, makes {total.structure:+,.0f}"
    if found.synops.by_input:
        about += "; of spikes alone, beside " + "; ".join(map(str, found.synops.by_input))
    if found.synops.left_out:
        about += "; undecided, since this leaves out " + "; ".join(map(str, found.synops.left_out))
        return _unknown("synops", limit, about, ratio.estimate)
    return _finding("synops", limit, ratio, found.n_images, about)


def _state(quantized: nn.Module, found: Comparison, limit: float) -> Finding:
    counts = found.quantized
    memory = memory_of(quantized, {name: counts.n_neurons(name) for name in counts.layers})
    size = memory.state_bits / 8
    about = f"{counts.n_neurons():,} neurons' states of one image"
    if size <= limit and isinstance(found.reached, Unreached):
        about += f"; undecided, since what else the network keeps is not known: {found.reached}"
        return _unknown("state_bytes", limit, about, size)
    spiking = spiking_adapters(quantized).items()
    if size <= limit and (pooling := [name for name, (neuron, adapter) in spiking if adapter.held(neuron) is not None]):
        about += f"; undecided, since states are not told by the spikes of what pools them: {', '.join(pooling)}"
        return _unknown("state_bytes", limit, about, size)
    own = () if not isinstance(found.reached, SynopsPerSpike) else found.reached.own_states
    if size <= limit and (others := [*find_keepers(quantized), *own]):
        about += f"; undecided, since this leaves out states of what does not spike: {', '.join(others)}"
        return _unknown("state_bytes", limit, about, size)
    return Finding(name="state_bytes", limit=limit, value=size, low=size, high=size, about=about)
