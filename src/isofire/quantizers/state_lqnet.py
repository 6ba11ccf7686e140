"""LQ-Nets' learned levels for membrane potentials, with what makes them stable there.

The published quantizer, put on a membrane, makes training collapse: it moves its levels after every batch, and the
threshold in effect is the middle of the two levels around V_th, which jumps for all neurons of a layer at once when a
level passes V_th. If the highest level ends below V_th, nothing ever fires again, and a silent layer has no gradient to
get back.

Here V_th is a bin's edge whatever the levels are, so that decisions are exact; the rest is a level; potentials that
have fired or rest do not pull at the levels; and what is averaged is not the basis but what it is computed from.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isofire.quantizers import bins, signed_basis
from isofire.quantizers.anchored import with_fire_code
from isofire.quantizers.base import Granularity
from isofire.quantizers.counter import Counter
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.qem import midpoints
from isofire.quantizers.table import Table
from isofire.quantizers.tabled import FollowingQuantizer

Statistics = Literal["moments", "histogram"]
BINS = 512
"""Bins of the running histogram."""
KEPT = 0.99
"""Share of the averages that a call leaves; the other comes from its own states."""
EVERY = 16
"""Calls between two updates of the basis: several forward passes, so that levels hardly move within one."""
_ITERATIONS = 100
_SPAN = 4.0


class StateLQNet(FollowingQuantizer):
    """Levels rest + v . e, e in {0, 1}^K, of a basis v that follows the states while training (arXiv 1807.10029).

    A training forward (training mode, gradients on) adds its states to a running average, and every 16th moves the
    basis to where that average says. "moments": of G = E[e e^T] and r = E[e (V - rest)] with the codes of the time, and
    v = (G + eps I)^-1 (r + eps v). "histogram": of the states in 512 bins, on which assignment and least squares
    alternate to convergence. The gradient is straight through.

    Parameters
    ----------
    bits
        K, 1..8.
    neuron
        Of the layer.
    fires
        Whether the highest of the 2^K codes stands for every potential that fires (`pre_fire`).
    statistics
        See above.
    granularity, channels
        See `Quantizer`; the channel axis is 1.

    Examples
    --------
    >>> quantizer = StateLQNet(2, NeuronFacts(), fires=False)
    >>> quantizer.calibrate(torch.tensor([[-0.5, 0.0, 0.3, 0.8]]))
    >>> quantizer.levels()
    tensor([[-0.5000,  0.0000,  0.3000,  0.8000]])
    """

    basis: Tensor
    gram: Tensor
    target: Tensor
    histogram: Tensor

    def __init__(
        self,
        bits: int,
        neuron: NeuronFacts,
        *,
        fires: bool,
        statistics: Statistics = "moments",
        granularity: Granularity = "tensor",
        channels: int = 1,
    ) -> None:
        super().__init__(bits, granularity=granularity, channels=channels, channel_axis=1)
        self.bits: int = bits
        self.neuron = neuron
        self.fires = fires
        self.statistics: Statistics = statistics
        self.calls = Counter()
        self.register_buffer("basis", torch.zeros(channels, bits, dtype=torch.float32))
        # what the other kind of statistics keeps is empty
        kept = {"gram": (channels, bits, bits), "target": (channels, bits), "histogram": (channels, BINS)}
        for name, shape in kept.items():
            used = (name == "histogram") == (statistics == "histogram")
            self.register_buffer(name, torch.zeros(shape if used else 0, dtype=torch.float32))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Fit the bases to `x` by alternating to convergence from even grids; start the averages from it."""
        rows = self._rows_to_fit(x).values
        # on the CPU, so that every machine finds the same basis: sorted sums have no fixed order elsewhere
        relative = self._relative(rows).cpu()
        data = bins.SortedRows(relative)
        first = signed_basis.starts(self.bits, self.neuron.reach, len(rows))
        basis = signed_basis.fit(data, first, self._stored, _ITERATIONS)
        self._store("basis", basis)
        self.channels = len(basis)
        self.calls.value = 0
        if self.statistics == "histogram":
            self._store("histogram", self._histogram(rows).cpu())
        else:
            levels, order = signed_basis.sorted_levels(basis)
            counts, sums = data.cells(midpoints(levels[:, : self._stored]))
            gram, target = signed_basis.moments(counts / data.n, sums / data.n, order, self.bits)
            self._store("gram", gram)
            self._store("target", target)
        self._mark_ready()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.statistics}{', the highest fires' * self.fires}"

    @property
    def _stored(self) -> int:
        """How many of the codes hold a state."""
        return 2**self.bits - self.fires

    def _table(self) -> Table:
        self._require_ready()
        levels = signed_basis.sorted_levels(self.basis.double())[0][:, : self._stored] + self.neuron.rest
        if self.neuron.v_reset is not None or self.fires:
            # nothing that has not fired is stored above the threshold
            levels = levels.clamp(max=self.neuron.fire_edge)
        table = Table(midpoints(levels).float(), levels.float())
        return (
            with_fire_code(table, self.neuron, self.neuron.threshold + self.neuron.reach / 4) if self.fires else table
        )

    def _relative(self, rows: Tensor) -> Tensor:
        """Rows relative to the rest; what has fired counts as being there."""
        relative = rows - self.neuron.rest
        return relative.masked_fill(rows > self.neuron.fire_edge, 0.0) if self.fires else relative

    def _follow(self, rows: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Take the states of a call into the averages, and move the basis if it is time."""
        if self.statistics == "histogram":
            self.histogram.lerp_(self._histogram(rows), 1 - KEPT)
        else:
            counts, sums = counts[:, : self._stored], sums[:, : self._stored]
            order = signed_basis.sorted_levels(self.basis.double())[1]
            relative = sums - self.neuron.rest * counts
            gram, target = signed_basis.moments(counts / rows.shape[1], relative / rows.shape[1], order, self.bits)
            self.gram.lerp_(gram.to(self.gram), 1 - KEPT)
            self.target.lerp_(target.to(self.target), 1 - KEPT)
        self.calls.value += 1
        if self.calls.value % EVERY == 0:
            self.basis.copy_(self._moved())

    def _moved(self) -> Tensor:
        now = self.basis.double()
        if self.statistics == "moments":
            return signed_basis.solve(now, self.gram.double(), self.target.double())
        data = _Counted(self.histogram.double().cpu(), self._centres().cpu())
        return signed_basis.fit(data, [now.cpu()], self._stored, _ITERATIONS).to(now.device)  # type: ignore[arg-type]

    def _ends(self) -> tuple[float, float]:
        """Where the histogram begins and ends, relative to the rest."""
        reach = self.neuron.reach
        return -_SPAN * reach, reach if self.neuron.v_reset is not None or self.fires else _SPAN * reach

    def _centres(self) -> Tensor:
        low, high = self._ends()
        return low + (torch.arange(BINS, dtype=torch.float64) + 0.5) * ((high - low) / BINS)

    def _histogram(self, rows: Tensor) -> Tensor:
        """Share of the states in each bin, `[G, 512]`; those at rest, and those that have fired, are left out."""
        low, high = self._ends()
        relative = self._relative(rows)
        place = ((relative - low) * (BINS / (high - low))).long().clamp_(0, BINS - 1)
        place += torch.arange(len(rows), device=rows.device).unsqueeze(1) * BINS
        kept = (relative != 0).to(torch.float32)
        found = torch.zeros(len(rows) * BINS, dtype=torch.float32, device=rows.device).index_add_(
            0, place.flatten(), kept.flatten()
        )
        return found.view(len(rows), BINS) / rows.shape[1]


class _Counted:
    """A histogram, as `SortedRows` is asked."""

    def __init__(self, shares: Tensor, centres: Tensor) -> None:
        self.n = 1.0
        self._centres = centres
        self._shares = torch.nn.functional.pad(shares.cumsum(1), (1, 0))
        self._sums = torch.nn.functional.pad((shares * centres).cumsum(1), (1, 0))
        self.energy = (shares * centres.square()).sum(1)

    def cells(self, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        groups = len(self._shares)
        ends = torch.searchsorted(self._centres, thresholds.contiguous(), right=True)
        ends = torch.cat([torch.zeros_like(ends[:, :1]), ends, torch.full_like(ends[:, :1], len(self._centres))], 1)
        ends = ends.expand(groups, -1)
        return self._shares.gather(1, ends).diff(dim=1), self._sums.gather(1, ends).diff(dim=1)
