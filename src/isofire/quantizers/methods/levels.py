"""`levels`: levels that need not lie on a grid, given in the spec or found by their squared error."""

from __future__ import annotations

import hashlib

from isofire.errors import SpecError
from isofire.quantizers.base import Granularity
from isofire.quantizers.levels import Levels, Ste
from isofire.quantizers.registry import register_membrane, register_weights
from isofire.quantizers.setting import MembraneSetting, Placement, WeightSetting

Numbers = tuple[float, ...]
_MOST_SHOWN = 8


class _Levels:
    """What the settings for weights and for membranes share."""

    __slots__ = ()
    bits: int | None
    levels: int | Numbers | None
    edges: Numbers | None
    granularity: Granularity

    def given(self) -> int | Numbers:
        """The levels, or their number."""
        if (self.bits is None) == (self.levels is None):
            raise SpecError(
                f"give either bits or levels, got bits={self.bits}, levels={self.levels}; "
                "levels = 3 is a number, levels = [-0.5, 0, 1] are the levels"
            )
        if self.levels is not None:
            return self.levels
        assert self.bits is not None
        return 2**self.bits

    def made(self, channels: int, channel_axis: int, ste: Ste = "plain") -> Levels:
        """The quantizer."""
        own = channels if self.granularity == "channel" else 1
        return Levels(
            self.given(),
            edges=self.edges,
            granularity=self.granularity,
            channels=own,
            channel_axis=channel_axis,
            ste=ste,
        )

    def table_numbers(self, groups: int) -> int:
        given = self.given()
        return len(given) if isinstance(given, tuple) else given * groups

    @property
    def range_label(self) -> str:
        return f"[{self.levels[0]:g}, {self.levels[-1]:g}]" if isinstance(self.levels, tuple) else "mse"

    @property
    def options_label(self) -> str | None:
        shown = {"levels": self.levels if isinstance(self.levels, tuple) else None, "edges": self.edges}
        parts = [f"{name}={_listed(numbers)}" for name, numbers in shown.items() if numbers is not None]
        ste = getattr(self, "ste", "plain")
        return " ".join([*parts, *([] if ste == "plain" else [f"ste={ste}"])]) or None


@register_weights
class LevelsWeights(_Levels, WeightSetting, frozen=True, kw_only=True, tag="levels"):
    """Free levels; see `isofire.quantizers.Levels`.

    `levels` are the levels themselves, the same for every channel, with `edges` between them (default: the midpoints);
    or only their number, and they are a local minimum of the squared error, by Lloyd's algorithm. `bits` is short for
    2^bits levels.
    """

    bits: int | None = None
    levels: int | Numbers | None = None
    edges: Numbers | None = None
    granularity: Granularity = "channel"

    def build(self, channels: int) -> Levels:
        return self.made(channels, 0)


@register_membrane
class LevelsMembrane(_Levels, MembraneSetting, frozen=True, kw_only=True, tag="levels"):
    """Free levels of the membrane potential; see `LevelsWeights` and `isofire.quantizers.Levels`.

    A potential on an edge takes the level below it. For a neuron that fires at v >= threshold, the edge that keeps the
    decision at `pre_fire` exact is therefore the float32 number just below the threshold.

    Hardware: charge sees the full sum, and a table of L - 1 edges, or comparisons, gives the code; log2(L) bits are
    stored from step to step. At `pre_fire` the level is what is compared with the threshold, at `post_reset` the sum.
    """

    bits: int | None = None
    levels: int | Numbers | None = None
    edges: Numbers | None = None
    placement: Placement = "pre_fire"
    granularity: Granularity = "tensor"
    ste: Ste = "plain"

    @property
    def is_estimated(self) -> bool:
        return not isinstance(self.levels, tuple)

    def build(self, channels: int) -> Levels:
        return self.made(channels, 1, self.ste)


def _listed(numbers: Numbers) -> str:
    """All of a few numbers; of many, the ends and a hash that tells them from others."""
    shown = [f"{number:.9g}" for number in numbers]
    if len(shown) <= _MOST_SHOWN:
        return f"[{','.join(shown)}]"
    return f"[{shown[0]},...,{shown[-1]}]#{hashlib.sha256(','.join(shown).encode()).hexdigest()[:8]}"
