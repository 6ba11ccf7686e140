"""Whether a layer that is tried alone fires as it does in its network, and whether a bias is its own.

It does not fire so where the network carries something of what the layer gave to the layer's next step: a state that
the network changes between two steps, its spikes through weights that are no part of the neuron.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from isofire.adapters import find_neurons, from_rest
from isofire.quantization.by_firing.fired import firing_of
from isofire.quantization.by_firing.replay import Replay
from isofire.running import by_place, evaluating, forward, hooked, tensors_in

_SHARE = 0.001
"""Of the spikes, that may differ: a bias is added to stored currents in another order than a network adds it."""


def unlike(model: nn.Module, name: str, replay: Replay, batches: Sequence[Tensor]) -> str | None:
    """What is to be said of a layer that fires otherwise in its network than tried alone; None if it does not."""
    if max(map(len, replay.batches)) == 1:
        # all steps at once: nothing comes back between them
        return None
    alone, really = replay.counts(), firing_of(model, batches).counts[name]
    apart, fired = int((alone - really).abs().sum()), int(alone.sum() + really.sum())
    if apart <= 1 + _SHARE * fired:
        return None
    return (
        f"tried alone it gives {int(alone.sum())} spikes where in the network it gives {int(really.sum())} "
        f"({apart} apart): what it is given in a step depends on what it gave in an earlier one, "
        "as where a state is changed between two steps or spikes come back to their layer. Levels, biases and the "
        "drift told here are of the layer alone: look at isofire.compare, or take a method that does not go layer by "
        "layer"
    )


class Elsewhere:
    """What reaches other neurons and the outputs of a network while one layer of neurons gives what it gave.

    Parameters
    ----------
    name
        The layer.
    inputs
        A batch.
    """

    def __init__(self, model: nn.Module, name: str, inputs: Tensor) -> None:
        self.model, self.name, self.inputs = model, name, inputs
        self._gave: list[Any] = []
        self._was = self._run(first=True)

    def is_unmoved(self) -> bool:
        """Whether it is the same to the last bit in the network as it now is."""
        now = self._run(first=False)
        return len(now) == len(self._was) and all(map(torch.equal, now, self._was))

    @torch.no_grad()
    def _run(self, *, first: bool) -> list[Tensor]:
        seen: list[Tensor] = []
        given = iter(self._gave)

        def own(_module: nn.Module, _inputs: object, output: Any) -> Any:
            if first:
                # a network may write over what it was given
                self._gave.append(tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, output))
                return None
            return next(given, output)

        def other(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found = by_place(module, args, kwargs)[0][0]
            seen.append(found.detach().clone())

        neurons = {name: neuron for name, (neuron, _) in find_neurons(self.model).items()}
        handles = [
            neuron.register_forward_hook(own)
            if name == self.name
            else neuron.register_forward_pre_hook(other, with_kwargs=True)
            for name, neuron in neurons.items()
        ]
        with hooked(handles), evaluating(self.model), from_rest(self.model):
            result = forward(self.model, self.inputs)
        return [*seen, *tensors_in(result)]
