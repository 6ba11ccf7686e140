"""What every quantizer offers, and the checks they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError
from isofire.quantizers import grids
from isofire.quantizers.grids import Affine
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.rows import Rows, to_rows
from isofire.quantizers.table import Table, find_edges

Granularity = Literal["tensor", "channel"]


class Quantizer(nn.Module, ABC):
    """Real values in, levels out, with a straight-through gradient. Arithmetic is float32 whatever the input's dtype.

    Use it alone, or as the parametrization of a weight. A quantizer that must be calibrated has to be so first, and one
    that learns while training (`LQNet`, or `Uniform` with `refresh`) takes registration's own test call for a training
    step unless gradients are off::

        quantizer.calibrate(conv.weight)
        with torch.no_grad():
            torch.nn.utils.parametrize.register_parametrization(conv, "weight", quantizer)

    Whatever class it is, the verbs of `isofire.quantization` try once whether it keeps what is said here, before its
    numbers are used: one tensor of the input's shape, dtype and device, each element one of `levels()`, at `codes`.

    Training-time learning needs both `training` and enabled gradients, so re-estimating batch-norm under
    `torch.no_grad()` leaves the quantizer as it is.

    Parameters
    ----------
    bits
        Bits per stored value.
    granularity
        "tensor": one set of levels. "channel": one per index of `channel_axis`.
    channels
        Number of sets, `G`. It gives the buffers their final shapes, so that a state dict fits a freshly built
        quantizer; `calibrate` corrects it.
    channel_axis
        0 for weights `[C_out, ...]`, 1 for membrane states `[N, C, ...]`; means nothing for granularity "tensor".
    calibrated
        Whether the quantizer can be used as built.

    Attributes
    ----------
    calibrated
        Bool buffer, in the state dict.
    check_finite
        Set it to False to skip the search for NaN and infinite inputs, which costs one pass over the input and, on an
        accelerator, a wait. The result is undefined for such inputs then.
    """

    calibrated: Tensor

    def __init__(
        self,
        bits: float,
        *,
        granularity: Granularity,
        channels: int = 1,
        channel_axis: int = 0,
        calibrated: bool = False,
    ) -> None:
        super().__init__()
        _check_layout(granularity, channels, channel_axis)
        self.bits = bits
        self.granularity: Granularity = granularity
        self.channels = channels
        self.channel_axis = channel_axis
        self.check_finite = True
        self._ready = calibrated
        self.register_buffer("calibrated", torch.tensor(calibrated))

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the level of every element: same shape and dtype as `x`, straight-through gradient.

        Raises
        ------
        ModelError
            If `x` holds NaN or infinite values, does not have `channels` channels, or calibration is missing.
        """

    @abstractmethod
    def calibrate(self, x: Tensor) -> None:
        """Choose the levels from `x`, without gradient. Buffers and parameters get their `[G]` shapes from it.

        Call it before building an optimizer: a learned parameter is replaced when the number of channels changes.

        Raises
        ------
        ModelError
            If `x` is empty or holds NaN or infinite values.
        """

    @torch.no_grad()
    def calibrate_from(self, observer: RangeObserver) -> None:
        """Choose the levels from streamed data, as `calibrate` does from one tensor; here, from the observer's sample.

        Raises
        ------
        ModelError
            If nothing was observed.
        SpecError
            If the observer groups elements in another way.
        """
        samples = self._observed(observer)
        if not self.axis:
            self.calibrate(samples)
        else:
            self.calibrate(samples.T.reshape(-1, *[1] * (self.axis - 1), samples.shape[0]))

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Return each element's position, 0..L-1, among its ascending levels: int32, same shape as `x`."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the float32 values of `codes`, equal bit for bit to what `forward` gives."""

    @abstractmethod
    def levels(self) -> Tensor:
        """Return every level, `[G, L]` float32, ascending."""

    @property
    def is_fixed(self) -> bool:
        """Whether `forward`, called now, is a fixed map of each value: no level learns from the call or follows it.

        True promises that `codes` never falls where the value rises, so that `table` gives the map; a subclass says so.
        """
        return False

    def table(self) -> Table | None:
        """Return the edges `[G, L-1]` and levels `[G, L]` that give every bit of `forward`; None unless `is_fixed`.

        Whoever runs the table, such as a compiled kernel, takes `gradient_range` for the backward pass. The side on
        which an edge lies: see `isofire.quantizers.table`.

        Raises
        ------
        ModelError
            If calibration is missing.
        """
        if not self.is_fixed:
            return None
        with torch.no_grad():
            return self._table()

    def gradient_range(self) -> tuple[Tensor, Tensor] | None:
        """Return lo and hi (float32 `[G]`): the gradient is 1 where lo <= x <= hi, else 0. None: 1 everywhere."""
        return None

    @property
    def axis(self) -> int | None:
        """The axis with one set of levels per index; None when the whole tensor shares one."""
        return self.channel_axis if self.granularity == "channel" else None

    @property
    def learning(self) -> bool:
        """Whether this forward may change the quantizer's state."""
        return self.training and torch.is_grad_enabled()

    def extra_repr(self) -> str:
        parts = [f"bits={self.bits:.4g}", self.granularity]
        if self.granularity == "channel":
            parts += [f"channels={self.channels}", f"channel_axis={self.channel_axis}"]
        return ", ".join(parts) + ("" if self._is_ready() else ", not calibrated")

    def _table(self) -> Table:
        """The table, found from `codes` alone; override it where the edges are known."""
        levels = self.levels()
        groups, count = levels.shape

        def code(x: Tensor) -> Tensor:
            if not self.axis:
                return self.codes(x)
            return self.codes(x.T.reshape(-1, *[1] * (self.axis - 1), groups)).reshape(-1, groups).T

        return Table(find_edges(code, groups, count, levels.device), levels)

    def _checked(self, x: Tensor, *, any_channels: bool = False) -> Tensor:
        """Validate `x` and return it detached, in float32."""
        if not x.is_floating_point():
            raise ModelError(f"{type(self).__name__} quantizes floating-point tensors, got {x.dtype}; convert it first")
        self._check_shape(x, any_channels=any_channels)
        x32 = x.detach().float()
        if self.check_finite:
            require_finite(x32, type(self).__name__)
        return x32

    def _check_shape(self, x: Tensor, *, any_channels: bool = False) -> None:
        axis = self.axis
        if axis is not None and x.ndim <= axis:
            raise ModelError(f"{type(self).__name__} has channel_axis={axis}, but the input has shape {tuple(x.shape)}")
        if axis is None or any_channels or not self._is_ready() or self._same_for_all():
            return
        if x.shape[axis] != self.channels:
            raise ModelError(
                f"{type(self).__name__} holds {self.channels} channels, but the input has {x.shape[axis]} along axis "
                f"{axis} (shape {tuple(x.shape)}); build it with that number, or calibrate it on such a tensor"
            )

    def _rows_to_fit(self, x: Tensor) -> Rows:
        """Validate `x` as data to calibrate on and return its rows `[G, n]` in float32."""
        if not x.numel():
            raise ModelError(f"{type(self).__name__} cannot be calibrated on an empty tensor, shape {tuple(x.shape)}")
        return to_rows(self._checked(x, any_channels=True), self.axis)

    def _observed(self, observer: RangeObserver) -> Tensor:
        """Return the samples `[G, m]` of an observer that groups elements as this quantizer does."""
        if not observer.groups_as(self.granularity, self.channel_axis):
            raise SpecError(
                f"the observer groups by {observer.granularity} (axis {observer.channel_axis}), {type(self).__name__} "
                f"by {self.granularity} (axis {self.channel_axis}); give both the same granularity and channel_axis"
            )
        return observer.samples()

    def _same_for_all(self) -> bool:
        """Whether one set of levels may serve any number of channels."""
        return False

    def _is_ready(self) -> bool:
        if not self._ready:
            self._ready = bool(self.calibrated)
        return self._ready

    def _mark_ready(self) -> None:
        self.calibrated.fill_(True)
        self._ready = True

    def _require_ready(self) -> None:
        if not self._is_ready():
            raise ModelError(
                f"{type(self).__name__} has no levels yet; call calibrate(x) before it is used, in a network "
                "isofire.calibrate(model, data), which returns a calibrated copy (isofire.quantization.calibrate_ "
                "calibrates the network itself)"
            )

    def _store(self, name: str, value: Tensor) -> None:
        """Write a buffer or parameter in place, so that its holders see the change; replace it if its shape changed."""
        held: Tensor = getattr(self, name)
        if held.shape == value.shape:
            held.copy_(value)
        elif isinstance(held, nn.Parameter):
            setattr(self, name, nn.Parameter(value.to(held).clone(), requires_grad=held.requires_grad))
        else:
            setattr(self, name, value.to(held).clone())

    def fit_to_(self, state: Mapping[str, Tensor]) -> None:
        """Take the number of channels of a state dict of this quantizer, as calibration would; it is only built yet."""
        stored = state.get("calibrated")
        if stored is None or self.granularity != "channel":
            return
        for name, own in [*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)]:
            other = state.get(name)
            if other is None or not own.ndim or own.shape == other.shape or own.shape[1:] != other.shape[1:]:
                continue
            wide = own.detach()[:1].expand(other.shape).clone()
            setattr(self, name, nn.Parameter(wide) if isinstance(own, nn.Parameter) else wide)
            self.channels = other.shape[0]

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if not self._is_ready():
            self.fit_to_(under(prefix, state))
        super()._load_from_state_dict(state, prefix, *args, **kwargs)
        self._ready = bool(self.calibrated)


