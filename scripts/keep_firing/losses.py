"""What a loss on firing adds: settings that differ by their losses alone, side by side."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from scripts.keep_firing.run import IDENTITY, Group

from isofire.training.losses import LOSSES

Groups = dict[tuple[Any, ...], Group]


@dataclass(frozen=True)
class Beside:
    """A setting with a loss, beside the same setting without one and with the loss on mean rates alone.

    Attributes
    ----------
    loss
        As the options name it; "" without one.
    over_none, over_mean_rate
        EMD as a multiple of theirs; None where there is no such setting.
    apart
        Whether for every seed the 95 % intervals of EMD lie apart from theirs, below.
    """

    group: Group
    loss: str
    over_none: float | None
    over_mean_rate: float | None
    apart: bool


def by_loss(groups: Groups) -> list[Beside]:
    """All settings that were trained with several losses."""
    families: dict[tuple[Any, ...], dict[str, Group]] = defaultdict(dict)
    for key, group in groups.items():
        loss, others = _loss_of(group.rows[0]["options"])
        families[tuple(dict(zip(IDENTITY, key, strict=True), options=others).values())][loss] = group
    return [
        _beside(group, loss, family)
        for family in families.values()
        if len(family) > 1
        for loss, group in family.items()
    ]


def _beside(group: Group, loss: str, family: dict[str, Group]) -> Beside:
    none = family.get("")
    mean_rate = next((other for name, other in family.items() if name.startswith("mean_rate")), None)
    others = [other for other in (none, mean_rate) if other is not None and other is not group]
    return Beside(
        group=group,
        loss=loss,
        over_none=None if none is None else group.emd / none.emd,
        over_mean_rate=None if mean_rate is None else group.emd / mean_rate.emd,
        apart=bool(others) and all(_below(group, other) for other in others),
    )


def _below(group: Group, other: Group) -> bool:
    return all(mine["emd_high"] < its["emd_low"] for mine, its in zip(group.rows, other.rows, strict=True))


def _loss_of(options: str | None) -> tuple[str, str]:
    """A row's loss, and its options without it."""
    parts = (options or "").split()
    losses = [part for part in parts if part.split("=")[0] in LOSSES]
    return " ".join(losses), " ".join(part for part in parts if part not in losses)
