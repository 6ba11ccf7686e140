"""Layers of neurons that stop firing while a network is trained, told when it happens."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, find_neurons, original
from isofire.adapters.own import only_looks
from isofire.errors import IsofireError
from isofire.quantization.diagnosis.silence import why_silent
from isofire.running import OfOnePass

EVERY = 50
"""Steps of an epoch from one look to the next, its first step on: a look reads every spike of the batch once."""
_CURE = "lower lr or lengthen warmup_epochs, or hold the rates by a loss (losses = { paired = 1.0 })"

_LOG = logging.getLogger(__name__)


class SilenceWatch(OfOnePass):
    """Looks whether every layer of neurons made a spike in a training step; logs each that did not once, with the
    reason, and again only after it has fired in between.

    Parameters
    ----------
    model
        The network in training; a compiled one, whose neurons cannot be listened to, is not watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        compiled = any(original(module) is not module for module in model.modules())
        self.neurons = {} if compiled else find_neurons(model)
        self.silent: set[str] = set()
        self._most: dict[str, list[Tensor]] = {}

    @contextmanager
    def looking(self, step: int) -> Iterator[None]:
        """Listen to the forward pass of a step inside, if it is one that is looked at."""
        self._most = {}
        with ExitStack() as stack:
            if step % EVERY == 0:
                for name, (neuron, adapter) in self.neurons.items():
                    stack.callback(neuron.register_forward_hook(self._hook(name, adapter)).remove)
            yield

    def _hook(self, name: str, adapter: Adapter) -> Any:
        @only_looks
        def hook(neuron: nn.Module, _inputs: Any, output: Any) -> None:
            spikes = adapter.spikes(neuron, output)
            if isinstance(spikes, Tensor) and spikes.numel():
                self._most.setdefault(name, []).append(spikes.detach().amax())

        return hook

    def tell(self, inputs: Tensor, epoch: int, step: int) -> None:
        """Log the layers that the last look found silent, and why; to be called between two steps.

        Parameters
        ----------
        inputs
            Of that step.
        epoch, step
            Counted from 0.
        """
        if not self._most:
            return
        firing = torch.stack([torch.stack(most).amax() for most in self._most.values()]).tolist()
        silent = {name for name, most in zip(self._most, firing, strict=True) if not most > 0}
        fresh, self.silent, self._most = silent - self.silent, silent, {}
        for text in self._reasons(fresh, inputs) if fresh else ():
            _LOG.warning("epoch %d, step %d: %s", epoch + 1, step + 1, text)

    def _reasons(self, names: set[str], inputs: Tensor) -> list[str]:
        try:
            with torch.no_grad():
                return [str(fault) for fault in why_silent(self.model, sorted(names), [inputs], cure=_CURE)]
        except IsofireError as error:
            # a weight that is not finite any more stops the run, and says so itself
            return [f"{name}: no neuron fires ({error})" for name in sorted(names)]
