"""Bits for each layer under a budget: chosen exactly from what each layer's bits do alone, then measured together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from isofire.errors import SpecError
from isofire.firing import Comparison, observe
from isofire.firing.cost.memory import memory_of
from isofire.firing.evidence.outcome import HEADLINE
from isofire.quantization import CALIBRATION_IMAGES, make_plan
from isofire.quantizers import MembraneSetting
from isofire.spec import CONSTANT_TARGETS, TARGETS, QuantSpec, Rule
from isofire.study.cell import Cell, run_cell
from isofire.study.splits import AnySet
from isofire.text_table import TextTable
from isofire.training.distributed import pick_device

MEASURE = HEADLINE


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a network may keep, in bytes for one image at a time; None: as much as it likes.

    Raises
    ------
    SpecError
        If nothing is limited, or a limit is not positive.
    """

    weight_bytes: float | None = None
    state_bytes: float | None = None
    total_bytes: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        if not given:
            raise SpecError("a budget limits weight_bytes, state_bytes or total_bytes, got none of them")
        for name, value in given.items():
            if not value > 0:
                raise SpecError(f"{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One number of bits for one layer, and what it does alone.

    Parameters
    ----------
    name, target
        Module, and "weights" or "membrane".
    bits
        As the spec counts them.
    bytes
        What the layer then keeps.
    drift
        EMD, mean over layers, of the network in which nothing else is quantized, less the control's; not below 0.
    """

    name: str
    target: str
    bits: int
    bytes: float
    drift: float


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What was chosen, and what came of it.

    Parameters
    ----------
    spec
        A rule for every layer.
    bits
        (target, module) -> bits.
    expected
        Sum of the chosen options' drifts: what the choice was made by.
    weight_bytes, state_bytes
        What the network then keeps.
    comparison
        The network with these bits against the baseline, on the test images.
    uniform
        Bits everywhere the same, the most that the budget allows, and its comparison; None if none fits.
    options
        All that was measured.
    """

    spec: QuantSpec
    bits: Mapping[tuple[str, str], int]
    expected: float
    weight_bytes: float
    state_bytes: float
    comparison: Comparison
    uniform: tuple[int, Comparison] | None
    options: tuple[Option, ...]

    def table(self) -> str:
        """Plain text: a line a layer, then the network beside one of equal bits."""
        rows = [[f"{name} {target}", str(bits)] for (target, name), bits in self.bits.items()]
        same = "" if self.uniform is None else f"\n{self.uniform[0]} bits everywhere: {_told(self.uniform[1])}"
        return TextTable(["quantizer", "bits"], rows).text() + (
            f"\n\nkept: {self.weight_bytes / 1024:,.2f} KiB of weights, {self.state_bytes / 1024:,.2f} KiB of states"
            f"\nn = {self.comparison.n_images:,} images, T = {self.comparison.T}"
            f"\nchosen: {_told(self.comparison)} (sum of what each layer does alone: {self.expected:.5f}){same}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "spec": self.spec.to_dict(),
            "bits": {f"{name} {target}": bits for (target, name), bits in self.bits.items()},
            "expected_drift": self.expected,
            "weight_bytes": self.weight_bytes,
            "state_bytes": self.state_bytes,
            "measured": _measures(self.comparison),
            "uniform": None if self.uniform is None else {"bits": self.uniform[0], **_measures(self.uniform[1])},
            "options": [vars(option) for option in self.options],
        }


def allocate(
    model: nn.Module,
    spec: QuantSpec,
    bits: Sequence[int],
    budget: Budget,
    train_set: AnySet,
    test_set: AnySet,
    *,
    choose_on: AnySet | None = None,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    batch_size: int = 128,
    device: torch.device | str | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Allocation:
    """Give each quantized layer bits out of `bits`, so that the drifts that they cause alone add up to the least.

    Of q layers and b numbers of bits, q b networks are made and compared to find what each does alone (`blame` shows
    the same); the choice is an integer program, solved exactly (HiGHS through scipy.optimize.milp). Drifts do not
    really add up, so the chosen network is made and measured, beside bits that are everywhere the same.

    Parameters
    ----------
    model
        The full-precision network; it is not changed.
    spec
        Which layers are quantized and how; its bits are replaced.
    bits
        Numbers of bits to choose from.
    budget
        What must be kept to.
    train_set, seed, calibration_images, batch_size, device
        As in `isofire.study.run_cell`.
    test_set
        To compare on at the end.
    choose_on
        Images to choose on; None takes as many of the train set as there are test images.
    on_step
        Called with the number of networks done and in all.

    Raises
    ------
    SpecError
        If the budget is below what the fewest bits need; says the least that can be kept to.
    ModelError, DataError
        As `run_cell`.

    Examples
    --------
    >>> found = allocate(model, spec, [1, 2, 4], Budget(total_bytes=30e3), train, test)  # doctest: +SKIP
    """
    work = _Allocator(model, spec, sorted(set(bits)), train_set, seed, calibration_images, batch_size, device)
    layers = work.layers
    if not layers or not work.bits:
        raise SpecError("there is nothing to choose: the spec quantizes no layer, or no bits are given")
    total, done = len(layers) * len(work.bits) + 3, 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    images = choose_on if choose_on is not None else train_set.first(min(len(train_set), len(test_set)))
    options = work.options(images, step)
    chosen = solve(options, budget)
    made = work.made(work.spec({(option.target, option.name): option.bits for option in chosen}), test_set)
    step()
    return Allocation(
        spec=made.spec,
        bits={(option.target, option.name): option.bits for option in chosen},
        expected=sum(option.drift for option in chosen),
        weight_bytes=sum(option.bytes for option in chosen if option.target == "weights"),
        state_bytes=sum(option.bytes for option in chosen if option.target == "membrane"),
        comparison=made.comparison,
        uniform=work.uniform(options, budget, test_set),
        options=tuple(options),
    )


def solve(options: Sequence[Option], budget: Budget) -> list[Option]:
    """One option for each layer, with the least sum of drifts that keeps to the budget; exact.

    Raises
    ------
    SpecError
        If none does.
    """
    layers = list(dict.fromkeys((option.target, option.name) for option in options))
    rows = [[float((option.target, option.name) == layer) for option in options] for layer in layers]
    limits = _limits(options, budget)
    least = {name: _least(options, weight) for name, (weight, _) in limits.items()}
    for name, (_, limit) in limits.items():
        if least[name] > limit:
            raise SpecError(
                f"the budget of {name} = {limit:,.0f} cannot be met: the fewest bits need {least[name]:,.0f}; raise "
                "it, or give fewer bits to choose from"
            )
    constraints = [LinearConstraint(np.array(rows), 1, 1)]
    constraints += [LinearConstraint(weight[np.newaxis], -np.inf, limit) for weight, limit in limits.values()]
    drifts = np.array([option.drift for option in options])
    scale = float(drifts.max()) or 1.0
    # of drifts that differ by less than a millionth of the largest, the one with fewer bytes
    sizes = np.array([option.bytes for option in options])
    cost = drifts / scale + 1e-6 * sizes / (float(sizes.max()) or 1.0)
    found = milp(
        cost,
        constraints=constraints,
        integrality=np.ones(len(options)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise SpecError(f"no choice of bits keeps to the whole budget {msgspec.structs.asdict(budget)}; raise a limit")
    return [option for option, taken in zip(options, found.x, strict=True) if taken > 0.5]


def _limits(options: Sequence[Option], budget: Budget) -> dict[str, tuple[np.ndarray, float]]:
    sizes = np.array([option.bytes for option in options])
    kinds = {
        "weight_bytes": sizes * [option.target == "weights" for option in options],
        "state_bytes": sizes * [option.target == "membrane" for option in options],
        "total_bytes": sizes,
    }
    limits = msgspec.structs.asdict(budget)
    return {name: (weight, limits[name]) for name, weight in kinds.items() if limits[name] is not None}


def _least(options: Sequence[Option], weight: np.ndarray) -> float:
    least: dict[tuple[str, str], float] = {}
    for option, size in zip(options, weight, strict=True):
        key = (option.target, option.name)
        least[key] = min(least.get(key, np.inf), float(size))
    return sum(least.values())


class _Made(msgspec.Struct, frozen=True):
    spec: QuantSpec
    comparison: Comparison


class _Allocator:
    """Makes and compares the networks that a choice needs."""

    def __init__(
        self,
        model: nn.Module,
        spec: QuantSpec,
        bits: list[int],
        train_set: AnySet,
        seed: int,
        calibration_images: int,
        batch_size: int,
        device: torch.device | str | None,
    ) -> None:
        self.model, self.base, self.bits, self.train_set = model, spec, bits, train_set
        self.seed, self.calibration_images, self.batch_size = seed, calibration_images, batch_size
        self.place = pick_device(device)
        plan = make_plan(model, spec)
        chosen = [choice for choice in plan.choices if choice.setting is not None]
        self.layers: dict[tuple[str, str], Any] = {
            (c.target, c.name): c.setting for c in chosen if c.target not in CONSTANT_TARGETS
        }
        # constants are rounded as the spec says
        kept = [choice for choice in chosen if choice.target in CONSTANT_TARGETS]
        self.constants = tuple(Rule.one(c.name, c.target, c.setting) for c in kept)

    def spec(self, bits: Mapping[tuple[str, str], int]) -> QuantSpec:
        """A rule for each of these layers, and nothing else."""
        rules = []
        for key, count in bits.items():
            name = key[1]
            rules.append(Rule.one(name, key[0], msgspec.structs.replace(self.layers[key], bits=count)))
        return msgspec.structs.replace(self.base, **dict.fromkeys(TARGETS), rules=(*rules, *self.constants))

    def cell(self, spec: QuantSpec | None, images: AnySet, observed: Any = None) -> Cell:
        return run_cell(
            self.model,
            spec,
            mode="ptq",
            train_set=self.train_set,
            test_set=images,
            seed=self.seed,
            observed=observed,
            calibration_images=self.calibration_images,
            batch_size=self.batch_size,
            device=self.place,
        )

    def made(self, spec: QuantSpec, images: AnySet) -> _Made:
        return _Made(spec, self.cell(spec, images).comparison)

    def options(self, images: AnySet, step: Callable[[], None]) -> list[Option]:
        """What each number of bits does to each layer alone."""
        seen = observe(self.model, images, batch_size=self.batch_size, device=self.place)
        control = self.cell(None, images, seen).comparison.overall[MEASURE]
        step()
        found = []
        for (target, name), setting in self.layers.items():
            for bits in self.bits:
                cell = self.cell(self.spec({(target, name): bits}), images, seen)
                neurons = {layer.layer: layer.neurons for layer in cell.comparison.layers}
                memory = memory_of(cell.model, neurons)
                kept = memory.states[name] if isinstance(setting, MembraneSetting) else memory.weights[name]
                drift = cell.comparison.overall[MEASURE] - (control if target == "weights" else 0.0)
                found.append(Option(name=name, target=target, bits=bits, bytes=kept.total / 8, drift=max(0.0, drift)))
                step()
        return found

    def uniform(self, options: Sequence[Option], budget: Budget, images: AnySet) -> tuple[int, Comparison] | None:
        """The most bits that may be everywhere the same, and what they do."""
        for bits in reversed(self.bits):
            same = [option for option in options if option.bits == bits]
            limits = _limits(same, budget)
            if all(float(weight.sum()) <= limit for weight, limit in limits.values()):
                return bits, self.made(self.spec(dict.fromkeys(self.layers, bits)), images).comparison
        return None


def _measures(found: Comparison) -> dict[str, float]:
    return {key: float(found.overall[key]) for key in (MEASURE, "paired_mae")} | {"agreement": float(found.agreement)}


def _told(found: Comparison) -> str:
    return f"EMD, mean over layers, {found.overall[MEASURE]:.5f}; agreement {found.agreement:.1%}"