class AffineQuantizer(Quantizer):
    """A quantizer whose levels are `origin + step * k`; `affine()` is all it takes to reproduce it elsewhere."""

    @abstractmethod
    def affine(self) -> Affine:
        """Return the grid with float32 `[G]` parameters; the arithmetic is that of `isofire.quantizers.grids`."""

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        self._require_ready()
        return grids.codes(self._checked(x), self.affine(), self.axis)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        self._require_ready()
        self._check_shape(codes)
        return grids.decode(codes, self.affine(), self.axis)

    @torch.no_grad()
    def levels(self) -> Tensor:
        self._require_ready()
        return grids.levels(self.affine())


def fit_quantizers_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give every quantizer that has not been calibrated the number of channels that a state dict of the model has."""
    for name, module in model.named_modules():
        if isinstance(module, Quantizer) and not module._is_ready():
            module.fit_to_(under(f"{name}." if name else "", state))


def under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a state dict whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def require_finite(x: Tensor, who: str) -> None:
    """Check that a float32 tensor holds neither NaN nor infinity. Skipped while compiling or capturing a CUDA graph.

    Raises
    ------
    ModelError
        With the number of offending values.
    """
    if torch.compiler.is_compiling() or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    # NaN and infinity never leave a sum finite, and a sum needs one pass and no temporary.
    if math.isfinite(x.sum().item()):
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ModelError(
            f"{who} got {bad} NaN or infinite values among {x.numel()} (shape {tuple(x.shape)}); "
            "look for a diverged training run or bad input data before quantizing"
        )


def _check_layout(granularity: Granularity, channels: int, channel_axis: int) -> None:
    if granularity not in get_args(Granularity):
        raise SpecError(f"granularity must be 'tensor' or 'channel', got {granularity!r}")
    if not isinstance(channels, int) or channels < 1:
        raise SpecError(f"channels must be a whole number >= 1, got {channels!r}")
    if granularity == "tensor" and channels != 1:
        raise SpecError(
            f"granularity 'tensor' has one set of levels, got channels={channels}; take granularity 'channel'"
        )
    if not isinstance(channel_axis, int) or channel_axis < 0:
        raise SpecError(f"channel_axis must be a whole number >= 0, got {channel_axis!r}")
