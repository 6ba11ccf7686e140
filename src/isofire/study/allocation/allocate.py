"""Bits for each layer under a budget, or within a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from isofire.adapters import copy_of
from isofire.batches import Data
from isofire.errors import DataError, SpecError
from isofire.firing import Observation
from isofire.firing.evidence.noise_floor import image_floor
from isofire.firing.evidence.outcome import FLOOR_IMAGES
from isofire.quantization import CALIBRATION_IMAGES
from isofire.quantization.by_firing.trace import trace
from isofire.spec import QuantSpec
from isofire.study.allocation import ptq4snn
from isofire.study.allocation.budget import Budget, Tolerance
from isofire.study.allocation.measure import MEASURE, Bits, Made, Option, Workshop
from isofire.study.allocation.record import Allocation, Candidate
from isofire.study.allocation.solve import Limit, least, limits_of
from isofire.study.splits import AnySet, as_set

ROUNDS = 4
"""Networks that are made at most until one keeps, as measured, to limits that sums only estimate."""
_BIT = 1 / 8
CHOSEN, EQUAL, PTQ4SNN = "allocate", "equal bits", "PTQ4SNN's rule"


def allocate(
    model: nn.Module,
    spec: QuantSpec,
    bits: Sequence[int],
    limits: Budget | Tolerance,
    train_set: AnySet | Data,
    test_set: AnySet | Data,
    *,
    choose_on: AnySet | Data | None = None,
    seed: int = 0,
    calibration_images: int = CALIBRATION_IMAGES,
    batch_size: int = 128,
    device: torch.device | str | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Allocation:
    """Give each quantized layer bits out of `bits`: the least drift under a budget, or the least memory in a tolerance.

    Of q layers and b numbers of bits, q b networks are made and compared to find what each does alone (`blame` shows
    the same); the choice is an integer program, solved exactly (HiGHS through scipy.optimize.milp). Bytes are known
    exactly (a weight that layers share counts with each); drifts, drops of accuracy, operations and energy are sums of
    what each layer does alone, which they do not really come to, so the chosen network is made and measured. Where it
    misses a limit, the program is solved again with that limit lower by the miss, or, where that leaves nothing within
    a tolerance, for more memory, up to 4 times. All of that on training images; the last network is then compared on
    the test images, beside bits that are everywhere the same and PTQ4SNN's rule.

    Parameters
    ----------
    model
        The full-precision network; it is not changed.
    spec
        Which layers are quantized and how; its bits are replaced.
    bits
        Numbers of bits to choose from.
    limits
        What must be kept to.
    train_set, seed, calibration_images, batch_size, device
        As in `isofire.study.run_cell`.
    test_set
        To compare on at the end.
    choose_on
        Images to choose on; None takes as many of the train set as there are test images.
    on_step
        Called with the number of networks done and, at most, in all.

    Raises
    ------
    SpecError
        If no choice of bits keeps to the limits; says the least that can be kept to. If operations are limited and
        some of the network's are not counted, or a noise floor is asked for on too few images.
    ModelError, DataError
        As `run_cell`.

    Examples
    --------
    >>> found = allocate(model, spec, [1, 2, 4], Budget(total_bytes=30e3), train, test)  # doctest: +SKIP
    >>> found = allocate(model, spec, [1, 2, 4], Tolerance(floors=1.5), train, test)  # doctest: +SKIP
    """
    choices, done, total = sorted(set(bits)), 0, 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    train_set, test_set = as_set(train_set, "train"), as_set(test_set, "test")
    costs = isinstance(limits, Budget) and limits.costs
    work = Workshop(
        model, spec, train_set, costs=costs, step=step, seed=seed, calibration_images=calibration_images,
        batch_size=batch_size, device=device,
    )  # fmt: skip
    if not work.layers or not choices:
        raise SpecError("there is nothing to choose: the spec quantizes no layer, or no bits are given")
    total = len(work.layers) * len(choices) + 2 + ROUNDS + 4
    images = train_set.first(min(len(train_set), len(test_set))) if choose_on is None else as_set(choose_on, "choose")
    choice = _Choice(work, limits, choices, images)
    chosen = choice.best()
    seen = work.observe(test_set)
    others, missing = choice.others(chosen, seen, test_set)
    found = Allocation(
        chosen=choice.candidate(CHOSEN, chosen.bits, seen, test_set),
        expected=choice.expected(chosen.bits),
        limits=limits.given(),
        kept=choice.kept(chosen),
        others=tuple(others),
        missing=missing,
        options=tuple(choice.options),
    )
    if on_step is not None:
        on_step(total, total)
    return found


class _Choice:
    """The options of a network and what may be chosen of them."""

    def __init__(self, work: Workshop, limits: Budget | Tolerance, bits: list[int], images: AnySet) -> None:
        self.work, self.asked, self.bits, self.images = work, limits, bits, images
        self.seen = work.observe(images)
        self._require_room()
        self.floor = self._floor() if isinstance(limits, Tolerance) and limits.floors is not None else 1.0
        self.options, self.base = work.options(bits, images, self.seen)
        self.limits = self._limits()

    def _require_room(self) -> None:
        """Refuse a budget of bytes that no bits keep to before a network is made."""
        asked = self.asked.of_bytes if isinstance(self.asked, Budget) else None
        if asked is not None:
            sizes = self.work.sizes(self.bits, self.seen)
            kept = np.array([option.bytes for option in sizes])
            least(sizes, limits_of(sizes, asked), kept, kept)

    def _floor(self) -> float:
        try:
            found = image_floor(self.seen.counts, images=FLOOR_IMAGES).get(MEASURE)
        except DataError as error:
            raise SpecError(f"a tolerance in noise floors needs more images to choose on: {error}") from error
        assert found is not None
        return found.value

    def _limits(self) -> dict[str, Limit]:
        if isinstance(self.asked, Budget):
            return limits_of(self.options, self.asked, self.base)
        found = {}
        if self.asked.accuracy_drop is not None:
            # what happens to be right more often is no room for others
            drops = np.array([max(0.0, option.accuracy_drop) for option in self.options])
            found["accuracy_drop"] = Limit(drops, self.asked.accuracy_drop, self.base["accuracy_drop"])
        if self.asked.floors is not None:
            drifts = np.array([option.drift for option in self.options]) / self.floor
            found["floors"] = Limit(drifts, self.asked.floors, self.base["drift"] / self.floor)
        return found

    def best(self) -> Made:
        """The best network that keeps to the limits as measured; the last one tried, if none does."""
        limits, tried, most = dict(self.limits), dict[str, Limit](), 0.0
        made = self._made(self._solve(limits))
        for number in range(1, ROUNDS):
            missed = {name: amount for name, amount in self._missed(made).items() if amount > 0}
            if not missed:
                break
            sums = self._sums(made.bits)
            for name, amount in missed.items():
                limits[name] = limits[name]._replace(most=min(limits[name].most, sums[name]) - amount)
            # not all layers as they were, however little the limit was missed by: the solver rounds
            tried[f"network {number}"] = Limit(self._taken(made.bits).astype(float), len(made.bits) - 1)
            most = max(most, sum(self.bytes(made.bits)))
            found = self._solve_if({**limits, **tried})
            if found is None and isinstance(self.asked, Tolerance):
                # no choice is left below a limit that was lowered, but of more memory than all so far
                sizes = np.array([option.bytes for option in self.options])
                limits = {**self.limits, "bytes": Limit(-sizes, -most - _BIT)}
                found = self._solve_if({**limits, **tried})
            if found is None:
                break
            made = self._made(found)
        return made

    def _made(self, taken: Sequence[Option]) -> Made:
        return self.work.made(_bits(taken), self.images, self.seen)

    def _solve_if(self, limits: Mapping[str, Limit]) -> list[Option] | None:
        """None if no choice keeps to them."""
        try:
            return self._solve(limits)
        except SpecError:
            return None

    def _solve(self, limits: Mapping[str, Limit]) -> list[Option]:
        drifts, sizes = (np.array([getattr(option, name) for option in self.options]) for name in ("drift", "bytes"))
        if isinstance(self.asked, Budget):
            return least(self.options, limits, drifts, sizes)
        return least(self.options, limits, sizes, drifts)

    def _measured(self, made: Made) -> dict[str, float]:
        """Of what is limited."""
        sums = self._sums(made.bits)
        now = {"accuracy_drop": made.accuracy_drop, "floors": made.drift / self.floor, **made.cost}
        return {name: now.get(name, sums[name]) for name in self.limits}

    def _missed(self, made: Made) -> dict[str, float]:
        return {name: value - self.limits[name].most for name, value in self._measured(made).items()}

    def kept(self, made: Made) -> dict[str, bool]:
        """Whether each limit is, as measured."""
        return {name: amount <= 0 for name, amount in self._missed(made).items()}

    def _taken(self, bits: Bits) -> np.ndarray:
        return np.array([bits[option.target, option.name] == option.bits for option in self.options])

    def _sums(self, bits: Bits) -> dict[str, float]:
        taken = self._taken(bits)
        return {name: limit.total(taken) for name, limit in self.limits.items()}

    def expected(self, bits: Bits) -> dict[str, float]:
        """What the sums of what each layer does alone come to."""
        taken = [option for option, is_taken in zip(self.options, self._taken(bits), strict=True) if is_taken]
        return {key: start + sum(getattr(option, key) for option in taken) for key, start in self.base.items()}

    # -- beside it ---------------------------------------------------------------------------------------------------

    def others(self, chosen: Made, seen: Observation, images: AnySet) -> tuple[list[Candidate], dict[str, str]]:
        """Networks by other rules with the same limits, or, beside a tolerance, with no more memory; and why a rule has
        none."""
        found, missing = [], {}
        rules = [(EQUAL, self.equal())]
        if len(self.seen.counts.layers) > 1:
            rules.append((PTQ4SNN, self.by_ptq4snn()))
        else:
            missing[PTQ4SNN] = "it ranks layers of neurons after the first, of which this network has none"
        for rule, choices in rules:
            bits = next((bits for bits in choices if self._fits(bits, chosen)), None)
            if bits is None:
                missing[rule] = self._why_none(choices, chosen)
                continue
            text = f"{rule}, {next(iter(bits.values()))}" if rule == EQUAL else rule
            found.append(self.candidate(text, bits, seen, images))
        return found, missing

    def equal(self) -> list[Bits]:
        """The same everywhere, the most first."""
        return [dict.fromkeys(self.work.layers, bits) for bits in reversed(self.bits)]

    def by_ptq4snn(self) -> list[Bits]:
        """By its rule, the most first."""
        work = self.work
        near = min(self.bits, key=lambda bits: abs(bits - ptq4snn.SALIENCE_BITS))
        quantized = work.cell(work.spec(dict.fromkeys(work.layers, near)), self.images, self.seen).model
        baseline = copy_of(work.model).to(work.place).eval()
        scores = ptq4snn.scores(baseline, quantized, self.seen, self.images)
        weights = [name for target, name in work.layers if target == "weights"]
        inputs, _ = next(iter(self.images.first(1).batches(1, device=work.place)))
        order = trace(baseline, [inputs], weights).order
        return ptq4snn.assign(scores, list(work.layers), order, self.seen.counts.layers, self.bits)

    def _fits(self, bits: Bits, chosen: Made) -> bool:
        if isinstance(self.asked, Budget):
            sums = self._sums(bits)
            return not any(limit.exceeded_by(sums[name]) for name, limit in self.limits.items())
        return sum(self.bytes(bits)) <= sum(self.bytes(chosen.bits))

    def _why_none(self, choices: Sequence[Bits], chosen: Made) -> str:
        """Why none of a rule's choices `_fits`."""
        if isinstance(self.asked, Budget):
            return "no bits of this rule keep to the limits, by the same sums"
        least = min(sum(self.bytes(bits)) for bits in choices)
        most = sum(self.bytes(chosen.bits))
        return (
            f"all bits of this rule take more memory ({least / 1024:,.4g} KiB at the least) than the chosen network "
            f"({most / 1024:,.4g} KiB), with which it is compared"
        )

    def bytes(self, bits: Bits) -> tuple[float, float]:
        """Of weights and of states."""
        taken = [option for option, is_taken in zip(self.options, self._taken(bits), strict=True) if is_taken]
        sizes = [sum(item.bytes for item in taken if item.target == target) for target in ("weights", "membrane")]
        return sizes[0], sizes[1]

    def candidate(self, rule: str, bits: Bits, seen: Observation, images: AnySet) -> Candidate:
        """The network with these bits, on the test images."""
        weights, states = self.bytes(bits)
        return Candidate(rule=rule, made=self.work.made(bits, images, seen), weight_bytes=weights, state_bytes=states)


def _bits(taken: Sequence[Option]) -> dict[tuple[str, str], int]:
    return {(option.target, option.name): option.bits for option in taken}
