"""`firing`: membrane levels chosen by how the layer then fires."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from isofire.errors import SpecError
from isofire.quantizers.base import Granularity
from isofire.quantizers.levels import Levels
from isofire.quantizers.registry import register_membrane
from isofire.quantizers.setting import MembraneSetting, Placement


@register_membrane
class FiringMembrane(MembraneSetting, frozen=True, kw_only=True, tag="firing"):
    """Levels and bin edges that keep the neurons' rates, chosen layer by layer from input to output.

    The rates are held against full precision's on the same images; `objective` "paired" compares neuron by neuron,
    "emd" the layer's (or channel's) distributions. Up to 8 stored levels are free, and so are the edges between them;
    of more the two ends of an even grid are searched. See `isofire.quantization.by_firing`. With `levels` fewer are
    kept than `bits` can tell apart: 3 with 2 bits are log2 3 = 1.58 bits.

    Hardware: charge and comparison see the full sum; `bits` are stored from step to step (`post_reset`). With
    `pre_fire` the threshold is a bin's edge, so decisions are exact, and one code means "fires", or with a soft reset,
    which leaves what lies above the threshold, a quarter of them; the others are stored.
    """

    max_bits: ClassVar[int] = 8
    chosen_by_firing: ClassVar[bool] = True
    own_range: ClassVar[str] = "learned"

    bits: int
    placement: Placement = "post_reset"
    granularity: Granularity = "tensor"
    objective: Literal["paired", "emd"] = "paired"
    levels: int | None = None

    def build(self, channels: int) -> Levels:
        own = channels if self.granularity == "channel" else 1
        fewer, most = 2 ** (self.bits - 1), 2**self.bits
        if self.levels is not None and not fewer < self.levels < most:
            fewest, cure = fewer + 1, f"leave it out for all {most}"
            if self.bits == 1:
                raise SpecError(f"levels has no place with bits = 1, which are 2 levels, got {self.levels}; {cure}")
            span = f"{fewest} to {most - 1}" if fewest < most - 1 else f"{fewest}"
            needed = math.ceil(math.log2(max(2, self.levels)))
            cure = cure if self.levels == most or self.levels < 2 else f"that many take bits = {needed}"
            raise SpecError(f"levels must be {span} with bits = {self.bits}, got {self.levels}; {cure}")
        return Levels(self.levels or most, granularity=self.granularity, channels=own, channel_axis=1)
