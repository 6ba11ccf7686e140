"""A layer's numbers on a chip: one unit for weights, biases and thresholds, as fine as all of them allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from isofire.integer.builder import folded
from isofire.integer.chip_neuron import ChipNeuron
from isofire.integer.hardware import HardwareSpec
from isofire.integer.refusals import Refusal
from isofire.integer.stages import Stage
from isofire.integer.weight_rounding import Rounded
from isofire.quantizers.lattice import Codes, codes_of

_SPARE = 2.0
"""A wider shift is taken where states stay so many times below their largest."""
_EQUAL = 1e-6
_KEPT = 0.999


@dataclass
class ChipLayer:
    """A stage of the float network and its integers.

    Parameters
    ----------
    stage, shape, neuron
        The layer, the shape of its neurons of one image, and what its neurons become.
    weight
        float64, as the chip sees them: batch norm and averages folded in, except for a gain of each neuron where the
        chip has one threshold a neuron.
    slope
        What the batch norm multiplies the weights by, and averages, [out].
    back
        Recurrent weights [out, out] in the same units; None: the layer has none.
    gain
        What `weight` and `bias` leave out of it, [out], > 0: the threshold is divided by it.
    bias
        What is added to the input of the neurons each step, divided by `gain`, [out].
    largest
        Largest membrane and current on the example, in the units of `weight` [out].
    most_spikes
        In a step, on the example.
    output
        Whether it is the last layer.
    """

    stage: Stage
    shape: tuple[int, ...]
    neuron: ChipNeuron
    weight: Tensor
    back: Tensor | None
    slope: Tensor
    gain: Tensor
    bias: Tensor
    largest: Tensor
    most_spikes: int
    output: bool
    shift: int = 0
    bias_shift: int = 0
    unit: Tensor = field(default_factory=lambda: torch.ones(()))
    codes: Tensor = field(default_factory=lambda: torch.zeros(()))
    back_codes: Tensor | None = None
    threshold: Tensor = field(default_factory=lambda: torch.zeros(()))
    biases: Tensor = field(default_factory=lambda: torch.zeros(()))
    latency: int = 0
    delays: dict[str, int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its neurons."""
        return self.stage.target

    @classmethod
    def of(
        cls, stage: Stage, shape: tuple[int, ...], neuron: ChipNeuron, x: Tensor, spec: HardwareSpec, *,
        pooled: float, output: bool,
    ) -> ChipLayer:  # fmt: skip
        """The layer before its unit is chosen.

        Parameters
        ----------
        x
            Inputs of its neurons [T, N, ...] on the example.
        pooled
            What average pools before it multiply sums by.
        """
        weight = stage.layer.weight.detach().double().cpu()
        slope, bias = folded(stage, Codes(torch.zeros(()), torch.ones(len(weight), dtype=torch.float64), True))
        slope = slope * pooled
        gain = torch.where(slope == 0, torch.ones_like(slope), slope.abs())
        if spec.weights.scale != "neuron":
            gain = torch.ones_like(slope)
        wide = (-1, *(1,) * (weight.ndim - 1))
        back = None if stage.back is None else stage.back.weight.detach().double().cpu()
        if stage.back is not None and stage.back.bias is not None:
            bias = bias + stage.back.bias.detach().double().cpu()
        v, i, most = neuron.changed.extremes(x, back)
        back = None if back is None else back / gain.view(-1, 1)
        v = v * neuron.changed.membrane_gain
        largest = v.maximum(i).reshape(len(weight), -1).amax(1) / gain
        return cls(
            stage,
            shape,
            neuron,
            weight * (slope / gain).view(wide),
            back,
            slope,
            gain,
            bias / gain,
            largest,
            most,
            output,
        )

    @property
    def fan(self) -> Tensor:
        """All weights into a neuron, [out, in], recurrent ones last."""
        flat = self.weight.flatten(1)
        return flat if self.back is None else torch.cat([flat, self.back], 1)

    @property
    def fan_codes(self) -> Tensor:
        """Their codes."""
        flat = self.codes.flatten(1)
        return flat if self.back_codes is None else torch.cat([flat, self.back_codes], 1)

    def thresholds(self) -> Tensor:
        """float64 thresholds in the units of `weight`: [out], or one a neuron."""
        form = self.neuron.changed
        return form.membrane_gain * form.threshold / self.per_neuron(self.gain)

    def steady(self) -> Tensor:
        """What the bias adds to a membrane in each step once currents have settled, in the units of `weight`."""
        form = self.neuron.changed
        return form.synapse_gain * self.per_neuron(self.bias) if form.has_synapse else self.per_neuron(self.bias)

    def per_neuron(self, values: Tensor) -> Tensor:
        """[out] -> what broadcasts to the layer's shape."""
        return values.view(-1, *(1,) * (len(self.shape) - 1))

    def choose(self, spec: HardwareSpec, shift: int | None = None) -> None:
        """Set `shift` and `unit`; the largest shift that costs the weights nothing, or a given one."""
        low, high = spec.weights.shift
        for candidate in range(high, low - 1, -1) if shift is None else (shift,):
            self.shift = candidate
            free, bounded = (
                self._free(spec),
                self._bounded(spec, 1.0 if candidate == low or shift is not None else _SPARE),
            )
            if spec.weights.scale != "neuron":
                free, bounded = (units.min().expand_as(units) for units in (free, bounded))
            self.unit = free.minimum(bounded)
            if bool((self.unit >= _KEPT * free).all()):
                break

    def _free(self, spec: HardwareSpec) -> Tensor:
        """Units [out] in which the largest or the smallest weight has the last code of its side."""
        flat, least = self.fan, -(2 ** (spec.weights.bits - 1))
        side = (flat.amax(1) / top_of(spec)).maximum(flat.amin(1) / least)
        return 2.0**self.shift / torch.where(side > 0, side, torch.full_like(side, 1.0 / top_of(spec)))

    def _bounded(self, spec: HardwareSpec, spare: float) -> Tensor:
        """The finest units [out] in which states, thresholds and biases fit."""
        return torch.stack([*self.bounds(spec, spare).values()]).amin(0)

    def bounds(self, spec: HardwareSpec, spare: float = 1.0) -> dict[str, Tensor]:
        """What asks for room beside the weights -> the finest units [out] in which it fits."""
        rules, out = spec.neuron, len(self.weight)
        threshold = (2 ** (rules.threshold_bits - 1) - 1) << rules.threshold_shift
        found = {
            "thresholds": threshold / self._largest(self.thresholds(), out),
            "states": (2 ** (rules.state_bits - 1) - 1) / (spare * self.largest.clamp(min=1e-30)),
        }
        if spec.bias.bits and bool((self.bias != 0).any()):
            top = (2 ** (spec.bias.bits - 1) - 1) << spec.bias.shift[1]
            found["biases"] = top / self._largest(self.steady(), out).clamp(min=1e-30)
        return found

    def _largest(self, values: Tensor, out: int) -> Tensor:
        """[out], of what broadcasts to the layer's shape."""
        return values.abs().expand(self.shape).reshape(out, -1).amax(1)

    def round(self, spec: HardwareSpec) -> None:
        """Set codes, thresholds and biases from `unit`, and refuse what they change."""
        exact = self._codes(spec)
        whole = self._biases(spec)
        self._thresholds(spec, exact and whole)
        self._states(spec)

    def _codes(self, spec: HardwareSpec) -> bool:
        fan = self.fan
        even = spec.weights.even and bool((fan > 0).any() and (fan < 0).any())
        grid, top = (2 if even else 1), top_of(spec)
        found = codes_of(fan.float(), 24, one_step=spec.weights.scale != "neuron")
        if found.exact:
            largest = found.codes.abs().amax(1).clamp(min=1)
            times = (self.unit * found.step / 2.0**self.shift / grid).round().clamp(min=1)
            times = times.minimum((top / grid / largest.double()).floor())
            times = times.minimum((self._bounded(spec, 1.0) * found.step / 2.0**self.shift / grid).floor())
            if spec.weights.scale != "neuron":
                times = times.min().expand_as(times)
            # an output with hardly a weight leaves those of the others as they are
            self.unit = torch.where(times >= 1, times * grid * 2.0**self.shift / found.step, self.unit)
            if bool((times >= 1).all()):
                self._set_codes(found.codes * (times * grid).to(torch.int64).view(-1, 1))
                return True
        scaled = fan * (self.unit / 2.0**self.shift).view(-1, 1)
        codes = ((scaled / grid).round() * grid).clamp(-(2 ** (spec.weights.bits - 1)), top).to(torch.int64)
        self._set_codes(codes)
        reached = float((self.largest / self._largest(self.thresholds(), len(fan))).max())
        rounded = Rounded(fan, scaled, codes, grid, top, found, self.bounds(spec), reached)
        self.refusals.append(rounded.refusal(self.stage.layer_name, spec))
        return False

    def _set_codes(self, fan: Tensor) -> None:
        forward = self.weight[0].numel()
        self.codes = fan[:, :forward].reshape(self.weight.shape)
        self.back_codes = None if self.back is None else fan[:, forward:]

    def _biases(self, spec: HardwareSpec) -> bool:
        if not bool((self.bias != 0).any()):
            self.biases = torch.zeros((), dtype=torch.int64)
            return True
        layer, wanted = self.stage.layer_name, self.steady() * self.per_neuron(self.unit)
        if not spec.bias.bits:
            self.biases = torch.zeros((), dtype=torch.int64)
            says = "its layer or batch norm adds a constant, the chip's neurons have no bias"
            self.refusals.append(Refusal(layer, "biases", says, "train without bias and batch norm"))
            return False
        top = 2 ** (spec.bias.bits - 1) - 1
        self.bias_shift = max(0, math.ceil(math.log2(max(1.0, float(wanted.abs().max()) / top))))
        self.bias_shift = min(self.bias_shift, spec.bias.shift[1])
        mantissa = (wanted / 2**self.bias_shift).round().clamp(-top, top).to(torch.int64)
        self.biases = mantissa << self.bias_shift
        error = float((self.biases - wanted).abs().max())
        if error > _EQUAL * max(1.0, float(wanted.abs().max())):
            says = f"biases are rounded by up to {error / float(self._scaled_thresholds().min()):.2%} of the threshold"
            self.refusals.append(Refusal(layer, "biases", says, "train without bias, or with larger thresholds"))
        if self.neuron.changed.has_synapse:
            says = "a constant input goes through the synapse, the chip adds its bias behind it: the first steps differ"
            self.refusals.append(Refusal(layer, "biases", says, "train without bias and batch norm"))
        if arrive := self.latency + self.neuron.early:
            when = "before the first spikes arrive" if arrive > 0 else "after the float network's"
            says = f"its bias acts {abs(arrive)} steps {when}"
            self.refusals.append(Refusal(layer, "biases", says, "train without bias and batch norm"))
        if spec.bias.when == "clock":
            says = "the chip adds biases by a clock of its own, here they are added every step"
            self.refusals.append(Refusal(layer, "biases", says, "train without bias and batch norm"))
        return error <= _EQUAL * max(1.0, float(wanted.abs().max())) and not self.neuron.changed.has_synapse

    def _scaled_thresholds(self) -> Tensor:
        return self.thresholds() * self.per_neuron(self.unit)

    def _thresholds(self, spec: HardwareSpec, whole: bool) -> None:
        """Rounded; up where states are whole numbers, which then reach it when they reach what it was."""
        rules, wanted = spec.neuron, self._scaled_thresholds()
        form = self.neuron.changed
        states_whole = whole and not form.leaks and not form.has_synapse
        above = rules.compare == ">"
        units = 2**rules.threshold_shift
        if states_whole:
            # whole states in multiples of the connection's shift
            step = units if self.shift >= rules.threshold_shift and self.bias_shift >= rules.threshold_shift else 1
            reached = _up(wanted, step, form.above)
            self.threshold = (-(-reached // units) - 1) if above else reached
        else:
            self.threshold = ((wanted - int(above)) / units).round().to(torch.int64)
        self.threshold = self.threshold.clamp(1, 2 ** (rules.threshold_bits - 1) - 1)
        if spec.weights.scale != "neuron":
            self._one_threshold()
        if not (states_whole and self.neuron.reset == "zero"):
            error = float((self.effective_threshold(spec) / wanted - 1).abs().max())
            if error > _EQUAL:
                says = f"thresholds are rounded by up to {error:.2%}, to {int(self.threshold.min())} units at the least"
                cure = "give weights fewer bits than the chip has, so that its unit is finer"
                self.refusals.append(Refusal(self.name, "thresholds", says, cure))

    def _one_threshold(self) -> None:
        if self.threshold.unique().numel() > 1:
            low, high = int(self.threshold.min()), int(self.threshold.max())
            says = f"its neurons have thresholds of {low} to {high} units, the chip has one a layer"
            self.refusals.append(Refusal(self.name, "thresholds", says, "train with one threshold a layer"))
            self.threshold = self.threshold.double().mean().round().to(torch.int64)

    def effective_threshold(self, spec: HardwareSpec) -> Tensor:
        """Where the chip's neurons fire, in its units."""
        form, rules = self.neuron.changed, spec.neuron
        up = int(rules.compare == ">" and not form.leaks and not form.has_synapse)
        return (self.threshold + up).double() * 2**rules.threshold_shift

    def _states(self, spec: HardwareSpec) -> None:
        rules, form = spec.neuron, self.neuron.changed
        smallest = float(self.effective_threshold(spec).min())
        rounds = (form.leaks and rules.decay is not None) or (rules.synapse != "none" and form.has_synapse)
        top = 2 ** (rules.state_bits - 1) - 1
        reached = float((self.largest * self.unit).max())
        if rounds:
            says = f"each step rounds states to a unit, {1 / smallest:.2%} of the smallest threshold"
            cure = f"it is less with wider states than {rules.state_bits} bits, or a larger threshold"
            self.refusals.append(Refusal(self.name, "states", says, cure))
        if reached > top * (1 + _EQUAL):
            says = f"on the example a state reaches {reached:,.0f}, {rules.state_bits} bits hold {top:,}"
            self.refusals.append(Refusal(self.name, "states", says, "train with smaller weights or longer resets"))
        cap = rules.output_spikes if self.output else rules.spikes
        if form.several and cap is not None and self.most_spikes > cap:
            says = f"on the example a neuron fires {self.most_spikes} times in a step, the chip's at most {cap} times"
            self.refusals.append(Refusal(self.name, "spikes", says, "train with larger thresholds or smaller weights"))
        if rules.current_overflow in ("wrap", "refuse"):
            self._bound(spec, top)

    def _bound(self, spec: HardwareSpec, top: int) -> None:
        fan = self.fan_codes.abs().sum(1).double() * 2.0**self.shift
        bound = float((fan * float(self.neuron.changed.tau_synapse.max())).max())
        if bound > top:
            what = "wrap" if spec.neuron.current_overflow == "wrap" else "overflow"
            says = (
                f"if every input fired at every step, its currents would reach {bound:,.0f} and {what} beyond {top:,}"
            )
            self.refusals.append(Refusal(self.name, "overflow", says, "train with fewer inputs or smaller weights"))


def top_of(spec: HardwareSpec) -> int:
    """The largest code; on the other side of 0 there is one more."""
    return 2 ** (spec.weights.bits - 1) - (2 if spec.weights.even else 1)


def _up(x: Tensor, step: int, above: bool) -> Tensor:
    """The least multiple of `step` that is not below, or that is above, where float32's rounding is none."""
    near = (x / step).round()
    meant = (x / step - near).abs() <= (x / step).abs() * 2.0**-22
    return (torch.where(meant, near + int(above), (x / step).ceil()) * step).to(torch.int64)
