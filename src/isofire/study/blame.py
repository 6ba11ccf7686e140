"""Which layer's quantizer, or rounding of integers, makes firing drift: each alone, and all but each of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import nn

from isofire.errors import SpecError
from isofire.firing import Comparison, Observation, observe
from isofire.firing.evidence.outcome import HEADLINE
from isofire.firing.table import left_out_lines
from isofire.integer import Change, Changes, IntegerNetwork
from isofire.integer.steps import EARLY, SEVERAL, STATES, firing_once, resting
from isofire.models import NamedData
from isofire.quantization import CALIBRATION_IMAGES, LayerAssignment, make_plan, reestimates
from isofire.spec import TARGETS, QuantSpec, Rule
from isofire.study.cell import Cell, run_cell
from isofire.study.splits import AnySet
from isofire.text_table import TableShown, TextTable
from isofire.training.distributed import pick_device


@dataclass(frozen=True, eq=False)
class Blamed:
    """One quantizer.

    Parameters
    ----------
    name, target
        Module, and "weights", "membrane", "decays", "thresholds" or "biases"; of integers any name of
        `isofire.integer.APPROXIMATIONS`, "inputs", or for all layers together "states": what is left where a float
        network makes all other changes too.
    alone
        The network in which nothing else is quantized, against the baseline; where batch norm is re-estimated for it,
        against the control, for which it was too: what re-estimation does is no quantizer's. Of states, the integers
        against the network with all other changes.
    without
        The network in which all else is quantized, against the baseline; None if there is nothing else.
    """

    name: str
    target: str
    alone: Comparison
    without: Comparison | None

    @property
    def emds(self) -> dict[str, float]:
        """EMD of each layer of neurons where this quantizer acts alone: how its drift propagates."""
        return {layer.layer: layer.emd for layer in self.alone.layers}

    @property
    def starts(self) -> str | None:
        """First layer of neurons that drifts by more than noise where this quantizer acts alone; None if none does.

        In the order in which layers are defined, which is that of the data in a network without branches.
        """
        evidence = self.alone.evidence
        for layer in self.alone.layers:
            resolved = evidence.intervals.layers[layer.layer]["emd"].resolved if evidence is not None else layer.emd > 0
            if resolved:
                return layer.layer
        return None

    @property
    def worst(self) -> str:
        """Layer of neurons that drifts most where this quantizer acts alone."""
        return max(self.alone.layers, key=lambda layer: layer.emd).layer


@dataclass(frozen=True, eq=False)
class Blame(TableShown):
    """All quantizers of a spec, one by one.

    Parameters
    ----------
    everything
        The network with all of them, against the baseline.
    quantizers
        Each of them, in the model's order.
    control
        Batch norm re-estimated and nothing quantized, against the baseline, where the spec re-estimates it; None where
        it does not.
    integers
        Whether they are the changes of an integer network, not quantizers.
    """

    everything: Comparison
    quantizers: tuple[Blamed, ...]
    control: Comparison | None
    integers: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values: overall measures of every network, and EMD of every layer of neurons."""
        return {
            "everything": _measures(self.everything),
            "control": None if self.control is None else _measures(self.control),
            "quantizers": [
                {
                    "name": item.name,
                    "target": item.target,
                    "starts": item.starts,
                    "worst": item.worst,
                    "alone": _measures(item.alone),
                    "without": None if item.without is None else _measures(item.without),
                }
                for item in self.quantizers
            ],
        }

    def table(self) -> str:
        """Plain text: a line a quantizer, EMDs weighted by neurons."""
        total = self.everything.overall[HEADLINE]
        rows = []
        for item in self.quantizers:
            kept = "-" if item.without is None else f"{_emd(item.without):.5f}"
            saves = "-" if item.without is None or total == 0 else f"{1 - _emd(item.without) / total:+.0%}"
            agree = f"{100 * item.alone.agreement:.1f}"
            where = f"{item.starts or 'noise only'} -> {item.worst}"
            rows.append([f"{item.name} {item.target}", f"{_emd(item.alone):.5f}", kept, saves, agree, where])
        titles = [
            "change" if self.integers else "quantizer",
            "alone",
            "without",
            "saves",
            "agree %",
            "starts at -> worst at",
        ]
        doubt = self.everything.doubt
        lines = [
            *([] if doubt is None else textwrap.wrap(f"! baseline {doubt}", 100, subsequent_indent="    ")),
            *left_out_lines(self.everything.unknown_neurons),
            f"n = {self.everything.n_images:,} images, T = {self.everything.T}; EMD, weighted by neurons: "
            f"{'integers' if self.integers else 'all quantized'} {total:.5f}"
            + ("" if self.control is None else f", batch norm re-estimated only {_emd(self.control):.5f}"),
            "",
            TextTable(titles, rows, texts=frozenset({0, 5})).text(),
        ]
        return "\n".join(
            [
                *lines,
                "",
                "alone: only this"
                + ("" if self.control is None else ", against batch norm re-estimated only where it is"),
                "without: all but this; saves: share of the drift that goes with it",
                *(["states: whole, and of their width, on top of all other changes"] if self.integers else []),
            ]
        )


