"""Learned step size quantization (Esser et al. 2020, arXiv 1902.08153)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from isofire.errors import SpecError
from isofire.quantizers import grids, ranges
from isofire.quantizers.base import AffineQuantizer, Granularity, require_finite
from isofire.quantizers.grids import Affine
from isofire.quantizers.rows import along, to_rows

Init = Literal["mean", "mse"]
# How far below its calibrated value the step may fall.
_LEAST = 2.0**-10


class LSQ(AffineQuantizer):
    """Integers times a step that is trained with the weights: step * round(clamp(x / step, Qn, Qp)).

    With v = x / step and g = 1 / sqrt(N Qp), the gradients are (eqs. 3 and 5, section 2.2 of the paper)

    - d/dstep: g (round(v) - v) where Qn < v < Qp, else g Qn or g Qp, summed over the N elements that share the step;
    - d/dx: 1 where Qn < v < Qp, else 0.

    N counts one group's elements; of membrane states (channel_axis >= 1) those of one sample. The step can't reach
    zero: each training forward first lifts `step` to at least `floor`, 2^-10 of its calibrated value (not in compiled
    code), and every use takes the larger of both.

    Parameters
    ----------
    bits
        1..16; at least 2 if signed.
    signed
        Qn..Qp is -2^(bits-1)..2^(bits-1)-1 (two's complement) if True, else 0..2^bits-1.
    granularity, channels, channel_axis
        See `Quantizer`.
    init
        How `calibrate` sets the step: "mean", 2 mean|x| / sqrt(Qp), is the paper's start for training; "mse" has the
        least squared error among the candidates of `ranges.mse`, better without training.

    Raises
    ------
    SpecError
        If a setting is out of range.

    Examples
    --------
    >>> quantizer = LSQ(3)
    >>> quantizer.calibrate(torch.tensor([-1.0, 1.0]))
    >>> quantizer.affine().step
    tensor([1.1547])
    """

    floor: Tensor

    def __init__(
        self,
        bits: int,
        *,
        granularity: Granularity = "tensor",
        channels: int = 1,
        channel_axis: int = 0,
        signed: bool = True,
        init: Init = "mean",
    ) -> None:
        grids.check_bits(bits)
        if signed and bits < 2:
            raise SpecError(
                "LSQ needs bits >= 2 if signed, as for weights, got 1: no positive level is left; take 2 bits or, in a "
                "QuantSpec, another method; for values that are never negative there is LSQ(1, signed=False)"
            )
        if init not in ("mean", "mse"):
            raise SpecError(f"init must be 'mean' or 'mse', got {init!r}")
        super().__init__(bits, granularity=granularity, channels=channels, channel_axis=channel_axis)
        self.bits: int = bits
        self.signed = signed
        self.init: Init = init
        self.k_min = -(2 ** (bits - 1)) if signed else 0
        self.k_max = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.step = nn.Parameter(torch.ones(channels, dtype=torch.float32))
        self.register_buffer("floor", torch.full((channels,), _LEAST, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        self._checked(x)
        self._require_ready()
        if self.check_finite:
            require_finite(self.step.detach().float(), "the learned step of LSQ")
        # a compiled loop over time may be several graphs, and one must not write what another keeps for its gradient
        if self.learning and not torch.compiler.is_compiling():
            with torch.no_grad():
                self.step.clamp_(min=self.floor)
        affine = self.affine()
        if not (torch.is_grad_enabled() and (x.requires_grad or self.step.requires_grad)):
            return grids.fake_quantize(x.detach(), affine, self.axis).to(x.dtype)
        return _Lsq.apply(x, self.step, affine, self.axis, self._gradient_scale(x))  # type: ignore[return-value]

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the step from `x`; see `init`."""
        rows = self._rows_to_fit(x).values
        if self.init == "mse":
            grid = "twos_complement" if self.signed else "endpoint"
            lo, hi = ranges.mse(rows, self.bits, grid, signed=self.signed)
            step = grids.affine(lo, hi, self.bits, grid, check=False).step
        else:
            step = (2 * rows.abs().mean(1) / self.k_max**0.5).clamp(min=ranges.SMALLEST)
        self._store("step", step)
        self._store("floor", step * _LEAST)
        self.channels = step.numel()
        self._mark_ready()

    def affine(self) -> Affine:
        step = torch.maximum(self.step.detach(), self.floor).float()
        return Affine(torch.zeros_like(step), step, self.k_min, self.k_max)

    @property
    def is_fixed(self) -> bool:
        # with gradients on, the step has one of its own, in eval mode too
        return not torch.is_grad_enabled()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, signed={self.signed}, init={self.init!r}"

    def _gradient_scale(self, x: Tensor) -> float:
        samples = x.shape[0] if self.channel_axis and x.ndim > self.channel_axis else 1
        shared = max(1, x.numel() // max(1, samples * self.channels))
        return (shared * self.k_max) ** -0.5


class _Lsq(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, affine: Affine, axis: int | None, scale: float) -> Tensor:
        ctx.save_for_backward(x, affine.step)
        ctx.limits, ctx.axis, ctx.scale = (affine.k_min, affine.k_max), axis, scale
        ctx.step_dtype = step.dtype
        return grids.fake_quantize(x, affine, axis).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, step = ctx.saved_tensors
        k_min, k_max = ctx.limits
        v = x.float() / along(step, x.ndim, ctx.axis)
        inside = (v > k_min).logical_and_(v < k_max)
        to_x = grads[0] * inside if ctx.needs_input_grad[0] else None
        to_step = None
        if ctx.needs_input_grad[1]:
            slope = v.clamp(k_min, k_max).round_().sub_(v.masked_fill_(inside.logical_not(), 0))
            rows = to_rows(slope.mul_(grads[0]), ctx.axis).values
            to_step = rows.sum(1).mul_(ctx.scale).to(ctx.step_dtype)
        return to_x, to_step, None, None, None
