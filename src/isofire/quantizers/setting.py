"""A setting: the frozen value that names a quantizer in a spec, and answers whatever the rest of isofire asks of it.

A method is a subclass of `WeightSetting`, `MembraneSetting` or `ConstantSetting` with a `tag`, its name in specs,
registered with `register_weights`, `register_membrane` or `register_constant`; see `isofire.quantizers.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from msgspec import Struct
from torch import Tensor

from isofire.conversion import NamedKeys, convert, plain
from isofire.errors import IsofireError, SpecError
from isofire.limits import FLOAT32_MAX
from isofire.quantizers.base import Granularity, Quantizer
from isofire.quantizers.neuron_facts import STANDARD, NeuronFacts
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.weight_scale import WeightScale

Span = tuple[float, float]
Placement = Literal["pre_fire", "post_reset"]
PostReset = Literal["post_reset"]
"""The placement of methods that are defined for the stored state alone."""
IMPLIED_RANGES = frozenset({"learned", "own levels"})
"""Labels of a range that follow from the method, which short texts leave out."""


class Setting(Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method"):
    """What weights and membranes have in common. Its fields are the keys that a spec may give.

    Values are checked however a setting is made: against the types of its fields, and by building the quantizer, which
    knows which of them exclude each other.

    Raises
    ------
    SpecError
        If a value is of another type, out of range, or contradicts another.
    """

    max_bits: ClassVar[int] = 16
    """The largest value of a field `bits`."""
    own_range: ClassVar[str] = "own levels"
    """What a column `range` says of a method without one: its levels are given or calibrated; "learned": they move in
    training; or what they follow from, such as "threshold"."""
    numbers_a_group: ClassVar[int | None] = None
    """How many float32 numbers are stored for each set of levels, such as a step; None: all of its levels."""
    in_columns: ClassVar[frozenset[str]] = frozenset(
        {"bits", "grid", "range", "clip", "granularity", "placement", "signed"}
    )
    """Fields that a results row shows in columns of their own; the others stand in `options` where they are not the
    default."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            if field.name == "bits" and value is not None:
                self._check_bits(value)
            msgspec.structs.force_setattr(self, field.name, convert(plain(value, field.name), field.type, field.name))
        for name in ("range", "clip"):
            span = getattr(self, name, None)
            if span is not None and not isinstance(span, str):
                _check_span(name, span)
        self._check_whole()

    def _check_whole(self) -> None:
        """Raise SpecError where fields exclude each other."""
        built(self, lambda: self.build(1))

    def build(self, channels: int) -> Quantizer:
        """An uncalibrated quantizer with this many groups (for granularity "tensor": one)."""
        raise NotImplementedError

    @property
    def method(self) -> str:
        """Its name in specs."""
        return str(self.__struct_config__.tag)

    @property
    def nominal_bits(self) -> float:
        """Bits per value as the field counts them, log2 of the number of levels, to three decimals."""
        bits = round(self.build(1).bits, 3)
        return int(bits) if bits == int(bits) else bits

    @property
    def stored_bits(self) -> int:
        """Bits per value in memory."""
        return math.ceil(self.nominal_bits)

    def table_numbers(self, groups: int) -> int:
        """How many float32 numbers are stored beside the codes."""
        return groups * (2**self.stored_bits if self.numbers_a_group is None else self.numbers_a_group)

    def groups(self, channels: int) -> int:
        """How many sets of levels a tensor of so many channels has."""
        return channels if self.level_granularity == "channel" else 1

    @property
    def level_granularity(self) -> Granularity:
        """Whether each channel has levels of its own; without a field `granularity`, what its quantizer says."""
        return getattr(self, "granularity", None) or self.build(1).granularity

    @property
    def label(self) -> str:
        """What a table's column `method` says: the method, and the grid where that is not the usual one."""
        grid = getattr(self, "grid", "endpoint")
        return self.method if grid == "endpoint" else f"{self.method}-{grid}"

    @property
    def range_label(self) -> str:
        """What a table's column `range` says: "[-1, 1]", "mse", or `own_range`."""
        span = getattr(self, "range", getattr(self, "clip", None))
        if span is None:
            return self.own_range
        text = span if isinstance(span, str) else f"[{span[0]:g}, {span[1]:g}]"
        return f"{text} unsigned" if isinstance(span, str) and not getattr(self, "signed", True) else text

    @property
    def options_label(self) -> str | None:
        """Further fields that differ from their defaults, such as "restarts=2"; None if there are none."""
        further = [field for field in msgspec.structs.fields(self) if field.name not in self.in_columns]
        changed = [(field.name, getattr(self, field.name), _default_of(field)) for field in further]
        return " ".join(f"{name}={value}" for name, value, default in changed if value != default) or None

    def describe(self) -> str:
        """All of it in one line, such as "uniform 4 bit endpoint [-1, 1] per channel"."""
        return " ".join(part for part in (self._summary(), self.options_label) if part)

    def _summary(self) -> str:
        grid = getattr(self, "grid", None)
        return " ".join([self.method, f"{self.nominal_bits:g} bit", *([grid] if grid else []), *self._shown_range()])

    def _shown_range(self) -> list[str]:
        return [] if self.range_label in IMPLIED_RANGES else [self.range_label]

    def _check_bits(self, bits: Any) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= self.max_bits:
            raise SpecError(
                f"bits must be a whole number in 1..{self.max_bits}, got {bits!r}; "
                "for full precision leave the rule out"
            )


