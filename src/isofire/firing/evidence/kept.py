"""Whether a quantized network keeps accuracy and firing: the one function that decides it, from columns of rows.

Accuracy: the interval of the images lost less those won, against a margin. Firing: the interval of drift ÷ noise
floor, against another; what unchanged rates would show is taken off its lower end. Several seeds are judged by their
mean. Which floor a row has, `isofire.study.reference` says. Nothing
is kept of a baseline at chance: its accuracy is undecided at best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isofire.firing.evidence.chance import Chance
from isofire.firing.evidence.decisions import Decisions
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.noise_floor import FloorValue, of_image_floor
from isofire.firing.evidence.outcome import FLOOR_IMAGES, HEADLINE, Margins, Outcome, outcome_of, together
from isofire.firing.evidence.seeds import over_seeds
from isofire.firing.evidence.student import LEVEL
from isofire.firing.evidence.summary import DriftVsFloor

Row = Mapping[str, Any]
LAYER_MEAN = "emd_layer_mean"
_BLOCKS = 40
"""Of a recording, where a row does not say in how many blocks its images lay."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of accuracy and firing.

    Parameters
    ----------
    accuracy, firing
        Outcome of each; None of firing without a noise floor, which leaves the whole undecided.
    drop
        Accuracy lost, a share of images, with its interval.
    multiple
        Drift ÷ noise floor with its interval; None without a floor.
    """

    accuracy: Outcome
    firing: Outcome | None
    drop: Interval
    multiple: Interval | None

    @property
    def outcome(self) -> Outcome:
        """Of both together."""
        return together([self.accuracy, self.firing or "undecided"])

    @property
    def words(self) -> str:
        """The outcome, and of what, where it is not both: such as "fails firing"."""
        return words_of(self.columns())

    def columns(self) -> dict[str, Any]:
        """For a row of results."""
        multiple = self.multiple
        return {
            "accuracy_drop_low": self.drop.low,
            "accuracy_drop_high": self.drop.high,
            "drift_over_floor": None if multiple is None else _known(multiple.estimate),
            "drift_over_floor_low": None if multiple is None else _known(multiple.low),
            "drift_over_floor_high": None if multiple is None else _known(multiple.high),
            "keeps_accuracy": self.accuracy,
            "keeps_firing": self.firing,
            "kept": self.outcome,
        }


COLUMNS = (
    "accuracy_drop_low", "accuracy_drop_high", "drift_over_floor", "drift_over_floor_low", "drift_over_floor_high",
    "keeps_accuracy", "keeps_firing", "kept",
)  # fmt: skip
"""What `Kept.columns` adds to a row."""


def kept(
    rows: Sequence[Row],
    floors: Sequence[FloorValue | None],
    margins: Margins | None = None,
    measure: str | None = None,
) -> Kept:
    """Judge one setting by its rows, one a seed, each with its noise floor; None: it has none.

    Parameters
    ----------
    measure
        The drift, a column; by default `measure_of(rows)`.
    """
    allowed = margins or Margins()
    drop = _mean([drop_of(row) for row in rows])
    accuracy = outcome_of(drop.low, drop.high, allowed.accuracy)
    if accuracy == "keeps" and any(doubt_of(row) for row in rows):
        accuracy = "undecided"
    known = [floor for floor in floors if floor is not None and floor.value > 0]
    if len(known) < len(rows):
        return Kept(accuracy=accuracy, firing=None, drop=drop, multiple=None)
    name = measure or measure_of(rows)
    drift = _mean([drift_of(row, name) for row in rows])
    multiple = DriftVsFloor(interval=drift, floor=_mean_floor(known)).multiple
    return Kept(
        accuracy=accuracy,
        firing=outcome_of(multiple.low, multiple.high, allowed.firing),
        drop=drop,
        multiple=multiple,
    )


def doubt_of(row: Row) -> str | None:
    """Why the baseline of a row is no reference, see `Chance.doubt`; None if it is one, or the row does not say."""
    chance = Chance.of_row(row)
    return None if chance is None else chance.doubt


def words_of(row: Row) -> str:
    """The verdict of a row that has one: its outcome, and of what, where it is not both.

    Examples
    --------
    >>> words_of({"kept": "fails", "keeps_accuracy": "keeps", "keeps_firing": "fails"})
    'fails firing'
    >>> words_of({"kept": "keeps", "keeps_accuracy": "keeps", "keeps_firing": "keeps"})
    'keeps'
    """
    of = [name for name in ("accuracy", "firing") if (row[f"keeps_{name}"] or "undecided") == row["kept"]]
    return row["kept"] if len(of) == 2 else f"{row['kept']} {of[0]}"


def measure_of(rows: Sequence[Row]) -> str:
    """The drift that rows are judged by; rows of isofire 0.1 have an interval of the mean over layers alone."""
    return HEADLINE if all(row.get(f"{HEADLINE}_low") is not None for row in rows) else LAYER_MEAN


def drop_of(row: Row) -> Interval:
    """Accuracy lost on a row's images, from those lost and won.

    Where a row does not have them, as in isofire 0.1, all images on which the two networks disagree are taken for lost
    or won: the interval is then too wide rather than too narrow.
    """
    n = int(row["n_images"])
    lost, won = row.get("images_lost"), row.get("images_won")
    agreeing = round(row["agreement"] * n) if row.get("agreement") is not None else 0
    if lost is None or won is None:
        net = round((row["accuracy_fp"] - row["accuracy"]) * n)
        apart = max(n - agreeing, abs(net))
        lost, won = (apart + net + 1) // 2, (apart - net + 1) // 2
    return Decisions(images=n, lost=int(lost), won=int(won), agreeing=agreeing).accuracy_drop(LEVEL)


def drift_of(row: Row, measure: str) -> Interval:
    """A drift with its interval and noise, as a row has them; NaN ends where it has none.

    Rows of isofire 0.1 have `emd_bias`. Their ends are for unlimited images: the upper is t standard errors above the
    estimate less the bias, so from it the standard errors themselves are known again.
    """
    stem = measure if measure != LAYER_MEAN else "emd"
    estimate, low, high = (_number(row.get(key)) for key in (measure, f"{stem}_low", f"{stem}_high"))
    if stem == "emd" and row.get("emd_bias") is not None:
        half = high - estimate + row["emd_bias"]
        low, high = max(estimate - half, 0.0), estimate + half
    noise = row.get(f"{stem}_noise")
    return Interval(estimate=estimate, low=low, high=high, level=LEVEL, error=math.nan, noise=noise or 0.0)


def own_floor(row: Row, measure: str) -> FloorValue | None:
    """The noise floor in a row's own columns; None where it has none.

    Rows of isofire 0.1 have an image floor of as many images as were looked at; it falls with their square root.
    """
    stem = measure if measure != LAYER_MEAN else "emd"
    value = row.get(f"{stem}_floor")
    if value is None or not value > 0:
        return None
    low, high = row.get(f"{stem}_floor_low"), row.get(f"{stem}_floor_high")
    if low is not None and high is not None:
        return FloorValue(value=value, low=low, high=high)
    if row.get("floor") != "images":
        return FloorValue(value=value)
    n = int(row["n_images"])
    return of_image_floor(value * math.sqrt(n / FLOOR_IMAGES), min(n, _BLOCKS))


def _mean(parts: Sequence[Interval]) -> Interval:
    """Over seeds: Student's t, or the mean half interval over images where that is more."""
    if len(parts) == 1:
        return parts[0]
    over, n = over_seeds([part.estimate for part in parts], level=LEVEL), len(parts)
    below = max(over.half_width, sum(part.estimate - part.low for part in parts) / n)
    above = max(over.half_width, sum(part.high - part.estimate for part in parts) / n)
    noise = sum(part.noise for part in parts) / n
    return Interval(
        estimate=over.estimate, low=over.estimate - below, high=over.estimate + above, level=LEVEL, error=over.error,
        noise=noise,
    )  # fmt: skip


def _mean_floor(floors: Sequence[FloorValue]) -> FloorValue:
    """As a unit, so what is noise of it is off its lower end already."""
    units = [floor.unit for floor in floors]
    found = _mean(
        [Interval(estimate=unit.value, low=unit.low, high=unit.high, level=LEVEL, error=math.nan) for unit in units]
    )
    return FloorValue(value=found.estimate, low=max(found.low, 0.0), high=found.high)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
