"""Which convolution or linear layer alone gives a layer of neurons their currents, and which output each current is.

Found by running the network with the layer's outputs replaced by numbers of their own, so that it does not matter how
they travel: repeated over the steps, folded, permuted, flattened, through a norm. What is more than one output (a pool)
or not the layer's alone (a second branch) is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons
from isofire.errors import SpecError
from isofire.quantization.by_firing.patches import KINDS
from isofire.quantization.by_firing.replay import Replay
from isofire.quantization.by_firing.trace import Call, calls_of, trace

_CLOSE = 1e-4
# digits that float32 tells apart behind a norm
_BASE = 64

Instead = Callable[[Tensor], Tensor]
"""Of the numbers of some outputs, what stands in their place."""


class LayerBefore(NamedTuple):
    """A layer each of whose neurons' currents is one output of `layer`, times a factor, plus a constant of its channel.

    Parameters
    ----------
    layer
        Its name.
    gains
        `[C]` float64: the factor of each of the neurons' channels, a norm that they apply themselves included.
    channels
        `[M, C, P]` int64: the layer's channel that each current comes from.
    """

    layer: str
    gains: Tensor
    channels: Tensor


def layer_before(model: nn.Module, name: str, inputs: Tensor) -> LayerBefore:
    """The layer that alone gives the neurons `name` their currents on these inputs.

    Raises
    ------
    SpecError
        If there is none, saying what is in the way.
    ModelError
        If the inputs do not reach the neurons.
    """
    neuron, adapter = find_neurons(model)[name]
    layers = [own for own, module in model.named_modules() if isinstance(module, KINDS)]
    seen = trace(model, [inputs], layers)
    (given,) = calls_of(model, name, [inputs], seen.calls.get(name, 0))
    replay = Replay(neuron, adapter, [given])
    currents = _currents(given, replay.channel_axis)
    why = "no convolution or linear layer reaches them"
    for layer in reversed([own for own in seen.order[: seen.order.index(name)] if own in layers]):
        found = _Probe(model, name, layer, inputs, seen.calls[name], replay.channel_axis).look(currents)
        if isinstance(found, LayerBefore):
            return found._replace(gains=found.gains * _norm_gain(replay))
        if found is not None:
            why = found
            break
    raise SpecError(
        f"the currents of {name!r} share no scale with weights: {why}; take another membrane method, or leave the "
        f"neurons float by a rule (match {name!r}, membrane 'float')"
    )


class _Probe:
    """Runs a network up to its neurons `name`, the outputs of `layer` replaced."""

    def __init__(self, model: nn.Module, name: str, layer: str, inputs: Tensor, expected: int, axis: int) -> None:
        self.model, self.name, self.layer, self.inputs = model, name, layer, inputs
        self.expected, self.axis = expected, axis

    def look(self, currents: Tensor) -> LayerBefore | str | None:
        """What was found; why these currents `[M, C, P]` are not the layer's; None if it does not reach them."""
        outputs, _ = self.run(None)
        values = torch.cat([x.flatten() for x in outputs]).double()
        scale, move = float(currents.abs().max()), float(values.abs().max()) or 1.0
        zero = self.given(lambda places: torch.zeros(places.shape))
        if zero.shape != currents.shape:
            return f"how many there are depends on the outputs of {self.layer!r}"
        if bool(values.any()) and _close(zero, currents, 1e-3 * scale):
            return None
        whole = self.given(lambda places: torch.full(places.shape, move)) - zero
        if not _alike(whole, move):
            return f"some take the outputs of {self.layer!r} times another factor than others of their channel"
        if not _alike(zero, scale):
            return f"{self.layer!r} does not give them alone (with its outputs at 0 they differ within a channel still)"
        sources = self.sources(zero, whole, move, len(values))
        if not _close(zero + whole / move * values[sources], currents, scale):
            return (
                f"they are not single outputs of {self.layer!r}: what is in between mixes or bends these, as a pool, "
                "an activation function or a norm by each image's own statistics does"
            )
        return LayerBefore(self.layer, whole.mean((0, 2)) / move, self.channels_of(outputs)[sources])

    def sources(self, zero: Tensor, whole: Tensor, move: float, count: int) -> Tensor:
        """Which of `count` outputs each current is, by the digits of its number; any where outputs count nothing.

        `zero` and `zero + whole` are the currents if all outputs are 0 and `move`.
        """
        found, worth, unit = torch.zeros_like(zero, dtype=torch.int64), 1, move / (_BASE - 1)
        while worth < count:
            came = self.given(lambda places, worth=worth: places // worth % _BASE * unit) - zero
            found += (came / whole * (_BASE - 1)).nan_to_num(0, 0, 0).round().long() * worth
            worth *= _BASE
        return found.clamp(0, count - 1)

    def channels_of(self, outputs: Sequence[Tensor]) -> Tensor:
        """The channel of every output, in the order of their numbers."""
        module = self.model.get_submodule(self.layer)
        space = 0 if isinstance(module, nn.Linear) else len(module.kernel_size)  # type: ignore[arg-type]
        return torch.cat(
            [
                torch.arange(x.shape[-space - 1], device=x.device).view(-1, *[1] * space).expand(x.shape).flatten()
                for x in outputs
            ]
        )

    def given(self, instead: Instead) -> Tensor:
        """What the neurons are given, `[M, C, P]` float64."""
        return _currents(self.run(instead)[1], self.axis)

    def run(self, instead: Instead | None) -> tuple[list[Tensor], list[Call]]:
        """What the layer gives by itself, and what the neurons are then given."""
        outputs: list[Tensor] = []
        count = 0

        def note(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            nonlocal count
            # the network may change it in place
            outputs.append(output.detach().clone())
            places = torch.arange(count, count + output.numel(), device=output.device).view(output.shape)
            count += output.numel()
            return None if instead is None else instead(places).to(output)

        with self.model.get_submodule(self.layer).register_forward_hook(note):
            (calls,) = calls_of(self.model, self.name, [self.inputs], self.expected)
        return outputs, calls


def _currents(calls: Sequence[Call], axis: int) -> Tensor:
    """Currents as `[M, C, P]` float64."""
    return torch.cat(
        [
            c.input.flatten(0, axis - 1).reshape(-1, c.input.shape[axis], c.input.shape[axis + 1 :].numel())
            for c in calls
        ]
    ).double()


def _alike(values: Tensor, scale: float) -> bool:
    """Whether the values of each channel `[M, C, P]` are one."""
    low, high = values.amin((0, 2)), values.amax((0, 2))
    return bool((high - low <= _CLOSE * max(scale, float(values.abs().max()))).all())


def _close(found: Tensor, wanted: Tensor, scale: float) -> bool:
    return found.shape == wanted.shape and bool(((found - wanted).abs() <= _CLOSE * scale).all())


def _norm_gain(replay: Replay) -> Tensor:
    """Factor of the norm that the neuron applies itself, `[C]`; 1 without one."""
    norm = replay.norm
    if norm is None or norm.running_var is None:
        return torch.ones((), dtype=torch.float64)
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    return gain if norm.weight is None else gain * norm.weight.detach().double()