def blame(
    model: nn.Module,
    spec: QuantSpec | IntegerNetwork,
    train_set: AnySet | NamedData | None,
    test_set: AnySet | NamedData,
    *,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    batch_size: int = 128,
    device: torch.device | str | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Blame:
    """Quantize one module at a time, and all but one, after training, and compare each with the baseline.

    Given integers instead of a spec, make one of their roundings at a time in the float network, and all but one.

    Of q quantized modules it makes 2 q + 1 networks, and the control, from which drift of each alone is measured where
    batch norm is re-estimated. Drifts do not add up: a later quantizer may undo
    an earlier one's shift or build on it, which is what "all but one" shows.

    Parameters
    ----------
    model
        The full-precision network, or the one that integers were lowered from; it is not changed.
    spec
        What is quantized; or what `isofire.integer.lower` gave, on a chip or not.
    train_set, seed, calibration_images, batch_size, device
        As in `isofire.study.run_cell`; of integers `batch_size` alone matters, and networks run where they are.
    test_set
        To compare on.
    on_step
        Called with the number of networks done and in all.

    Raises
    ------
    ModelError, SpecError, DataError
        As `run_cell`; if integers are of another network, or a chip's and from a file.

    Examples
    --------
    >>> print(blame(model, spec, train_set, test_set).table())  # doctest: +SKIP
    """
    if isinstance(spec, IntegerNetwork):
        return _of_integers(model, spec, test_set, batch_size, on_step)
    if not isinstance(spec, QuantSpec):
        raise SpecError(
            "blame takes the network in full precision first and a QuantSpec or an IntegerNetwork second, got "
            f"{type(spec).__name__}"
        )
    if train_set is None:
        raise SpecError("blame of a QuantSpec calibrates on train_set, got None; give images")
    chosen = [choice for choice in make_plan(model, spec).choices if choice.setting is not None]
    several, controlled = len(chosen) > 1, reestimates(model, spec)
    total, done = 1 + controlled + len(chosen) * (1 + several), 0
    place = pick_device(device)
    seen = observe(model, test_set, batch_size=batch_size, device=place)

    def made(variant: QuantSpec | None, against: Observation) -> Cell:
        nonlocal done
        cell = run_cell(
            model,
            variant,
            mode="ptq",
            train_set=train_set,
            test_set=test_set,
            seed=seed,
            observed=against,
            calibration_images=calibration_images,
            batch_size=batch_size,
            device=place,
        )
        done += 1
        if on_step is not None:
            on_step(done, total)
        return cell

    everything, control, still = made(spec, seen).comparison, None, seen
    if controlled:
        cell = made(None, seen)
        control, still = cell.comparison, observe(cell.model, test_set, batch_size=batch_size, device=place)

    def blamed(choice: LayerAssignment) -> Blamed:
        others = [other for other in chosen if other is not choice]
        only = _of(spec, [choice])
        alone = made(only, still if reestimates(model, only) else seen).comparison
        without = made(_of(spec, others), seen).comparison if others else None
        return Blamed(choice.name, choice.target, alone, without)

    return Blame(everything, tuple(map(blamed, chosen)), control)


def _of_integers(
    model: nn.Module,
    network: IntegerNetwork,
    data: AnySet | NamedData,
    batch_size: int,
    on_step: Callable[[int, int], None] | None,
) -> Blame:
    """Each change of an integer network alone, and all but each; last what no float network has: states, biases that
    act before spikes arrive, and several spikes before a reset to 0."""
    changes, single = Changes(model, network), firing_once(network)
    rested = resting(single or network)
    total, done = 2 + (rested is not None) + (single is not None) + len(changes.all) * (1 + (len(changes.all) > 1)), 0

    def seen(made: nn.Module) -> Observation:
        nonlocal done
        found = observe(made, data, batch_size=batch_size)
        done += 1
        if on_step is not None:
            on_step(done, total)
        return found

    baseline, integers = observe(changes.model, data, batch_size=batch_size), seen(network)

    def apart(*only: Change) -> Comparison:
        return Comparison.observed(baseline, seen(changes.make(only)))

    def blamed(change: Change) -> Blamed:
        alone, others = apart(change), [other for other in changes.all if other != change]
        return Blamed(change.layer, change.kind, alone, apart(*others) if others else None)

    together = seen(changes.make(changes.all))
    once = integers if single is None else seen(single)
    whole = once if rested is None else seen(rested)
    rest = Comparison.observed(baseline, together) if changes.all else None
    found = [*map(blamed, changes.all), Blamed("all layers", STATES, Comparison.observed(together, whole), rest)]
    if rested is not None:
        without = Comparison.observed(baseline, whole)
        found.append(Blamed("all layers", EARLY, Comparison.observed(whole, once), without))
    if single is not None:
        without = Comparison.observed(baseline, once)
        found.append(Blamed("all layers", SEVERAL, Comparison.observed(once, integers), without))
    return Blame(Comparison.observed(baseline, integers), tuple(found), None, True)


def _of(spec: QuantSpec, choices: Sequence[LayerAssignment]) -> QuantSpec:
    """The spec that gives just these modules their settings, each by its name, which beats every other rule."""
    rules = [Rule.one(choice.name, choice.target, choice.setting) for choice in choices]
    return msgspec.structs.replace(spec, **dict.fromkeys(TARGETS), rules=tuple(rules))


def _emd(found: Comparison) -> float:
    return found.overall[HEADLINE]


def _measures(found: Comparison) -> dict[str, Any]:
    return {"overall": dict(found.overall), "emds": {layer.layer: layer.emd for layer in found.layers}}
