"""`gptq`: weights rounded so that they make good each other's errors, on the levels of any other method."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from torch import Tensor

from isofire.conversion import MisfitError, shown, unknown_key
from isofire.errors import SpecError
from isofire.quantizers.base import Granularity, Quantizer
from isofire.quantizers.compensated import TooFewPatchesError, round_compensated, round_up_to_a_factor
from isofire.quantizers.registry import WEIGHTS, decode, register_weights
from isofire.quantizers.setting import WeightSetting
from isofire.quantizers.table import Table

_SHARED = ("bits", "granularity")


@register_weights
class GPTQWeights(WeightSetting, frozen=True, kw_only=True, tag="gptq"):
    """Compensated rounding by the second moments of each layer's own inputs; see `isofire.quantizers.compensated`.

    Layers are rounded from input to output, each on what the quantized layers before it deliver. Where a batch norm
    alone takes a layer's outputs and is measured anew, it takes back any factor and offset of an output: rounding then
    cares for what varies, and for each row's direction only.

    Parameters
    ----------
    bits, granularity
        As for the method that gives the levels.
    levels
        That method: "uniform", "lsq", "lqnet", or another that is a fixed map of single values.
    options
        Its further settings, such as ``{grid = "midtread"}``; not bits and granularity, which stand beside them.
    damping
        Share of the mean diagonal of the second moments that is added to it.
    sweeps
        Passes of coordinate descent after GPTQ; 0 for GPTQ alone.
    reconstruct
        Steps of block reconstruction on rates that follow; 0 for none. See
        `isofire.quantization.by_firing.reconstruct`.
    """

    compensates: ClassVar[bool] = True

    bits: int
    granularity: Granularity = "channel"
    levels: str = "uniform"
    options: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    damping: float = 0.01
    sweeps: int = 8
    reconstruct: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.damping > 0:
            raise SpecError(f"damping must be positive, got {self.damping}; 0.01 is usual")
        if self.sweeps < 0:
            raise SpecError(f"sweeps must be at least 0, got {self.sweeps}")
        if self.reconstruct < 0:
            raise SpecError(f"reconstruct must be at least 0 steps, got {self.reconstruct}; 150 is usual")

    def __hash__(self) -> int:
        # its options are a dict
        return hash(msgspec.json.encode(self, order="deterministic"))

    @property
    def base(self) -> WeightSetting:
        """The setting that gives the levels."""
        try:
            kind = WEIGHTS[self.levels]
        except SpecError as error:
            raise MisfitError("levels", str(error)) from error
        if kind is type(self):
            raise MisfitError("levels", "those of gptq must be another method's, got 'gptq'", "; uniform is usual")
        missing = [key for key in _SHARED if key not in kind.__struct_fields__]
        if missing:
            raise MisfitError(
                "levels",
                f"those of gptq must be a method's that has the keys bits and granularity, {self.levels!r} has no "
                f"{' and no '.join(missing)}",
                f"; take {' or '.join(_that_fit(type(self)))}",
            )
        own = {"method": self.levels, **{key: getattr(self, key) for key in _SHARED}}
        for key in self.options:
            if key in own:
                beside = "levels" if key == "method" else key
                raise MisfitError(
                    f"options.{key}",
                    f"is a key of gptq itself ({beside} = {shown(own[key])}), got {shown(self.options[key])} as an "
                    f"option; give {beside} beside options",
                )
            if key not in kind.__struct_fields__:
                raise unknown_key(key, [name for name in kind.__struct_fields__ if name not in own], "options")
        setting = decode({**self.options, **own}, WEIGHTS, "options")
        if setting.time_steps is not None:
            raise MisfitError(
                "levels",
                f"gptq rounds weights that stay the same from step to step, {self.levels!r} changes them",
                f"; take {' or '.join(_that_fit(type(self)))}",
            )
        return setting

    def build(self, channels: int) -> Quantizer:
        return self.base.build(channels)

    def table_numbers(self, groups: int) -> int:
        return self.base.table_numbers(groups)

    @property
    def range_label(self) -> str:
        return self.base.range_label

    def round(self, weight: Tensor, quantizer: Quantizer, moments: Tensor, rows: int, *, normed: bool) -> Tensor:
        """The rounded weight, on the quantizer's levels: `[O, ...]`.

        Parameters
        ----------
        moments
            `[groups, K, K]`, see `isofire.quantization.by_firing.patches`.
        rows
            Input patches behind them.
        normed
            Whether each output may come out multiplied by a factor of its own.

        Raises
        ------
        TooFewPatchesError
            If there are fewer patches than weights of an output.
        SpecError
            If the levels are no fixed table.
        """
        flat = weight.detach().flatten(1)
        if rows < flat.shape[1]:
            raise TooFewPatchesError(rows, flat.shape[1], self.damping)
        table = quantizer.table()
        if table is None:
            raise SpecError(f"gptq needs fixed levels, {self.levels!r} gives none; take uniform, lsq or lqnet")
        groups = len(moments)
        rounded = weight.new_empty(flat.shape)
        for place, (own, moment) in enumerate(zip(flat.chunk(groups), moments, strict=True)):
            part = Table(*(_rows(item, place, groups) for item in table))
            compensate = round_up_to_a_factor if normed else round_compensated
            rounded.chunk(groups)[place].copy_(compensate(own, moment, part, damping=self.damping, sweeps=self.sweeps))
        return rounded.view_as(weight)


def _that_fit(own: type[WeightSetting]) -> list[str]:
    """Methods that have the keys which gptq shares with the one that gives its levels."""
    kinds = sorted(WEIGHTS.items())
    return [name for name, kind in kinds if kind is not own and set(_SHARED) <= set(kind.__struct_fields__)]


def _rows(item: Tensor, place: int, groups: int) -> Tensor:
    return item.chunk(groups)[place] if len(item) > 1 else item
