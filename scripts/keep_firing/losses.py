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
    over_none
        EMD as a multiple of that without a loss.
    over_mean_rates
        The same, of each setting with the loss on mean rates, by its weight; none where it was not run.
    below_none, below_mean_rates
        Whether for every seed the 95 % interval of EMD lies below, and apart from, theirs (not its own); False where
        there is none.
    """

    group: Group
    loss: str
    over_none: float | None
    over_mean_rates: list[float]
    below_none: bool
    below_mean_rates: bool

    @property
    def apart(self) -> bool:
        """Whether it lies below all that there is to lie below."""
        alone = not self.over_mean_rates or self.of_mean_rates
        return self.below_none and (self.below_mean_rates or alone)

    @property
    def of_mean_rates(self) -> bool:
        """Whether it is the loss on mean rates itself."""
        return self.loss.startswith("mean_rate")


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
    mean_rates = [other for name, other in family.items() if name.startswith("mean_rate")]
    others = [other for other in mean_rates if other is not group]
    return Beside(
        group=group,
        loss=loss,
        over_none=None if none is None else group.emd / none.emd,
        over_mean_rates=[group.emd / other.emd for other in mean_rates],
        below_none=none is not None and _below(group, none),
        below_mean_rates=bool(others) and all(_below(group, other) for other in others),
    )


def _below(group: Group, other: Group) -> bool:
    return all(mine["emd_high"] < its["emd_low"] for mine, its in zip(group.rows, other.rows, strict=True))


def _loss_of(options: str | None) -> tuple[str, str]:
    """A row's loss, and its options without it."""
    parts = (options or "").split()
    losses = [part for part in parts if part.split("=")[0] in LOSSES]
    return " ".join(losses), " ".join(part for part in parts if part not in losses)
