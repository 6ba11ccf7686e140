"""Calibration layer by layer, from input to output, by what each layer's neurons then do.

Each step sees the layers before it as they will be: quantized. Its target is how the full-precision network fires on
the same images, so that a layer also makes good what those before it lost.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, input_axis
from isofire.errors import ModelError, SpecError
from isofire.neurons import MembraneQuantizer
from isofire.quantization.by_firing.alone import unlike
from isofire.quantization.by_firing.bias import Bias, bias_of
from isofire.quantization.by_firing.bypass import Bypass
from isofire.quantization.by_firing.correction import search_shift
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.by_firing.images import MOST_IMAGES, enough_images, first_that_fit
from isofire.quantization.by_firing.membrane import fit_membrane_
from isofire.quantization.by_firing.normed import normed_layers
from isofire.quantization.by_firing.objective import Objective, firing_error
from isofire.quantization.by_firing.patches import KINDS, moments
from isofire.quantization.by_firing.reconstruct import Block, Rates, Rounded, rates_of
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import Call, calls_of, trace
from isofire.quantization.can_fire import check_can_fire
from isofire.quantization.contract import own_code, try_states
from isofire.quantization.diagnosis.fault import LEAST_SPIKES
from isofire.quantization.diagnosis.silence import reason
from isofire.quantization.fake_weights import original
from isofire.quantization.plan import LayerAssignment
from isofire.quantization.reestimate import reestimate_batch_norm
from isofire.quantization.shared_scale import weight_scale
from isofire.quantizers.compensated import TooFewPatchesError
from isofire.quantizers.observer import RangeObserver
from isofire.quantizers.setting import MembraneSetting, WeightSetting
from isofire.running import statistics_of

_LOG = logging.getLogger(__name__)


class Step(NamedTuple):
    """What was done to one layer.

    Parameters
    ----------
    layer
        Its name.
    done
        "weights rounded", "norm measured", "weights reconstructed", "rates corrected", "levels chosen", "compared with
        the network" or "gone silent".
    before, after
        Mean |change| of its neurons' rates against full precision, in spikes per neuron per step; None where it is not
        looked at.
    note
        What could not be done, or is wrong, and why; None if all is well.
    share
        How much of all work is then done, 0 to 1, about: layers count by their neurons.
    """

    layer: str
    done: str
    before: float | None = None
    after: float | None = None
    note: str | None = None
    share: float = 0.0

    def __str__(self) -> str:
        drift = "" if self.before is None or self.after is None else f", drift {self.before:.5f} -> {self.after:.5f}"
        return f"{self.layer}: {self.done}{drift}{f' ({self.note})' if self.note else ''}"


OnStep = Callable[[Step], None]


class ByLayer:
    """A prepared network that is calibrated layer by layer.

    Parameters
    ----------
    model
        Prepared, its weight quantizers calibrated.
    assignments
        The settings of its layers.
    batches
        Inputs, on the model's device.
    correct
        Whether each channel's rate is brought back by a bias.
    reestimate
        Whether norms are measured anew.

    Attributes
    ----------
    images
        How many `run` looked at: those of the batches that fit, see `first_that_fit`.
    most
        How many it would look at if it had more.
    kept
        Layers whose biases may not be moved, as those that are quantized themselves.
    """

    images, most = 0, MOST_IMAGES

    def __init__(
        self,
        model: nn.Module,
        assignments: Iterable[LayerAssignment],
        batches: Sequence[Tensor],
        *,
        correct: bool,
        reestimate: bool,
    ) -> None:
        chosen = [item for item in assignments if item.setting is not None]
        self.weights = {i.name: i for i in chosen if isinstance(i.setting, WeightSetting)}
        self.membranes = {i.name: i for i in chosen if isinstance(i.setting, MembraneSetting)}
        self.model, self.batches = model, batches
        self.correct, self.reestimate = correct, reestimate
        self.neurons = find_neurons(model)
        self.kept: frozenset[str] = frozenset()
        self.silent: list[str] = []
        self.biases: dict[str, Bias | None] = {}
        self.rounded: dict[str, Rounded] = {}
        self.rates: Rates = {}

    def run(self, on_step: OnStep | None = None) -> list[Step]:
        """Calibrate, from input to output; what was done, layer by layer.

        Raises
        ------
        SpecError
            If a layer's inputs do not allow compensated rounding.
        ModelError
            If the network fails, or does not call a layer.
        """
        steps: list[Step] = []
        with Bypass(self.model) as self.bypass, torch.no_grad():
            given = self.batches
            self.batches, self.images = first_that_fit(self.model, given)
            if self.images < sum(inputs.shape[input_axis(self.model, inputs)] for inputs in given):
                self.most = self.images
            self.look(firing_of(self.model, self.batches).counts)
            if any(item.of(WeightSetting).reconstruct for item in self.weights.values()):
                self.rates = rates_of(self.model, self.batches)
            sizes = {name: counts.numel() for name, counts in self.targets.items() if name in self.trace.order}
            done = 0
            for name in self.trace.order:
                done += sizes.get(name, 0)
                for step in self.layer(name):
                    steps.append(step._replace(share=done / max(1, sum(sizes.values()))))
                    if on_step is not None:
                        on_step(steps[-1])
        return steps

    def look(self, targets: dict[str, Tensor]) -> None:
        """See in which order the network runs, and take these spikes `[C, P]` of each layer as what it should do."""
        layers = [name for name, module in self.model.named_modules() if isinstance(module, KINDS)]
        self.trace, self.targets = trace(self.model, self.batches, layers), targets
        self.normed = normed_layers(self.model, self.batches, layers) if self.reestimate else frozenset()

    def layer(self, name: str) -> Iterable[Step]:
        """Do what this layer needs."""
        if name in self.neurons:
            yield from self.fire(name)
        elif name in self.weights:
            yield self.round(name)
        elif self.is_measured(name):
            yield self.measure(name)

    def is_measured(self, name: str) -> bool:
        return self.reestimate and name in statistics_of(self.model)

    # -- weights and norms -------------------------------------------------------------------------------------------

    def round(self, name: str) -> Step:
        """Quantize a layer's weights; compensated, if its setting says so."""
        choice, layer = self.weights[name], self.model.get_submodule(name)
        setting = choice.of(WeightSetting)
        if setting.compensates:
            calls = [call for calls in self.calls(name) for call in calls]
            seen, normed = moments(layer, calls), name in self.normed
            held = original(layer)
            try:
                with own_code(choice, setting, "round"):
                    rounded = setting.round(
                        held,
                        self.bypass.weights[name],
                        seen.centred if normed else seen.squares,
                        seen.rows,
                        normed=normed,
                    )
            except TooFewPatchesError as error:
                cure = enough_images(self.images, self.most, error.got, error.needed)
                raise SpecError(f"{error} (layer {name!r}, rule {choice.rule!r}); {cure}") from error
            except SpecError as error:
                raise SpecError(f"{error} (layer {name!r})") from error
            if rounded.shape != held.shape:
                raise ModelError(
                    f"{type(setting).__name__}.round gives shape {tuple(rounded.shape)} for {tuple(held.shape)}; "
                    f"it must keep the shape (layer {name!r}, rule {choice.rule!r}, method {setting.method!r})"
                )
            if setting.reconstruct and (table := self.bypass.weights[name].table()) is not None:
                self.rounded[name] = Rounded(held.detach().clone(), table.levels)
            held.copy_(rounded)
        self.bypass.on_weights(name)
        return Step(name, "weights rounded")

    def measure(self, name: str) -> Step:
        """Measure a norm on all that it is given, by its own forward, which knows where its channels are.

        SpikingJelly's norms take [T, N, C, ...] in step mode "m". A norm that several layers of neurons share is
        measured at the first of them, on what all of them give it.
        """
        inputs = [call.input for calls in self.calls(name) for call in calls]
        reestimate_batch_norm(self.model.get_submodule(name), inputs)
        return Step(name, "norm measured")

    def reconstruct(self, name: str) -> Step:
        """Move the weights that were rounded since the neurons before, by what these neurons do."""
        before = self.replay(name)
        drift = self.error(name, before.counts())
        first = min(map(self.trace.order.index, self.rounded))
        between = [other for other in self.trace.order[first : self.trace.order.index(name)] if self.is_measured(other)]
        norms = [self.model.get_submodule(other) for other in between]
        block = Block(self.model, name, self.rounded, norms, self.batches, self.rates.pop(name), self.trace.calls[name])
        weights = {layer: original(self.model.get_submodule(layer)).clone() for layer in self.rounded}
        statistics, error = [copy.deepcopy(norm.state_dict()) for norm in norms], block.error()
        found = block.improve_(max(self.weights[layer].of(WeightSetting).reconstruct for layer in self.rounded))
        for other in between:
            self.measure(other)
        note = None if found.layers else "no gradient from these neurons reaches a rounded layer"
        if block.error() > error:
            for norm, was in zip(norms, statistics, strict=True):
                norm.load_state_dict(was)
            for layer, weight in weights.items():
                original(self.model.get_submodule(layer)).copy_(weight)
            note = "what was found is no better with the norms measured anew, and was put back"
        for layer in found.layers:
            del self.rounded[layer]
        after = self.error(name, self.replay(name).counts())
        return Step(name, "weights reconstructed", before.as_rate(drift), before.as_rate(after), note)

    # -- neurons -----------------------------------------------------------------------------------------------------

    def fire(self, name: str) -> Iterable[Step]:
        """Bring a layer's rates back and choose how its membranes are stored."""
        if self.rounded:
            yield self.reconstruct(name)
        replay = self.replay(name)
        if self.correct or name in self.membranes:
            replay.require_threshold(name)
        if self.correct:
            yield self.bring_back(name, replay)
        if name in self.membranes:
            membrane = self.bypass.membranes[name]
            before = self.error(name, replay.counts())
            self.bypass.on_membrane(name)
            choice = self.membranes[name]
            setting = choice.of(MembraneSetting)
            objective: Objective = getattr(setting, "objective", "paired")
            if setting.shares_scale:
                self.share(choice, membrane, setting, self.batches[replay.reached])
            else:
                seen = fit_membrane_(membrane, choice, replay, lambda counts: self.error(name, counts, objective))
                check_can_fire(self.model, choice, membrane.quantizer, seen)
            after = self.error(name, replay.counts())
            yield Step(name, "levels chosen", replay.as_rate(before), replay.as_rate(after))
            if self.correct:
                yield self.bring_back(name, replay)
        if (note := self.unlike(name, replay)) is not None:
            _LOG.warning("calibration: %r: %s", name, note)
            yield Step(name, "compared with the network", note=note)
        if int(self.targets[name].sum()) >= LEAST_SPIKES and not bool(replay.counts().any()):
            fault = reason(name, replay, self.silent)
            self.silent.append(name)
            _LOG.warning("calibration: %s", fault)
            yield Step(name, "gone silent", note=f"{fault.found}; {fault.cure}")

    def unlike(self, name: str, replay: Replay) -> str | None:
        """What is to be said where the layer fires otherwise in the network; see `alone.unlike`."""
        return unlike(self.model, name, replay, self.batches)

    def share(
        self, choice: LayerAssignment, membrane: MembraneQuantizer, setting: MembraneSetting, inputs: Tensor
    ) -> None:
        """Give a layer's membranes the scale of the weights before them, as these inputs tell it."""
        membrane.observer = observer = RangeObserver()
        try:
            scale = weight_scale(self.model, choice.name, inputs)
        finally:
            membrane.observer = None
        with own_code(choice, setting, "take_scale"):
            setting.take_scale(membrane.quantizer, scale)
        try_states(choice, membrane.quantizer, observer)

    def bring_back(self, name: str, replay: Replay) -> Step:
        """Find the shift of each bias that brings its neurons' rates back, and write it where the network keeps it."""
        if name not in self.biases:
            self.biases[name] = bias_of(self.model, name, replay, self.batches, self.trace)
        if (bias := self.biases[name]) is None:
            return Step(name, "rates corrected", note="no bias of its own reaches this layer's currents")
        if any(bias.holder is self.model.get_submodule(other) for other in self.kept):
            return Step(name, "rates corrected", note="the bias that reaches this layer's currents is quantized itself")
        shift, before, after = search_shift(
            lambda shift: bias.gather(replay.counts(bias.spread(shift))),
            bias.gather(self.targets[name]),
            replay.unit,
        )
        bias.add_(shift)
        if replay.norm is None:
            replay.shift_(bias.spread(shift))
        return Step(name, "rates corrected", replay.as_rate(before), replay.as_rate(after))

    # -- what both need ----------------------------------------------------------------------------------------------

    def calls(self, name: str) -> list[list[Call]]:
        return calls_of(self.model, name, self.batches, self.trace.calls[name])

    def replay(self, name: str) -> Replay:
        neuron, adapter = self.neurons[name]
        return Replay(neuron, adapter, self.calls(name))

    def error(self, name: str, counts: Tensor, objective: Objective = "paired") -> Tensor:
        return firing_error(counts, self.targets[name], objective)
