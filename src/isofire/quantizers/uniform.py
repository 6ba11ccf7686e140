"""Uniform quantization: one of four grids over a fixed range or one estimated from the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from isofire.errors import ModelError, SpecError
from isofire.quantizers import grids, ranges, ste
from isofire.quantizers.base import AffineQuantizer, Granularity
from isofire.quantizers.counter import Counter
from isofire.quantizers.grids import Affine, Grid
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.ranges import Distribution
from isofire.quantizers.rows import along

RangeRule = Literal["minmax", "percentile", "ksigma", "mse", "aciq"]
Ste = Literal["clipped", "plain"]
_REFRESH: dict[str, int] = {"minmax": 1, "ksigma": 1, "aciq": 1, "percentile": 100, "mse": 100}


class Uniform(AffineQuantizer):
    """Quantize to the nearest level of a uniform grid.

    A rule-based range is stored by `calibrate` in the buffers `lo` and `hi`, `[G]`. In training it follows the data:
    every `refresh` forwards, it is estimated anew from the tensor at hand. In eval mode, and without gradients, it is
    frozen. For membrane states pass `refresh=0` unless the range shall follow every single time step.

    Parameters
    ----------
    bits
        1..16.
    grid
        "endpoint", "midtread", "twos_complement" or "midrise"; see `grids.affine`.
    range
        (lo, hi), or the rule that finds it: a function of `isofire.quantizers.ranges`.
    percentile, k, distribution
        Settings of the rules of those names; `distribution` belongs to "aciq".
    signed
        Rules give [-c, c]; with False, [0, c] (grid "endpoint" only).
    granularity, channels, channel_axis
        See `Quantizer`. With a fixed range, channels=1 serves any number of channels.
    ste
        "clipped": no gradient outside [lo, hi]. "plain": gradient 1 everywhere.
    power_of_two
        Round the step to the nearest power of two; `lo` and `hi` then hold the range that this step gives.
    refresh
        Training forwards between two estimates; 0 freezes the range. Default: 1 for minmax, ksigma and aciq, 100 for
        percentile and mse, which cost more.

    Raises
    ------
    SpecError
        If a setting is out of range or contradicts another.

    Examples
    --------
    >>> quantizer = Uniform(2)
    >>> quantizer.levels()
    tensor([[-1.0000, -0.3333,  0.3333,  1.0000]])
    >>> quantizer.codes(torch.tensor([-7.0, 0.1, 0.9]))
    tensor([0, 2, 3], dtype=torch.int32)
    """

    lo: Tensor
    hi: Tensor

    def __init__(
        self,
        bits: int,
        *,
        grid: Grid = "endpoint",
        range: tuple[float, float] | RangeRule = (-1.0, 1.0),
        percentile: float = 99.9,
        k: float = 3.0,
        distribution: Distribution = "gaussian",
        signed: bool = True,
        granularity: Granularity = "tensor",
        channels: int = 1,
        channel_axis: int = 0,
        ste: Ste = "clipped",
        power_of_two: bool = False,
        refresh: int | None = None,
    ) -> None:
        grids.check_grid(grid, bits)
        rule = _check_range_setting(range, grid, signed, refresh)
        super().__init__(
            bits, granularity=granularity, channels=channels, channel_axis=channel_axis, calibrated=rule is None
        )
        if ste not in get_args(Ste):
            raise SpecError(f"ste must be 'clipped' or 'plain', got {ste!r}")
        ranges.check_percentile(percentile)
        ranges.check_k(k)
        ranges.check_distribution(distribution)
        self.bits: int = bits
        self.grid: Grid = grid
        self.rule: RangeRule | None = rule
        self.percentile = percentile
        self.k = k
        self.distribution: Distribution = distribution
        self.signed = signed
        self.ste: Ste = ste
        self.power_of_two = power_of_two
        self.refresh = (_REFRESH[rule] if rule else 0) if refresh is None else refresh
        self.age = Counter()
        lo, hi = (-1.0, 1.0) if isinstance(range, str) else range
        bounds = ranges.fixed(torch.empty(channels, 0), bits, grid, lo=lo, hi=hi)
        lo_buffer, hi_buffer = self._rounded(*bounds) if rule is None else bounds
        self.register_buffer("lo", lo_buffer)
        self.register_buffer("hi", hi_buffer)

    def forward(self, x: Tensor) -> Tensor:
        x32 = self._checked(x)
        if self.refresh and self.training:
            self._follow(x)
        self._require_ready()
        q = grids.fake_quantize(x32, self.affine(), self.axis).to(x.dtype)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return q
        if self.ste == "plain":
            return ste.plain(x, q)
        # Copies: the next estimate overwrites the buffers, possibly before this call's backward pass.
        lo, hi = (along(bound.float().clone(), x.ndim, self.axis) for bound in (self.lo, self.hi))
        return ste.clipped(x, q, lo, hi)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Estimate the range from `x`. A fixed range stays; only the number of channels is taken over."""
        self._set(*self._estimate(self._rows_to_fit(x).values))

    @torch.no_grad()
    def calibrate_from(self, observer: RangeObserver) -> None:
        """Estimate the range from streamed data: "minmax" from the exact extremes, other rules from the sample.

        Raises
        ------
        ModelError
            If nothing was observed.
        SpecError
            If the observer groups elements in another way.
        """
        samples = self._observed(observer)
        self._set(*self._estimate(observer.extremes() if self.rule == "minmax" else samples))

    def affine(self) -> Affine:
        return grids.affine(self.lo, self.hi, self.bits, self.grid, power_of_two=self.power_of_two, check=False)

    @property
    def is_fixed(self) -> bool:
        return not (self.training and self.refresh)

    def gradient_range(self) -> tuple[Tensor, Tensor] | None:
        return (self.lo.float(), self.hi.float()) if self.ste == "clipped" else None

    def extra_repr(self) -> str:
        if self.rule is None:
            span = f"range=({self.lo[0].item():g}, {self.hi[0].item():g})"
        else:
            span = f"range={self.rule!r}, refresh={self.refresh}"
        power = ", power_of_two" if self.power_of_two else ""
        return f"{super().extra_repr()}, grid={self.grid!r}, {span}, ste={self.ste!r}{power}"

    def _follow(self, x: Tensor) -> None:
        """Estimate the range anew if this training forward is due for it; the very first one is, gradients or not."""
        if not self._is_ready() or (self.learning and self.age.value >= self.refresh):
            self.calibrate(x)
        self.age.value += self.learning

    def _estimate(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        common = {"signed": self.signed}
        match self.rule:
            case None:
                return self.lo[:1].expand(rows.shape[0]), self.hi[:1].expand(rows.shape[0])
            case "minmax":
                bounds = ranges.minmax(rows, self.bits, self.grid, **common)
            case "percentile":
                bounds = ranges.percentile(rows, self.bits, self.grid, percentile=self.percentile, **common)
            case "ksigma":
                bounds = ranges.ksigma(rows, self.bits, self.grid, k=self.k, **common)
            case "mse":
                bounds = ranges.mse(rows, self.bits, self.grid, power_of_two=self.power_of_two, **common)
            case "aciq":
                bounds = ranges.aciq(rows, self.bits, self.grid, distribution=self.distribution, **common)
        return self._rounded(*bounds)

    def _rounded(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        if not self.power_of_two:
            return lo, hi
        return grids.bounds(grids.affine(lo, hi, self.bits, self.grid, power_of_two=True, check=False), self.grid)

    def _set(self, lo: Tensor, hi: Tensor) -> None:
        self._store("lo", lo)
        self._store("hi", hi)
        self.channels = lo.numel()
        self.age.value = 0
        self._mark_ready()

    def _same_for_all(self) -> bool:
        return self.rule is None and self.channels == 1

    def _require_ready(self) -> None:
        if not self._is_ready():
            raise ModelError(
                f"Uniform(range={self.rule!r}) has no range yet; call calibrate(x) before it is used, in a "
                "network isofire.calibrate(model, data), which returns a calibrated copy "
                "(isofire.quantization.calibrate_ calibrates the network itself), or run it in training mode with "
                "refresh >= 1"
            )


def _check_range_setting(range: object, grid: Grid, signed: bool, refresh: int | None) -> RangeRule | None:
    """Check what belongs together with the range; return its rule, or None when it is a pair of numbers."""
    rule: RangeRule | None = None
    if isinstance(range, str):
        if range not in get_args(RangeRule):
            raise SpecError(f"range must be (lo, hi) or one of {', '.join(get_args(RangeRule))}, got {range!r}")
        rule = range  # type: ignore[assignment]
        if not signed and grid != "endpoint":
            raise SpecError(f"signed=False needs grid 'endpoint', got {grid!r}: the other grids are symmetric about 0")
    elif not isinstance(range, Sequence) or len(range) != 2 or not all(isinstance(v, (int, float)) for v in range):
        raise SpecError(f"range must be two numbers (lo, hi) or the name of a rule, got {range!r}")
    elif not signed and range[0] < 0:
        raise SpecError(
            f"signed=False contradicts range={tuple(range)}, whose lower bound is negative; drop one of them"
        )
    if refresh is not None and (not isinstance(refresh, int) or refresh < 0):
        raise SpecError(f"refresh must be a whole number >= 0, got {refresh!r}; 0 freezes the range")
    if rule is None and refresh:
        raise SpecError(f"refresh={refresh} has nothing to estimate with a fixed range; name a rule, or drop it")
    return rule
