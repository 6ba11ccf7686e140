"""`firing`: membrane levels chosen by how the layer then fires."""

from __future__ import annotations

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
            raise SpecError(
                f"levels must lie between {fewer} and {most}, what {self.bits - 1} and {self.bits} bits tell apart, "
                f"got {self.levels}; leave it out for all {most}"
            )
        return Levels(self.levels or most, granularity=self.granularity, channels=own, channel_axis=1)
