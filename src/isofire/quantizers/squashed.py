"""Signed levels around the rest, for potentials that go through tanh first, as in MINT and Q-SNN."""

from __future__ import annotations

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers import ste
from isofire.quantizers.base import Granularity
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.rows import along
from isofire.quantizers.table import Table
from isofire.quantizers.tabled import TableQuantizer


class SquashedLevels(TableQuantizer):
    """rest + unit a / n round(n clamp(tanh((V - rest) / unit) / a, -1, 1)), n = 2^(bits-1) - 1.

    The largest level is `a` units from the rest, the middle one at it. Its gradient is that of the clamped tanh,
    rounding passed straight through: 1 - tanh^2 where |tanh| <= a, else 0. The value that comes out is not widened
    again, as published: a stored potential is a little nearer to the rest than it was.

    Parameters
    ----------
    bits
        2..8.
    neuron
        Of the layer.
    squash
        False leaves out the tanh.
    granularity, channels
        See `Quantizer`; the channel axis is 1.
    """

    largest: Tensor
    unit: Tensor

    def __init__(
        self,
        bits: int,
        neuron: NeuronFacts,
        *,
        squash: bool = True,
        granularity: Granularity = "tensor",
        channels: int = 1,
    ) -> None:
        super().__init__(bits, granularity=granularity, channels=channels, channel_axis=1)
        self.steps = 2 ** (bits - 1) - 1
        self.rest = neuron.rest
        self.squash = squash
        self.register_buffer("largest", torch.ones(channels, dtype=torch.float32))
        self.register_buffer("unit", torch.tensor([neuron.reach], dtype=torch.float32))

    def _with_gradient(self, x: Tensor, q: Tensor) -> Tensor:
        largest, unit = along(self.largest.clone(), x.ndim, self.axis), self.unit.clone()

        def slope(x: Tensor) -> Tensor:
            t = self._squashed((x - self.rest) / unit)
            return (1 - t * t if self.squash else torch.ones_like(t)) * (t.abs() <= largest)

        return ste.sloped(x, q, slope)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Take the largest |tanh((V - rest) / unit)| of `x` as `a`, for each group."""
        rows = self._rows_to_fit(x).values
        self.set_largest(self._squashed((rows - self.rest) / self.unit).abs().amax(1))

    @torch.no_grad()
    def set_largest(self, largest: Tensor, unit: float | None = None) -> None:
        """Take these `a`, `[G]`, and this unit."""
        if unit is not None:
            self._store("unit", torch.tensor([unit], dtype=torch.float32))
        # where all potentials rest, any scale has that one level
        self._store("largest", largest.float().clamp(min=torch.finfo(torch.float32).tiny))
        self.channels = largest.numel()
        self._mark_ready()

    @property
    def is_fixed(self) -> bool:
        # the kernels know no gradient but 0 and 1
        return not (self.squash and torch.is_grad_enabled())

    def gradient_range(self) -> tuple[Tensor, Tensor] | None:
        if self.squash:
            return None
        reach = (self.largest * self.unit).float()
        return self.rest - reach, self.rest + reach

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}{', tanh' * self.squash}"

    def _squashed(self, u: Tensor) -> Tensor:
        return u.tanh() if self.squash else u

    def _table(self) -> Table:
        self._require_ready()
        places = torch.arange(-self.steps, self.steps + 1, device=self.largest.device, dtype=torch.float64)
        share = self.largest.double().unsqueeze(1) / self.steps
        edges = share * (places[:-1] + 0.5)
        if self.squash:
            # what no tanh reaches lies at infinity
            edges = edges.clamp(-1, 1).atanh()
        unit = self.unit.double()
        return Table((self.rest + unit * edges).float(), (self.rest + unit * share * places).float())


def check_bits(method: str, bits: int) -> None:
    """Raise SpecError if a signed grid of so many bits has no level but 0."""
    if bits < 2:
        raise SpecError(
            f"{method} needs bits >= 2, got {bits}: its signed levels reach to 2^(bits-1) - 1 steps, so that none is "
            "left; take 2 bits, or for one bit method 'firing', 'anchored' or 'lqnet'"
        )