class WeightSetting(Setting, frozen=True, kw_only=True):
    """How the weights of a layer are quantized."""

    compensates: ClassVar[bool] = False
    """Whether weights are rounded together, by what the layer is given; then the setting has `round`."""

    @property
    def reconstruct(self) -> int:
        """Steps by which rounded weights are moved on until the neurons behind them fire as they should; see
        `isofire.quantization.by_firing.reconstruct`."""
        return 0

    def round(self, weight: Tensor, quantizer: Quantizer, moments: Tensor, rows: int, *, normed: bool) -> Tensor:
        """Levels of `quantizer` for every weight, by the second moments of the layer's inputs; see `compensates`.

        Where `normed`, a norm that is measured anew takes back any factor and offset of an output; moments are then
        about the inputs' mean.
        """
        raise NotImplementedError

    @property
    def time_steps(self) -> int | None:
        """Steps of the time axis that its quantizer, a `TemporalQuantizer`, gives the weight; None: it gives none."""
        return None

    def _summary(self) -> str:
        return f"{super()._summary()} per {self.level_granularity}"


class MembraneSetting(Setting, frozen=True, kw_only=True):
    """How and where the membrane potential of a layer of neurons is quantized; see `isofire.neurons.MembraneQuantizer`.

    A subclass declares these two fields with its defaults, where it wants them among its keys (the order of the fields
    is part of a spec's hash), and builds a quantizer whose channels, if it has any, lie on axis 1::

        class Halves(MembraneSetting, frozen=True, kw_only=True, tag="halves"):
            placement: Placement = "post_reset"
            granularity: Granularity = "tensor"

            def build(self, channels: int) -> Levels:
                return Levels([-0.5, 0.0, 0.5, 1.0], channel_axis=1)

    Parameters
    ----------
    placement
        "pre_fire": the quantized potential is compared with the threshold, reset and stored. "post_reset": only what is
        stored for the next step is quantized. A narrower type refuses what the method does not have.
    granularity
        "tensor": one set of levels a layer. "channel": one for each channel.
    """

    chosen_by_firing: ClassVar[bool] = False
    """Whether its levels are searched for by how the layer then fires; its quantizer is then `Levels`."""
    shares_scale: ClassVar[bool] = False
    """Whether its levels are given by the weights before the neurons, through `take_scale`, not by `calibrate`."""

    if TYPE_CHECKING:
        placement: Placement
        granularity: Granularity

    @property
    def is_estimated(self) -> bool:
        """Whether something is chosen from the states that calibration data evoke."""
        return True

    def build(self, channels: int) -> Quantizer:
        return self.build_for(channels, STANDARD)

    def build_for(self, channels: int, neuron: NeuronFacts) -> Quantizer:
        """An uncalibrated quantizer for these neurons; here, the same for all.

        A method overrides `build`, or this one if its levels depend on the threshold, the reset or the rest; `build`
        then gives that of `isofire.quantizers.neuron_facts.STANDARD`. What it then needs again it keeps in the
        quantizer: `calibrate` gets that one.

        Raises
        ------
        SpecError
            If the method does not fit such neurons.
        """
        return self.build(channels)

    def calibrate(self, quantizer: Quantizer, observer: RangeObserver) -> None:
        """Choose the quantizer's levels from the full-precision states that `observer` saw."""
        quantizer.calibrate_from(observer)

    def take_scale(self, quantizer: Quantizer, scale: WeightScale) -> None:
        """Set the quantizer's levels by the scale of the weights; see `shares_scale`."""
        raise NotImplementedError

    def _summary(self) -> str:
        place = "layer" if self.granularity == "tensor" else "channel"
        return f"{super()._summary()} {self.placement} per {place}"


