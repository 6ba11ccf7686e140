"""Temporal-adaptive ternary weights: each time step sees its own (TaWQ, Zhang et al. 2025, arXiv 2511.17567)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isofire.errors import ModelError, SpecError
from isofire.quantizers.grids import check_codes
from isofire.quantizers.temporal import TemporalQuantizer

_MOST_STEPS = 65_536
"""As of networks; weights and scales of each step are kept."""

Scale = Literal["inverse_density", "mse"]


class TaWQ(TemporalQuantizer):
    """Pass a weight through a signed, leaky neuron for T steps; its spikes are the ternary weights of each step.

    With w' = (w - mean(w)) / std(w) over the whole layer, V = 0 at first, and for t = 1..T:

    - V <- V + (w' - V) / 2
    - o_t = 1 if V > 1/4, -1 if V < -1/4, else 0. The released code averages two signs and so yields +-1/2 at V = +-1/4
      exactly; here a tie is 0, which keeps the weights ternary.
    - V <- 0 where o_t != 0 (hard reset; no gradient through the reset).

    Output t is a scale per output channel times o_t. The gradient of each of the two signs is that of a sigmoid, as in
    the released code: do/dV = (s'(V - 1/4) + s'(V + 1/4)) / 2, s'(u) = alpha sigmoid(alpha u) (1 - sigmoid(alpha u)).
    It flows through the normalisation but not through the scale.

    Parameters
    ----------
    steps
        T, 1..65,536.
    scale
        "inverse_density": 1 / (mean|o_t| + 1e-6), as released; it ignores the weight's own magnitude, which a
        batch-norm after the layer undoes. "mse": <w, o_t> / <o_t, o_t>, the least-squares scale, which keeps the
        magnitude and suits quantization without training. Per step and output channel; a channel without spikes is 0.
    channels
        Output channels, for the shape of the buffer `scales`.
    alpha
        Steepness of the surrogate gradient.

    Attributes
    ----------
    scales
        `[T, C_out]`, from the latest `forward`, `codes` or `calibrate`; `decode` and `levels` use them.

    Raises
    ------
    SpecError
        If a setting is out of range.

    Examples
    --------
    >>> quantizer = TaWQ(2, scale="mse", channels=1)
    >>> quantizer(torch.tensor([[-3.0, -1.0, 1.0, 3.0]]))
    tensor([[[-3.,  0.,  0.,  3.]],
    <BLANKLINE>
            [[-2., -2.,  2.,  2.]]])
    """

    scales: Tensor

    def __init__(self, steps: int, *, scale: Scale = "inverse_density", channels: int = 1, alpha: float = 4.0) -> None:
        if not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
            raise SpecError(
                f"steps must be a whole number in 1..{_MOST_STEPS:,}, got {steps!r}; take the network's number of time "
                "steps"
            )
        if scale not in ("inverse_density", "mse"):
            raise SpecError(f"scale must be 'inverse_density' or 'mse', got {scale!r}")
        if not 0 < alpha < math.inf:
            raise SpecError(f"alpha must be positive and finite, got {alpha!r}")
        super().__init__(steps, 3, channels=channels)
        self.scale: Scale = scale
        self.alpha = alpha
        self.register_buffer("scales", torch.zeros(steps, channels, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return `[T, *x.shape]` ternary weights times their scales, in the dtype of `x`."""
        self._checked(x)
        spikes = _spikes(x.float(), self.steps, self.alpha)
        scales = self._scales(x, spikes)
        return (spikes * along_steps(scales, spikes)).to(x.dtype)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Store the scales of `x`; nothing else has to be chosen."""
        self._rows_to_fit(x)
        self._scales(x, _spikes(x.float(), self.steps, self.alpha))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Return `[T, *x.shape]` int32: 0, 1, 2 for o = -1, 0, 1."""
        self._checked(x)
        spikes = _spikes(x.float(), self.steps, self.alpha)
        self._scales(x, spikes)
        return spikes.to(torch.int32).add_(1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the values of `[T, C_out, ...]` codes under the latest scales."""
        self._require_ready()
        check_codes(codes, 3)
        if codes.ndim < 2 or codes.shape[:2] != self.scales.shape:
            raise ModelError(
                f"TaWQ holds scales for {tuple(self.scales.shape)}, got codes of shape {tuple(codes.shape)}"
            )
        spikes = codes.float() - 1
        return spikes * along_steps(self.scales.float(), spikes)

    @torch.no_grad()
    def levels(self) -> Tensor:
        """Return `[T, C_out, 3]`: -scale, 0, scale."""
        self._require_ready()
        return self.scales.float().unsqueeze(2) * torch.tensor(
            [-1.0, 0.0, 1.0], dtype=torch.float32, device=self.scales.device
        )

    def extra_repr(self) -> str:
        return f"steps={self.steps}, scale={self.scale!r}, channels={self.channels}, alpha={self.alpha:g}"

    @torch.no_grad()
    def _scales(self, x: Tensor, spikes: Tensor) -> Tensor:
        flat = spikes.detach().flatten(2) if spikes.ndim > 2 else spikes.detach().unsqueeze(2)
        if self.scale == "inverse_density":
            scales = 1 / (flat.abs().mean(2) + 1e-6)
        else:
            rows = x.detach().float().reshape(x.shape[0], -1)
            scales = (flat * rows).sum(2) / flat.abs().sum(2).clamp_(min=1)
        self._store("scales", scales)
        self.channels = scales.shape[1]
        self._mark_ready()
        return scales


def along_steps(scales: Tensor, spikes: Tensor) -> Tensor:
    """View `[T, C]` scales so that they broadcast against `[T, C, ...]`."""
    return scales.reshape(*scales.shape, *[1] * (spikes.ndim - 2))


def _spikes(weight: Tensor, steps: int, alpha: float) -> Tensor:
    """Return the signed spikes `[T, *weight.shape]` of the normalised weight, with surrogate gradient."""
    spread, mean = torch.std_mean(weight, correction=min(1, weight.numel() - 1))
    # A constant weight has nothing to normalise by and must stay silent instead of becoming NaN.
    drive = (weight - mean) / spread.clamp(min=torch.finfo(weight.dtype).tiny)
    potential = torch.zeros_like(drive)
    spikes = []
    for _ in range(steps):
        potential = potential + (drive - potential) / 2
        spike: Tensor = _Ternary.apply(potential, alpha)  # type: ignore[assignment]
        potential = potential * (1 - spike.detach().abs())
        spikes.append(spike)
    return torch.stack(spikes)


class _Ternary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, potential: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(potential)
        ctx.alpha = alpha
        return (potential > 0.25).to(potential.dtype) - (potential < -0.25).to(potential.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (potential,) = ctx.saved_tensors
        slope = torch.zeros_like(potential)
        for edge in (-0.25, 0.25):
            s = torch.sigmoid(ctx.alpha * (potential - edge))
            slope += ctx.alpha / 2 * s * (1 - s)
        return grads[0] * slope, None
