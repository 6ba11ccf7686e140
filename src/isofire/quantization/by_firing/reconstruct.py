"""Rounded weights moved on by gradient, until the neurons behind them fire as they should on each image.

What a block gives is reconstructed instead of its weights, as AdaRound (arXiv 2004.10568) and BRECQ (arXiv 2102.05426)
do; here a block is all that was rounded since the neurons before, and what it gives are the rates of its neurons. The
weights start from the rounding that there is. Each has a value of its own that moves by small steps along the
straight-through gradient, and takes the nearest level; what fires nearest to the target on all images is found. Norms
in between take the statistics of the batch meanwhile; they are measured anew on what is found, and where the error with
them has grown all is put back, so that no rounding is worse on these images than that it started from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.adapters import find_neurons, from_rest, heard
from isofire.quantization.by_firing.trace import Enough
from isofire.quantization.fake_weights import original
from isofire.quantizers import Quantizer
from isofire.running import drawing, evaluating, forward, hooked

_RATE = 0.004
"""Of the first step, in distances between levels; it falls to 0."""
_EVERY = 25
"""Steps between two looks at all images."""
_MARGIN = 0.1
"""How far inside its bin a weight's value starts, in widths of the bin."""
_BEYOND = 0.5
"""How far the outermost bins reach beyond their levels, in distances between levels."""


class Rounded(NamedTuple):
    """A layer's weights before they were rounded, and its levels.

    Parameters
    ----------
    weight
        `[O, ...]`.
    levels
        `[O or 1, L]`, ascending.
    """

    weight: Tensor
    levels: Tensor


Rates = dict[str, list[Tensor | None]]
"""Layer of neurons -> for each batch the spikes of each image's neurons over all steps, `[N, C, ...]`, or None."""


def rates_of(model: nn.Module, batches: Sequence[Tensor]) -> Rates:
    """How often each neuron fires on each image; None where a batch does not reach it."""
    neurons = find_neurons(model)
    found: Rates = {name: [None] * len(batches) for name in neurons}
    for place, inputs in enumerate(batches):

        def add(name: str, spikes: Tensor, place: int = place) -> None:
            before = found[name][place]
            total = spikes.sum(0, dtype=torch.float32)
            found[name][place] = total if before is None else before + total

        # a network that draws (Poisson encoding) draws the same for this batch whenever it is run
        drawn = drawing(place, inputs.device)
        with heard(neurons, add), torch.no_grad(), evaluating(model), from_rest(model), drawn:
            forward(model, inputs)
    return found


class Seen(NamedTuple):
    """A batch: its place among all, its inputs, and what the neurons should do on it."""

    place: int
    inputs: Tensor
    rates: Tensor