def built(setting: Setting, make: Callable[[], object]) -> Quantizer:
    """What a setting's `build` makes.

    Raises
    ------
    SpecError
        If that fails or is no quantizer.
    """
    where = f"the method {setting.method!r} ({type(setting).__name__}) builds"
    try:
        quantizer = make()
    except IsofireError:
        raise
    except Exception as error:
        raise SpecError(f"{where} no quantizer: {type(error).__name__}: {error}; mend its build") from error
    if not isinstance(quantizer, Quantizer):
        kind = "None" if quantizer is None else f"a {type(quantizer).__name__}"
        raise SpecError(f"{where} {kind}; its build must return an isofire.quantizers.Quantizer")
    if "calibrated" not in quantizer.__dict__.get("_buffers", {}):
        raise SpecError(
            f"{where} a {type(quantizer).__name__} without bits and granularity; call "
            "super().__init__(bits, granularity=...) first in its __init__"
        )
    return quantizer


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


class ConstantSetting(Setting, frozen=True, kw_only=True):
    """How constants of neurons and layers are rounded: decays, thresholds, biases. They have no levels of their own but
    a rule for each number.

    A subclass declares `targets`, `round` and a field `bits` (or `nominal_bits`).
    """

    targets: ClassVar[frozenset[str]]
    """Which of "decays", "thresholds" and "biases" it can round."""

    if TYPE_CHECKING:
        bits: int

    @property
    def nominal_bits(self) -> float:
        return self.bits

    def round(self, values: Tensor, *, synapse: bool = False) -> Tensor:
        """Rounded values, same shape and dtype, without gradient.

        Parameters
        ----------
        values
            Thresholds or biases of a layer; of decays, the share of a state that is lost in a step, 1 / tau.
        synapse
            Whether the state is a synaptic current.
        """
        raise NotImplementedError

    @property
    def reach(self) -> float | None:
        """The largest magnitude that is rounded and not cut off; None: any is."""
        return None

    @property
    def corrects_gain(self) -> bool:
        """Of decays: whether thresholds follow the change of how strongly membranes answer to an input; here, where
        there is a field `gain` and it is "l2"."""
        return getattr(self, "gain", "keep") == "l2"

    @property
    def level_granularity(self) -> Granularity:
        return "tensor"

    def table_numbers(self, groups: int) -> int:
        return 0

    def build(self, channels: int) -> Quantizer:
        raise NotImplementedError(f"{type(self).__name__} rounds constants, which have no quantizer")

    def _check_whole(self) -> None:
        return None


def _check_span(name: str, span: Any) -> None:
    if len(span) != 2 or not all(isinstance(x, int | float) and math.isfinite(x) for x in span):
        raise SpecError(f"{name} must be two finite numbers [low, high], got {span!r}")
    if max(map(abs, span)) > FLOAT32_MAX:
        raise SpecError(f"{name} must fit 32-bit floats, up to {FLOAT32_MAX:.3g}, got {list(span)}")
    if not span[0] < span[1]:
        raise SpecError(f"{name} must not be empty: low < high, got [{span[0]}, {span[1]}]; swap or widen it")
