"""Where and how a neuron's membrane potential is quantized."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError
from isofire.neurons.fast_path import in_a_graph, in_a_trace
from isofire.neurons.state_quantizer import AffineState, StateQuantizer, TableState
from isofire.quantizers import AffineQuantizer, Quantizer, RangeObserver, Table

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

    While `observer` is set, states pass unchanged and are shown to it (calibration). While `passes` is set they pass
    unchanged, as if there were no quantizer: any path then runs the neuron.
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
        self.passes = False
        self._kept: tuple[_Seen, Table] | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether the next call is a fixed map of each value, nothing to learn or observe: the fast paths run that."""
        return self.observer is None and not self.passes and self.quantizer.is_fixed

    def fixed_state(self, state: Tensor) -> StateQuantizer:
        """The map that `forward` makes of `state` while `is_fixed`, for the fast paths.

        Raises
        ------
        ModelError
            If the quantizer is not calibrated, or for another number of channels.
        """
        self.quantizer._require_ready()
        self.quantizer._check_shape(state)
        span = self.quantizer.gradient_range()
        if isinstance(self.quantizer, AffineQuantizer):
            return AffineState(self.placement, span, self.quantizer.affine())
        return TableState(self.placement, span, self._table())

    def _table(self) -> Table:
        """The quantizer's table; what it finds by bisection, at the cost of a layer, is kept until it changes."""
        quick = type(self.quantizer)._table is not Quantizer._table
        seen = None if quick else _Seen(self.quantizer)
        if seen is None or self._kept is None or not self._kept[0].equals(seen):
            table = self.quantizer.table()
            assert table is not None
            if seen is None:
                return table
            self._kept = seen, table
        return self._kept[1]

    def forward(self, state: Tensor) -> Tensor:
        """Quantized state, same shape.

        Raises
        ------
        ModelError
            In a `torch.jit.trace`, which writes down evenly spaced levels alone.
        """
        if self.observer is not None:
            self.observer.observe(state.detach())
            return state
        if self.passes:
            return state
        if in_a_trace() and not isinstance(self.quantizer, AffineQuantizer):
            # snnTorch's neurons without the delay branch on a tensor, which cannot be exported
            export = ", or torch.export under torch.no_grad() (of snnTorch's neurons, those with reset_delay=True)"
            raise ModelError(
                f"torch.jit.trace cannot write down the levels of a {type(self.quantizer).__name__} in a neuron of "
                f"another library; use levels of method 'uniform'{export if self.placement == 'pre_fire' else ''}"
            )
        quantized = self.quantizer(state)
        if quantized.requires_grad:
            return quantized
        # no view of other memory: libraries detach the states that they keep in place, which views do not allow; of
        # bare data a graph makes a constant
        return quantized.clone() if in_a_graph() else quantized.data

    def extra_repr(self) -> str:
        return f"placement={self.placement!r}"


class _Seen:
    """All that a quantizer's map can depend on, as it is now: its tensors' values and its plain attributes."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.plain = {
            name: value for name, value in vars(quantizer).items() if isinstance(value, (bool, int, float, str, tuple))
        }
        self.tensors = {name: value.detach().clone() for name, value in quantizer.state_dict().items()}

    def equals(self, other: _Seen) -> bool:
        mine, theirs = self.tensors, other.tensors
        return (
            self.plain == other.plain
            and mine.keys() == theirs.keys()
            and all(a.device == theirs[name].device and torch.equal(a, theirs[name]) for name, a in mine.items())
        )
