"""Whether a quantized network keeps accuracy and firing: the one function that decides it, from columns of rows.

Accuracy: the interval of the images lost less those won, against a margin. Firing: the interval of drift ÷ noise
floor, against another; what unchanged rates would show is taken off its lower end. Several seeds are judged by their
mean, see `isofire.firing.evidence.seed_spread`. Which floor a row has, `isofire.study.reference` says. Nothing is kept
of a baseline at chance: its accuracy is undecided at best, and so is the firing of a network with spikes in no rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from isofire.firing.evidence.chance import Chance
from isofire.firing.evidence.decisions import Decisions
from isofire.firing.evidence.interval import Interval
from isofire.firing.evidence.noise_floor import FloorValue, of_image_floor
from isofire.firing.evidence.outcome import FLOOR_IMAGES, HEADLINE, Margins, Outcome, outcome_of, together
from isofire.firing.evidence.seed_spread import SeedSpread, over_images, over_seeds_and_images, seed_spread
from isofire.firing.evidence.student import LEVEL
from isofire.firing.evidence.summary import DriftVsFloor

Row = Mapping[str, Any]
OpenBy = Literal["images", "seeds", "floor", "baseline", "neurons"]
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
    open_by
        What leaves it undecided: "seeds" if these images would decide it, were it not for how far seeds differ;
        "baseline" if that is at chance; "neurons" if some are in no rate.
    """

    accuracy: Outcome
    firing: Outcome | None
    drop: Interval
    multiple: Interval | None
    open_by: OpenBy | None = None

    @property
    def outcome(self) -> Outcome:
        """Of both together."""
        return together([self.accuracy, self.firing or "undecided"])

    @property
    def words(self) -> str:
        """The outcome, and of what, where it is not both: such as "fails firing"."""
        return words_of(self.columns())

    @property
    def told(self) -> tuple[str, str]:
        """Of accuracy and of firing, in words with their numbers."""
        drop, multiple = self.drop, self.multiple
        sign, word = (-100.0, "gained") if drop.estimate < 0 else (100.0, "lost")
        low, high = sorted((sign * drop.low, sign * drop.high))
        lost = f"{word} {sign * drop.estimate:.2f} points ({low:.2f} .. {high:.2f})"
        drift = "drift has no noise floor"
        if multiple is not None:
            drift = f"{multiple.estimate:.1f} times the noise floor ({multiple.low:.1f} .. {multiple.high:.1f})"
        return f"accuracy {self.accuracy}: {lost}", f"firing {self.firing or 'undecided'}: {drift}"

    def allowed(self, margins: Margins) -> str:
        """What may be lost, behind what was lost or gained."""
        loss = " loss" if self.drop.estimate < 0 else ""
        return f"allowed{loss} {100 * margins.accuracy:g}"

    def __str__(self) -> str:
        return "; ".join(self.told)

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


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """How far seeds of the settings of a sweep differ, of accuracy lost and of drift."""

    drop: SeedSpread | None = None
    drift: SeedSpread | None = None

    @classmethod
    def of(cls, settings: Sequence[Sequence[Row]], measure: str) -> Spreads:
        """Of settings that went through the same procedure, each the rows of its seeds."""
        varied = [rows for rows in map(_distinct, settings) if len(rows) > 1]
        return cls(
            drop=seed_spread([[drop_of(row) for row in rows] for rows in varied]),
            drift=seed_spread([[drift_of(row, measure) for row in rows] for rows in varied]),
        )


def kept(
    rows: Sequence[Row],
    floors: Sequence[FloorValue | None],
    margins: Margins | None = None,
    measure: str | None = None,
    spreads: Spreads | None = None,
) -> Kept:
    """Judge one setting by its rows, one a seed, each with its noise floor; None: it has none.

    Parameters
    ----------
    measure
        The drift, a column; by default `measure_of(rows)`.
    spreads
        How far seeds of such settings differ; by default as far as these rows do.
    """
    allowed, name = margins or Margins(), measure or measure_of(rows)
    pooled = spreads or Spreads.of([rows], name)
    distinct = _distinct(rows)
    drops, drifts = [drop_of(row) for row in distinct], [drift_of(row, name) for row in distinct]
    units = [_unit(floor) for floor in floors if floor is not None and floor.value > 0]
    known = len(units) == len(rows)
    drop = over_seeds_and_images(drops, pooled.drop)
    multiple = None
    if known:
        drift, unit = (over_seeds_and_images(parts, pooled.drift) for parts in (drifts, _alike(units)))
        multiple = _multiple(drift, unit)
    accuracy, firing = _outcomes(drop, multiple, allowed)
    if firing == "keeps" and any(row.get("firing_left_out") for row in rows):
        return Kept(accuracy=accuracy, firing="undecided", drop=drop, multiple=multiple,
                    open_by=None if accuracy == "fails" else "neurons")  # fmt: skip
    if accuracy == "keeps" and any(doubt_of(row) for row in rows):
        return Kept(accuracy="undecided", firing=firing, drop=drop, multiple=multiple,
                    open_by=None if firing == "fails" else "baseline")  # fmt: skip
    by_images = _outcomes(over_images(drops), _multiple(over_images(drifts), over_images(units)) if known else None,
                          allowed)  # fmt: skip
    return Kept(accuracy=accuracy, firing=firing, drop=drop, multiple=multiple,
                open_by=_open_by((accuracy, firing), by_images))  # fmt: skip


def _outcomes(drop: Interval, multiple: Interval | None, allowed: Margins) -> tuple[Outcome, Outcome | None]:
    firing = None if multiple is None else outcome_of(multiple.low, multiple.high, allowed.firing)
    return outcome_of(drop.low, drop.high, allowed.accuracy), firing


def _open_by(found: tuple[Outcome, Outcome | None], by_images: tuple[Outcome, Outcome | None]) -> OpenBy | None:
    if together([outcome or "undecided" for outcome in found]) != "undecided":
        return None
    if None in found:
        return "floor"
    return "images" if together([outcome or "undecided" for outcome in by_images]) == "undecided" else "seeds"


def _distinct(rows: Sequence[Row]) -> Sequence[Row]:
    """Rows of which seeds changed something; of a setting that no seed changes, one."""
    values = {(row["accuracy"], row["accuracy_fp"], row.get(HEADLINE), row.get(LAYER_MEAN)) for row in rows}
    return rows[:1] if len(values) == 1 else rows


def _alike(units: Sequence[Interval]) -> Sequence[Interval]:
    """The floor of one baseline is one floor, however many seeds are held against it."""
    return units[:1] if len({unit.estimate for unit in units}) == 1 else units


def _unit(floor: FloorValue) -> Interval:
    """As a unit, so what is noise of it is off its lower end already."""
    unit = floor.unit
    return Interval(estimate=unit.value, low=unit.low, high=unit.high, level=LEVEL, error=math.nan)


def _multiple(drift: Interval, unit: Interval) -> Interval:
    floor = FloorValue(value=unit.estimate, low=max(unit.low, 0.0), high=unit.high)
    return DriftVsFloor(interval=drift, floor=floor).multiple


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
    estimate, low, high = (number(row.get(key)) for key in (measure, f"{stem}_low", f"{stem}_high"))
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


def number(value: Any) -> float:
    """A row's value; NaN where it has none."""
    return math.nan if value is None else float(value)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
