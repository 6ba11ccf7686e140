"""What a choice of bits must keep to: a budget, with the least drift; or a tolerance, with the least memory."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context
from typing import Any

import msgspec

from isofire.errors import SpecError
from isofire.firing.evidence.outcome import check_drop


class _Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __post_init__(self) -> None:
        given = self.given()
        if not given:
            names = list(msgspec.structs.asdict(self))
            text = f"{', '.join(names[:-1])} or {names[-1]}"
            raise SpecError(f"a {type(self).__name__.lower()} limits {text}, got none of them")
        for name, value in given.items():
            check_limit(name, value, name)

    def given(self) -> dict[str, Any]:
        """What is limited."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


class Budget(_Limits, frozen=True, kw_only=True):
    """What a network may keep and spend; None: as much as it likes.

    Parameters
    ----------
    weight_bytes, state_bytes, total_bytes
        Of the layers that are quantized, for one image at a time.
    synops
        Mean synaptic operations of an inference, of the whole network.
    energy_uj
        Estimated energy of an inference in uJ, of the whole network; see `isofire.firing.cost.energy`.

    Raises
    ------
    SpecError
        If nothing is limited, or a limit is not positive.
    """

    weight_bytes: float | None = None
    state_bytes: float | None = None
    total_bytes: float | None = None
    synops: float | None = None
    energy_uj: float | None = None

    @property
    def costs(self) -> bool:
        """Whether operations must be measured."""
        return self.synops is not None or self.energy_uj is not None

    @property
    def of_bytes(self) -> Budget | None:
        """What it says of bytes alone; None where that is nothing."""
        only = {name: value for name, value in self.given().items() if name.endswith("_bytes")}
        return Budget(**only) if only else None


class Tolerance(_Limits, frozen=True, kw_only=True):
    """How far a network may be from full precision; the bits with the least memory are taken.

    Parameters
    ----------
    accuracy_drop
        Share of images, 0.01 for a point; 0 to lose none.
    floors
        Drift (EMD, layers weighted by their neurons) in noise floors, as `isofire check` counts them: 1 is how far the
        baseline is from itself on 1,000 other images.

    Raises
    ------
    SpecError
        If nothing is limited, the drop is not from 0 to below 1, or the drift not positive.
    """

    accuracy_drop: float | None = None
    floors: float | None = None


def check_limit(name: str, value: float, told: str) -> None:
    """Raise SpecError if a limit cannot be one; `told` is what it is called: that name, or an option."""
    if name == "accuracy_drop":
        check_drop(told, value)
    elif not 0 < value < math.inf:
        raise SpecError(f"{told} must be positive, got {value:g}; leave it out to limit nothing by it")


def shown(name: str, amount: float) -> str:
    """A limit's amount in the units that it may have been given in: bytes and KiB, or its own.

    Examples
    --------
    >>> shown("total_bytes", 40960.0), shown("synops", 1234.5)
    ('40 KiB (40,960 bytes)', '1,234')
    """
    number = f"{amount:,.0f}" if amount >= 100 else f"{amount:.4g}"
    return f"{amount / 1024:,.4g} KiB ({number} bytes)" if name.endswith("_bytes") else number


def shown_least(name: str, amount: float) -> str:
    """As `shown`, but rounded up, so that it can be given as a limit as it is told.

    Examples
    --------
    >>> shown_least("total_bytes", 40961.0), shown_least("synops", 1234.5), shown_least("floors", 1.23412)
    ('40.01 KiB (40,961 bytes)', '1,235', '1.235')
    """
    number = f"{math.ceil(round(amount, 6)):,}" if amount >= 100 else f"{_four_digits_up(amount):.4g}"
    return f"{_four_digits_up(amount / 1024):,.4g} KiB ({number} bytes)" if name.endswith("_bytes") else number


def _four_digits_up(amount: float) -> float:
    # not what sums of floats are off by: .1 + .2 is .3
    return float(Context(prec=4, rounding=ROUND_CEILING).create_decimal(f"{amount:.12g}"))


def title(name: str) -> str:
    """What a limit is of: "total", "synops"."""
    return name.removesuffix("_bytes")
