"""A learned step for membrane potentials: LSQ (Esser et al. 2020, arXiv 1902.08153), V_th held within reach."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isofire.quantizers.anchored import with_fire_code
from isofire.quantizers.base import Granularity, require_finite
from isofire.quantizers.neuron_facts import NeuronFacts
from isofire.quantizers.rows import along, to_rows
from isofire.quantizers.table import Table
from isofire.quantizers.tabled import TableQuantizer

_CANDIDATES = 64
_ALTERNATIONS = 5


class StateGrid(NamedTuple):
    """Which levels there are: `below` under the rest and `above` over it; at `pre_fire` one more that fires."""

    below: int
    above: int
    neuron: NeuronFacts
    fires: bool

    @property
    def count(self) -> int:
        return self.below + self.above + 1 + self.fires

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest step.

        With k levels above the rest: where the full potential is compared, the top level lies from one step below V_th
        to 1.5 V_th. Where it must not fire by itself, from about half of V_th, to half a step below it.
        """
        reach, k = self.neuron.reach, self.above
        return (reach / (2 * k + 1), reach / (k + 0.5)) if self.fires else (reach / (k + 1), 1.5 * reach / k)


class StateLSQ(TableQuantizer):
    """Levels rest + s j, j = -n..k, whose step s = 2^w is trained with the network.

    With v = (V - rest) / s and g = 1 / sqrt(N k), the gradients are LSQ's, taken to w = log2 s:

    - d/dw: g s ln 2 (round(v) - v) where -n < v < k, else g s ln 2 times -n or k, summed over the N potentials of one
      sample that share the step;
    - d/dV: 1 where -n < v < k, else 0. At `pre_fire`, a potential that fires passes its gradient on as it is and says
      nothing of the step.

    A logarithm makes the step of learning relative, so that thresholds of any size learn alike, and s positive. Each
    training forward first brings w back into the grid's bounds, which keep V_th reachable: LSQ alone would let the top
    level fall far below it, or climb over it, where a state would fire that should not.

    Parameters
    ----------
    grid
        The levels, for neurons of these facts.
    granularity, channels
        See `Quantizer`; the channel axis is 1.

    Examples
    --------
    >>> quantizer = StateLSQ(StateGrid(1, 2, NeuronFacts(), fires=False))
    >>> quantizer.calibrate(torch.tensor([[-0.4, 0.0, 0.8]]))
    >>> quantizer.levels()
    tensor([[-0.4000,  0.0000,  0.4000,  0.8000]])
    """

    def __init__(self, grid: StateGrid, *, granularity: Granularity = "tensor", channels: int = 1) -> None:
        super().__init__(math.log2(grid.count), granularity=granularity, channels=channels, channel_axis=1)
        self.grid = grid
        self.log_step = nn.Parameter(torch.zeros(channels, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        self._checked(x)
        self._require_ready()
        if self.check_finite:
            require_finite(self.log_step.detach().float(), "the learned step of lsq")
        # a compiled loop over time may be several graphs, and one must not write what another keeps for its gradient
        if self.learning and not torch.compiler.is_compiling():
            with torch.no_grad():
                self.log_step.clamp_(*map(math.log2, self.grid.bounds))
        with torch.no_grad():
            q = self._table().quantize(x.detach(), self.axis).to(x.dtype)
        if not (torch.is_grad_enabled() and (x.requires_grad or self.log_step.requires_grad)):
            return q
        return _StateLsq.apply(x, self.log_step, q, self._step(), self)  # type: ignore[return-value]

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Take a step of small squared error within the grid's bounds; potentials that fire do not count.

        The best of 64 is followed by alternating the nearest level and least squares.
        """
        rows = self._rows_to_fit(x).values
        low, high = self.grid.bounds
        best = torch.full((rows.shape[0],), torch.inf, dtype=torch.float64, device=rows.device)
        chosen = torch.zeros_like(best)
        for log_step in torch.linspace(math.log2(low), math.log2(high), _CANDIDATES).tolist():
            error = self._error(rows, 2.0**log_step)
            chosen = torch.where(error < best, log_step, chosen)
            best = torch.minimum(best, error)
        chosen = self._refined(rows, chosen.exp2()).log2()
        self._store("log_step", chosen)
        self.channels = chosen.numel()
        self._mark_ready()

    @property
    def is_fixed(self) -> bool:
        # with gradients on, the step has one of its own, in eval mode too
        return not torch.is_grad_enabled()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels {-self.grid.below}..{self.grid.above}{' + fires' * self.grid.fires}"

    def _step(self) -> Tensor:
        return self.log_step.detach().float().clamp(*map(math.log2, self.grid.bounds)).exp2()

    def _table(self) -> Table:
        self._require_ready()
        neuron, step = self.grid.neuron, self._step().unsqueeze(1)
        places = torch.arange(-self.grid.below, self.grid.above + 1, device=step.device)
        table = Table(neuron.rest + step * (places[:-1] + 0.5), neuron.rest + step * places)
        if not self.grid.fires:
            return table
        return with_fire_code(table, neuron, neuron.threshold + neuron.reach / (2 * self.grid.above + 1))

    def _refined(self, rows: Tensor, step: Tensor) -> Tensor:
        v = rows.double() - self.grid.neuron.rest
        if self.grid.fires:
            v = v.masked_fill(rows > self.grid.neuron.fire_edge, 0.0)
        for _ in range(_ALTERNATIONS):
            place = (v / step.unsqueeze(1)).clamp(-self.grid.below, self.grid.above).round_()
            weight = place.square().sum(1)
            step = torch.where(weight > 0, (place * v).sum(1) / weight.clamp(min=1), step).clamp(*self.grid.bounds)
        return step

    def _error(self, rows: Tensor, step: float) -> Tensor:
        """Mean squared error of each row, in float64."""
        grid = self.grid
        v = (rows - grid.neuron.rest) / step
        miss = (v.clamp(-grid.below, grid.above).round() - v).double().square_()
        if grid.fires:
            miss.masked_fill_(rows > grid.neuron.fire_edge, 0.0)
        return miss.mean(1) * step**2


class _StateLsq(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log_step: Tensor, q: Tensor, step: Tensor, own: StateLSQ) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.grid, ctx.axis, ctx.dtype = own.grid, own.axis, log_step.dtype
        shared = max(1, x.numel() // max(1, x.shape[0] * step.numel()))
        ctx.scale = (shared * own.grid.above) ** -0.5
        return q.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, step = ctx.saved_tensors
        grid = ctx.grid
        v = (x.float() - grid.neuron.rest) / along(step, x.ndim, ctx.axis)
        inside = (v > -grid.below).logical_and_(v < grid.above)
        fires = x > grid.neuron.fire_edge if grid.fires else torch.zeros_like(inside)
        to_x = grads[0] * (inside | fires) if ctx.needs_input_grad[0] else None
        to_step = None
        if ctx.needs_input_grad[1]:
            slope = v.clamp(-grid.below, grid.above).round_().sub_(v.masked_fill(~inside, 0)).masked_fill_(fires, 0)
            rows = to_rows(slope.mul_(grads[0]), ctx.axis).values
            to_step = (rows.sum(1) * step * (math.log(2) * ctx.scale)).to(ctx.dtype)
        return to_x, to_step, None, None, None