class Block:
    """A layer of neurons, and the rounded layers that its currents come from.

    Parameters
    ----------
    model
        Prepared, the layers rounded.
    name
        The layer of neurons.
    rounded
        What may move: layer -> what it was.
    norms
        Norms in between that are measured anew afterwards.
    batches
        Inputs.
    rates
        What the neurons should do, one for each batch; see `rates_of`.
    calls
        How often a forward pass calls the neurons.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        rounded: Mapping[str, Rounded],
        norms: Sequence[nn.Module],
        batches: Sequence[Tensor],
        rates: Sequence[Tensor | None],
        calls: int,
    ) -> None:
        self.model, self.name, self.calls = model, name, calls
        self.neuron, self.adapter = find_neurons(model)[name]
        each = enumerate(zip(batches, rates, strict=True))
        self.seen = [Seen(place, inputs, rate) for place, (inputs, rate) in each if rate is not None]
        # of one image there are no statistics
        several = [batch for batch in self.seen if len(batch.rates) > 1]
        self.norms = [norm for norm in norms if several and isinstance(norm, _BatchNorm)]
        self.learnt = several if self.norms else self.seen
        self.layers = {layer: _Moving(original(model.get_submodule(layer)), was) for layer, was in rounded.items()}

    @torch.no_grad()
    def improve_(self, steps: int) -> Improved:
        """Move the weights; each step looks at one batch."""
        with self._ready():
            reached = self._gradients(0, 1.0)
            moving = {name: self.layers[name] for name, found in reached.items() if found is not None}
            best = start = self._error(self.learnt)
            kept = {name: layer.rounded() for name, layer in moving.items()}
            for step in self._steps(moving, steps, start) if moving else ():
                if (step % _EVERY == 0 or step == steps) and (error := self._error(self.learnt)) < best:
                    best, kept = error, {name: layer.rounded() for name, layer in moving.items()}
        for name, weight in kept.items():
            original(self.model.get_submodule(name)).copy_(weight)
        return Improved(tuple(moving), start, best)

    def _steps(self, moving: Mapping[str, _Moving], steps: int, unit: float) -> Iterator[int]:
        """Take steps along the gradient, in units of the error at the start, and tell the number of each."""
        optimizer = torch.optim.Adam([{"params": [layer.value], "lr": _RATE * layer.gap} for layer in moving.values()])
        falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        chance = torch.Generator().manual_seed(0)
        for step in range(1, steps + 1):
            gradients = self._gradients(int(torch.randint(len(self.learnt), (), generator=chance)), unit)
            for name, layer in moving.items():
                layer.value.grad = gradients[name]
            optimizer.step()
            falling.step()
            yield step

    def _gradients(self, place: int, unit: float) -> dict[str, Tensor | None]:
        """Of each layer's values, by one batch; None where these neurons' spikes do not depend on them."""
        values = [layer.value for layer in self.layers.values()]
        with torch.enable_grad():
            loss = self._loss(self.learnt[place]) / (unit or 1.0)
            found = (
                torch.autograd.grad(loss, values, allow_unused=True) if loss.requires_grad else (None,) * len(values)
            )
        return dict(zip(self.layers, found, strict=True))

    @torch.no_grad()
    def error(self) -> float:
        """The loss over all batches, with the norms' running statistics."""
        with evaluating(self.model):
            return self._error(self.seen)

    def _error(self, batches: Sequence[Seen]) -> float:
        """The loss over batches, each image counting the same."""
        with torch.no_grad():
            total = sum(float(self._loss(batch)) * len(batch.rates) for batch in batches)
        return total / sum(len(batch.rates) for batch in batches)

    def _loss(self, batch: Seen) -> Tensor:
        """Mean square of the rates' changes, of each image and of each neuron's mean over the batch."""
        found: list[Tensor] = []
        steps = 0

        def add(_module: nn.Module, _inputs: object, output: Any) -> None:
            nonlocal steps
            spikes = self.adapter.spikes(self.neuron, output)
            steps += len(spikes)
            found.append(spikes.sum(0))
            if len(found) == self.calls:
                raise Enough

        listening = hooked([self.neuron.register_forward_hook(add)])
        with from_rest(self.model), listening, drawing(batch.place, batch.inputs.device), suppress(Enough):
            forward(self.model, batch.inputs)
        off = (torch.stack(found).sum(0) - batch.rates) / steps
        return off.square().mean() + off.mean(0).square().mean()

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The layers' weights are those that move; neurons give gradients, norms use the batch's statistics and keep
        their own, and nothing else takes gradients."""
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            for parameter in self.model.parameters():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            for neuron, _ in find_neurons(self.model).values():
                # some libraries' neurons have no gradient in eval mode
                neuron.training = True
            for norm in self.norms:
                stack.callback(setattr, norm, "momentum", norm.momentum)
                if norm.num_batches_tracked is not None:
                    stack.callback(norm.num_batches_tracked.copy_, norm.num_batches_tracked.clone())
                norm.training, norm.momentum = True, 0.0
            for name, layer in self.layers.items():
                held: Any = self.model.get_submodule(name).parametrizations["weight"]  # type: ignore[index,union-attr]
                place = next(place for place, module in enumerate(held) if isinstance(module, Quantizer))
                stack.callback(held.__setitem__, place, held[place])
                held[place] = layer
            yield


class Improved(NamedTuple):
    """What moving a block's weights gave.

    Parameters
    ----------
    layers
        Those that a gradient from the neurons' spikes reaches, which moved.
    before, after
        The error over all images, with the norms' statistics of each batch.
    """

    layers: tuple[str, ...]
    before: float
    after: float


class _Moving(nn.Module):
    """In a quantizer's place: weights that take the nearest level to values that move.

    Attributes
    ----------
    value
        `[O, K]`. It starts within the bin of the level that each weight has, as near as that allows to the weight
        before it was rounded, times the factor of its row that fits the rounding best.
    gap
        Mean distance between levels.
    """

    def __init__(self, rounded: Tensor, was: Rounded) -> None:
        super().__init__()
        now, before = rounded.detach().flatten(1), was.weight.detach().flatten(1)
        self.levels = was.levels.to(now).expand(len(now), -1).contiguous()
        self.middles = ((self.levels[:, 1:] + self.levels[:, :-1]) / 2).contiguous()
        gaps = (self.levels[:, -1:] - self.levels[:, :1]) / (self.levels.shape[1] - 1)
        self.gap = float(gaps.mean())
        square = before.square().sum(1, keepdim=True)
        factor = (now * before).sum(1, keepdim=True) / torch.where(square > 0, square, 1.0)
        bin_ = torch.searchsorted(self.middles, now)
        ends = torch.cat([self.levels[:, :1] - _BEYOND * gaps, self.middles, self.levels[:, -1:] + _BEYOND * gaps], 1)
        low, high = ends.gather(1, bin_), ends.gather(1, bin_ + 1)
        inset = _MARGIN * (high - low)
        value = torch.minimum(torch.maximum(factor * before, low + inset), high - inset)
        self.value = value.clone().requires_grad_(True)
        self.shape = rounded.shape

    def rounded(self) -> Tensor:
        """`[O, ...]`: the levels that they have."""
        bin_ = torch.searchsorted(self.middles, self.value.detach())
        return self.levels.gather(1, bin_).view(self.shape)

    def forward(self, _weight: Tensor) -> Tensor:
        return self.rounded() + (self.value - self.value.detach()).view(self.shape)
