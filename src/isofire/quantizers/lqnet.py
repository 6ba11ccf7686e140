"""LQ-Nets: levels spanned by a learned basis (Zhang et al. 2018, arXiv 1807.10029)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers import bins, qem
from isofire.quantizers.base import Granularity
from isofire.quantizers.counter import Counter
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.table import Table
from isofire.quantizers.tabled import FollowingQuantizer

Init = Literal["data", "official"]
MAX_BITS = 8


class LQNet(FollowingQuantizer):
    """Quantize to the 2^K levels v . e, e in {-1, +1}^K, of a basis v per output channel.

    A training forward (training mode, gradients on) quantizes with the current basis, then moves it: v' solves a ridge
    least-squares problem on the same tensor and its codes, and v becomes the moving average
    v + w (v' - v), w = (1 - ema) / (1 - ema^t) at the t-th update. So the first update replaces the start altogether,
    as in the official code (TensorFlow's zero-debias); `zero_debias=False` keeps w = 1 - ema. Bases are canonical
    (entries >= 0 and ascending) before they are averaged. A value on the midpoint of two levels takes the lower one.
    The gradient passes straight through, unclipped.

    A channel whose least squares are singular (condition number above 1e6 despite the ridge, as with equal values) is
    re-seeded: its basis becomes the uniform one whose outermost levels are its largest magnitude, without averaging.

    The basis is no parameter and gets no gradient. {-1, +1} codes have no zero level in general.

    Parameters
    ----------
    bits
        K, 1..8.
    granularity, channels, channel_axis
        See `Quantizer`.
    clip
        (lo, hi): clamp the input first. It changes nothing unless values lie outside.
    ema
        Decay of the moving average, in [0, 1).
    zero_debias
        See above.
    ridge
        Proximal ridge of the least squares, absolute, as in the official code.
    init
        Where `calibrate` starts. "data": each channel's best uniform mid-rise grid (see `ranges.mse`), so that the
        result never has a larger squared error than that grid; right for trained weights and any scale. "official":
        v_j = 2^j 0.6745 sigma / 2^(K-1) with sigma = sqrt(2 / fan_out), right only for weights drawn with that sigma.
    iterations
        Most alternations in `calibrate`. 0 stays at the start: with init="official", as the official training does.
    restarts
        Further starts in `calibrate`; each channel keeps the basis of least squared error. Without, 3 and more bits
        end in a nearly uniform optimum that is not the best: for a Gaussian its squared error is about 5 % higher at
        3 bits, 15 % at 4 and 20 % at 5. One restart gains most of that.
    seed
        Of the restarts.
    fan_out
        n of the official start. Default: from a weight `[C_out, C_in, k, k]` or `[C_out, C_in]`, k k C_out.

    Raises
    ------
    SpecError
        If a setting is out of range.

    Examples
    --------
    >>> quantizer = LQNet(1, granularity="tensor")
    >>> quantizer.calibrate(torch.tensor([-3.0, 1.0, 2.0]))
    >>> quantizer.levels()
    tensor([[-2.,  2.]])
    """

    basis: Tensor

    def __init__(
        self,
        bits: int,
        *,
        granularity: Granularity = "channel",
        channels: int = 1,
        channel_axis: int = 0,
        clip: tuple[float, float] | None = None,
        ema: float = 0.9,
        zero_debias: bool = True,
        ridge: float = 1e-4,
        init: Init = "data",
        iterations: int = 300,
        restarts: int = 0,
        seed: int = 0,
        fan_out: int | None = None,
    ) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
            raise SpecError(f"LQNet needs bits in 1..{MAX_BITS}, got {bits!r}; take Uniform for more")
        _check_numbers(ema, ridge, iterations, restarts, fan_out)
        if init not in ("data", "official"):
            raise SpecError(f"init must be 'data' or 'official', got {init!r}")
        if clip is not None and not clip[0] < clip[1]:
            raise SpecError(f"clip needs lo < hi, got {clip!r}; leave it out not to clip")
        super().__init__(bits, granularity=granularity, channels=channels, channel_axis=channel_axis)
        self.bits: int = bits
        self.clip = clip
        self.ema = ema
        self.zero_debias = zero_debias
        self.ridge = ridge
        self.init: Init = init
        self.iterations = iterations
        self.restarts = restarts
        self.seed = seed
        self.fan_out = fan_out
        self.updates = Counter()
        self.register_buffer("basis", torch.zeros(channels, bits, dtype=torch.float32))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Fit the bases to `x` by alternating to convergence; see `init`, `iterations` and `restarts`.

        Raises
        ------
        ModelError
            If `x` is empty or holds NaN or infinite values.
        SpecError
            If init="official" and neither `fan_out` nor a weight's shape says what n is.
        """
        rows = self._rows_to_fit(x).values
        fan_out = self.fan_out
        if fan_out is None and self.channel_axis == 0 and x.ndim >= 2:
            fan_out = x.shape[0] * x[0, 0].numel()
        self._fit(rows, fan_out)

    @torch.no_grad()
    def calibrate_from(self, observer: RangeObserver) -> None:
        """Fit the bases to an observer's sample.

        Raises
        ------
        ModelError
            If nothing was observed.
        SpecError
            If the observer groups elements in another way, or init="official" and `fan_out` is missing.
        """
        self._fit(self._observed(observer), self.fan_out)

    def _table(self) -> Table:
        self._require_ready()
        levels = qem.sorted_levels(self.basis.float())[0]
        edges = qem.midpoints(levels)
        if self.clip is not None:
            # a clamped value never exceeds the upper bound and always exceeds what lies below the lower one
            edges = edges.masked_fill(edges < self.clip[0], -torch.inf).masked_fill(edges >= self.clip[1], torch.inf)
        return Table(edges, levels)

    def extra_repr(self) -> str:
        clip = "" if self.clip is None else f", clip={self.clip}"
        return f"{super().extra_repr()}, ema={self.ema}, init={self.init!r}, restarts={self.restarts}{clip}"

    def _quantized(self, x: Tensor, learning: bool) -> Tensor:
        # what is learned from is clamped too
        return super()._quantized(self._clipped(x), learning)

    def _clipped(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(*self.clip)

    def _fit(self, rows: Tensor, fan_out: int | None) -> None:
        # On the CPU, so that every machine finds the same basis: sorted sums have no fixed order elsewhere.
        rows = self._clipped(rows).cpu()
        data = bins.SortedRows(rows)
        first = self._start(rows, fan_out)
        further = qem.further_starts(self.bits, data.energy, self.restarts, self.seed)
        basis, _ = qem.fit(data, [first, *further], ridge=self.ridge, iterations=self.iterations)
        self._store("basis", basis)
        self.channels = basis.shape[0]
        self.updates.value = 0
        self._mark_ready()

    def _start(self, rows: Tensor, fan_out: int | None) -> Tensor:
        if self.init == "data":
            return qem.uniform_start(self.bits, rows)
        if fan_out is None:
            raise SpecError("LQNet(init='official') needs fan_out for anything but a weight; pass it, or init='data'")
        return qem.paper_start(self.bits, rows.new_full((rows.shape[0],), (2 / fan_out) ** 0.5))

    def _follow(self, rows: Tensor, counts: Tensor, sums: Tensor) -> None:
        now, order = self.basis.double(), qem.sorted_levels(self.basis.float())[1]
        fitted, singular = qem.solve(now, counts, sums, order, self.ridge)
        self.updates.value += 1
        decay = self.ema**self.updates.value if self.zero_debias else 0.0
        moved = torch.lerp(now, fitted, (1 - self.ema) / (1 - decay))
        low, high = rows.aminmax(dim=1)
        seeded = qem.spanning_start(self.bits, torch.maximum(high, -low))
        self.basis.copy_(torch.where(singular.unsqueeze(1), seeded, moved))


def _check_numbers(ema: float, ridge: float, iterations: int, restarts: int, fan_out: int | None) -> None:
    if not 0 <= ema < 1:
        raise SpecError(f"ema must lie in [0, 1), got {ema!r}; 0 follows the last fit, 0.9 is the paper's")
    if not 0 <= ridge < float("inf"):
        raise SpecError(f"ridge must be >= 0 and finite, got {ridge!r}; 1e-4 is the official code's")
    for name, number, least in (("iterations", iterations, 0), ("restarts", restarts, 0), ("fan_out", fan_out, 1)):
        if number is not None and (not isinstance(number, int) or number < least):
            raise SpecError(f"{name} must be a whole number >= {least}, got {number!r}")
