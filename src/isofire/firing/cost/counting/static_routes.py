"""Which places with weights, and which neurons, come right behind each place, with neither in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from isofire.firing.cost.counting.makers import Makers
from isofire.firing.record import spiking_adapters
from isofire.running import hooked, tensors_in


class Routes(Makers[str]):
    """Follows what places give, to be entered below a `Trace` that tells `pass_by` of them.

    Attributes
    ----------
    axes
        Place -> most axes of what it gives; in the order in which they were first called.
    alone
        Places that some call sees the image alone, with no spikes beside it.
    neurons, others
        Place -> neurons, and other places, that come right behind it.
    varied
        Neurons that are given numbers that differ.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.axes: dict[str, int] = {}
        self.alone: set[str] = set()
        self.neurons: dict[str, set[str]] = defaultdict(set)
        self.others: dict[str, set[str]] = defaultdict(set)
        self.varied: set[str] = set()
        self._model = model

    @contextmanager
    def noting(self) -> Iterator[None]:
        """With hooks on the neurons, and none left behind."""
        neurons = spiking_adapters(self._model)
        with hooked(
            [
                *(
                    neuron.register_forward_pre_hook(self._entering(name), with_kwargs=True)
                    for name, (neuron, _) in neurons.items()
                ),
                *(neuron.register_forward_hook(self._leave) for neuron, _ in neurons.values()),
            ]
        ):
            yield

    def pass_by(self, site: str, output: Tensor, alone: bool) -> None:
        """A place gave something, of the image alone or of spikes beside it."""
        self.axes[site] = max(output.ndim, self.axes.get(site, 0))
        self.alone |= {site} if alone else set()
        for other in self.of(output):
            self.others[other].add(site)
        self.write(output, frozenset((site,)))

    def _entering(self, name: str) -> Any:
        def hook(_neuron: nn.Module, given: Any, options: Any) -> None:
            for x in tensors_in(given, options):
                for site in self.of(x):
                    self.neurons[site].add(name)
            # a state that differs would hide a blank image
            many = [x for x in tensors_in(given, options) if x.numel() > 1 and x.layout is torch.strided]
            if many and name not in self.varied and all(bool((x != x.flatten()[:1]).any()) for x in many):
                self.varied.add(name)

        return hook

    def _leave(self, _neuron: nn.Module, _given: Any, output: Any) -> None:
        for x in tensors_in(output):
            self.write(x, frozenset())
