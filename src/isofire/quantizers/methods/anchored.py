"""`anchored`: a membrane grid with the rest as a level and the threshold as a bin's edge."""

from __future__ import annotations

from typing import ClassVar

from isofire.quantizers.anchored import anchored_table, placed
from isofire.quantizers.base import Granularity
from isofire.quantizers.levels import Levels, Ste
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, Placement


@register_membrane
class AnchoredMembrane(MembraneSetting, frozen=True, kw_only=True, tag="anchored"):
    """Levels rest + j s, j = -n..k, with s = (V_th - rest) / (k + 1/2); nothing is chosen from data.

    Rounding to the nearest level at `pre_fire` moves the threshold to the middle of two levels, and one level at V_th
    itself is wasted at `post_reset`; here V_th is an edge, and a neuron at rest loses nothing. This project's, from its
    derivation of how placement shifts the threshold in effect.

    Hardware: charge and comparison see the full sum; `bits` are stored from step to step (`post_reset`). With
    `pre_fire` the comparison is one with the code: the highest means "fires", decisions are exact, and 2^bits - 1
    levels are stored.

    Parameters
    ----------
    above
        k, levels above the rest. Default: half of those that are stored, rounded down.
    """

    max_bits: ClassVar[int] = 8
    own_range: ClassVar[str] = "threshold"

    bits: int
    placement: Placement = "post_reset"
    above: int | None = None
    granularity: Granularity = "tensor"
    ste: Ste = "plain"

    @property
    def is_estimated(self) -> bool:
        return False

    def build_for(self, channels: int, neuron: NeuronFacts) -> Levels:
        below, above, fires = placed(self, neuron, self.above)
        levels = Levels(2**self.bits, granularity=self.granularity, channel_axis=1, ste=self.ste)
        # the same for any number of channels, as given levels are
        levels.set_table(anchored_table(below, above, neuron, fires=fires))
        return levels

    def table_numbers(self, groups: int) -> int:
        return 1
