"""Groups of cells: settings of a `QuantSpec` along axes, and what is left out of their product."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from msgspec import Struct

from isofire.errors import SpecError
from isofire.spec import TARGETS, QuantSpec
from isofire.training.losses import read_loss

Exclusion = dict[str, Any]
"""Dotted keys -> a value or a list of values, such as {"weights.method": "lqnet", "weights.bits": 8}."""

Mode = Literal["ptq", "qat"]

_WITH_BITS = ("weights", "membrane")
"""Targets whose bits are the short axis `bits`."""


class CellGroup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that share some settings and take every combination of others.

    A group without a target is a control, which quantizes nothing.

    Parameters
    ----------
    mode
        "ptq", "qat" or both.
    weights, membrane, decays, thresholds, biases
        Settings of a `QuantSpec`, as far as no axis gives them.
    bits
        Short for an axis of bits, the same for weights and membrane.
    axes
        Dotted key -> values, such as {"weights.range": [[-1.0, 1.0], [-10.0, 10.0]]}.
    spec
        Further settings of the `QuantSpec`, such as {reestimate_bn = "never"}.
    losses
        In place of the further losses of [qat], one cell with training for each: [{}, {paired = 1.0}, {emd = 1.0}].
    exclude
        Combinations to leave out.
    """

    mode: tuple[Mode, ...] = ("ptq", "qat")
    bits: tuple[int, ...] | None = None
    weights: dict[str, Any] | None = None
    membrane: dict[str, Any] | None = None
    decays: dict[str, Any] | None = None
    thresholds: dict[str, Any] | None = None
    biases: dict[str, Any] | None = None
    axes: dict[str, list[Any]] = {}
    spec: dict[str, Any] = {}
    losses: tuple[dict[str, Any], ...] | None = None
    exclude: tuple[Exclusion, ...] = ()


@dataclass(frozen=True)
class Combination:
    """One point of a group.

    Attributes
    ----------
    mode, spec
        How and what to quantize; a `spec` of None is a control.
    values
        Dotted key -> value, for exclusions.
    losses
        Further losses of the cell's training; None: those of the sweep's recipe.
    """

    mode: Mode
    spec: QuantSpec | None
    values: Mapping[str, Any]
    losses: Mapping[str, Any] | None = None


class Exclusions:
    """Exclusions that remember which of them ever matched."""

    def __init__(self, patterns: Sequence[Exclusion], place: str) -> None:
        self._patterns = list(patterns)
        self._place = place
        self._used = [False] * len(self._patterns)
        for i, pattern in enumerate(self._patterns):
            if not pattern:
                raise SpecError(f"an exclusion must name a value, got an empty one ({place}[{i}]); leave it out")

    def match(self, values: Mapping[str, Any]) -> bool:
        """Whether an exclusion holds for all of its keys."""
        found = False
        for i, pattern in enumerate(self._patterns):
            if all(_fits(values.get(key, _ABSENT), wanted) for key, wanted in pattern.items()):
                self._used[i] = found = True
        return found

    def check(self) -> None:
        """Refuse exclusions that matched nothing.

        Raises
        ------
        SpecError
            If there is one.
        """
        for i, used in enumerate(self._used):
            if not used:
                raise SpecError(
                    f"an exclusion must match a cell, {self._patterns[i]} matches none ({self._place}[{i}]); keys are "
                    'dotted, such as "weights.bits", and values those of the cells'
                )


def combinations(group: CellGroup, place: str) -> Iterator[Combination]:
    """Every point of a group: the last axis changes fastest.

    Parameters
    ----------
    place
        Such as "cells[3]", for errors.

    Raises
    ------
    SpecError
        If an axis is empty or no setting, or a point is no valid spec.
    """
    axes = _axes(group, place)
    _check_losses(group, place)
    for mode, *point in itertools.product(group.mode, *axes.values()):
        chosen: dict[str, Any] = {}
        for keys, value in zip(axes, point, strict=True):
            chosen |= dict.fromkeys(keys, value)
        content = _content(group, chosen)
        try:
            spec = QuantSpec.from_dict(content) if content else None
        except SpecError as error:
            raise SpecError(f"{error} ({place}, {_told(chosen)})") from error
        values = {"mode": mode} | (_flat(spec.to_dict()) if spec is not None else {})
        for losses in group.losses if group.losses is not None else (None,):
            yield Combination(mode, spec, values if losses is None else {**values, "losses": losses}, losses)


def _axes(group: CellGroup, place: str) -> dict[tuple[str, ...], Sequence[Any]]:
    given = [name for name in _WITH_BITS if getattr(group, name) is not None]
    for key, values in group.axes.items():
        head = key.partition(".")[0]
        if head not in QuantSpec.__struct_fields__:
            raise SpecError(f"an axis must be a setting such as 'weights.range', got {key!r} ({place}.axes)")
        if not values:
            raise SpecError(f"an axis needs at least one value, {key!r} has none ({place}.axes)")
    axes: dict[tuple[str, ...], Sequence[Any]] = {(key,): values for key, values in group.axes.items()}
    if group.bits is not None:
        if not group.bits:
            raise SpecError(f"{place}.bits must name one or more numbers, got none; leave it out")
        targets = given or sorted({key.partition(".")[0] for key in group.axes} & set(_WITH_BITS))
        if not targets:
            raise SpecError(f"bits are bits of weights or membrane, which the group does not name ({place}.bits)")
        axes[tuple(f"{name}.bits" for name in targets)] = group.bits
    if not group.mode:
        raise SpecError(f"mode must be one or both of {', '.join(get_args(Mode))}, got none ({place}.mode)")
    return axes


def _check_losses(group: CellGroup, place: str) -> None:
    if group.losses is None:
        return
    if not group.losses or set(group.mode) != {"qat"}:
        raise SpecError(f'losses are those of cells with training, each a table; set mode = ["qat"] ({place}.losses)')
    for i, table in enumerate(group.losses):
        try:
            for name, given in table.items():
                read_loss(name, given)
        except SpecError as error:
            raise SpecError(f"{error} ({place}.losses[{i}])") from error


def _content(group: CellGroup, chosen: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name in TARGETS:
        setting = getattr(group, name)
        if setting is not None:
            content[name] = dict(setting)
    content |= group.spec
    for key, value in chosen.items():
        head, _, rest = key.partition(".")
        if rest:
            content[head] = {**content.get(head, {}), rest: value}
        else:
            content[head] = value
    return content


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat


def _fits(value: Any, wanted: Any) -> bool:
    value = list(value) if isinstance(value, tuple) else value
    if value == wanted:
        return True
    return isinstance(wanted, list) and value in wanted


def _told(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in chosen.items()) or "no axis"


_ABSENT = object()
