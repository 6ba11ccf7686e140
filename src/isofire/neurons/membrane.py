"""Where and how a neuron's membrane potential is quantized."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.quantizers import Quantizer, RangeObserver, Uniform

Placement = Literal["pre_fire", "post_reset"]


class MembraneQuantizer(nn.Module):
    """A quantizer and its place in the step charge -> fire -> reset.

    Parameters
    ----------
    quantizer
        Applied to states [N, C, ...] (`channel_axis=1`).
    placement
        "pre_fire": the quantized value is compared with the threshold, reset and stored (the paper, snnTorch).
        "post_reset": the comparison sees the full value, only the stored state is quantized (MINT, Q-SNN).

    While `observer` is set, states pass unchanged and are shown to it (calibration).
    """

    def __init__(self, quantizer: Quantizer, placement: Placement) -> None:
        super().__init__()
        if placement not in get_args(Placement):
            raise SpecError(f"placement must be one of {', '.join(get_args(Placement))}, got {placement!r}")
        if quantizer.axis not in (None, 1):
            raise SpecError(f"a membrane's channels lie on axis 1 of [N, C, ...], got channel_axis={quantizer.axis}")
        self.quantizer = quantizer
        self.placement: Placement = placement
        self.observer: RangeObserver | None = None

    @property
    def is_fixed_affine(self) -> bool:
        """Whether the fast paths can run it: levels on a frozen uniform grid, nothing to learn or observe."""
        if self.observer is not None or not isinstance(self.quantizer, Uniform):
            return False
        return not (self.quantizer.training and self.quantizer.refresh)

    def forward(self, state: Tensor) -> Tensor:
        """Quantized state, same shape."""
        if self.observer is not None:
            self.observer.observe(state.detach())
            return state
        return self.quantizer(state)

    def extra_repr(self) -> str:
        return f"placement={self.placement!r}"
