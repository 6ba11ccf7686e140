"""Which places with weights, and which neurons, come right behind each place, with neither in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isofire.firing.cost.events.events import storage_of
from isofire.firing.record import spiking_adapters
from isofire.running import OfOnePass, hooked


class Routes(OfOnePass, TorchDispatchMode):
    """Follows what places give, to be entered below a `Trace` that tells `pass_by` of them.

    Attributes
    ----------
    shapes
        Place -> of what it gave last; in the order in which they were first called.
    neurons, others
        Place -> neurons, and other places, that come right behind it.
    varied
        Neurons that are given numbers that differ.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.shapes: dict[str, torch.Size] = {}
        self.neurons: dict[str, set[str]] = defaultdict(set)
        self.others: dict[str, set[str]] = defaultdict(set)
        self.varied: set[str] = set()
        self._model = model
        # a memory to which a weak reference is held lends its address to no other
        self._made_by: dict[int, tuple[StorageWeakRef, frozenset[str]]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # as of `Trace`
        return False

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

    def pass_by(self, site: str, output: Tensor) -> None:
        """A place gave something."""
        self.shapes[site] = output.shape
        for other in self._makers(output):
            self.others[other].add(site)
        self._write(output, frozenset((site,)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        makers = frozenset[str]().union(*map(self._makers, tensors_in((args, kwargs))))
        output = func(*args, **(kwargs or {}))
        written = tensors_in(args[:1]) if func._schema.is_mutable else []
        for x in (*tensors_in(output), *written):
            self._write(x, makers)
        return output

    def _makers(self, x: Tensor) -> frozenset[str]:
        found = self._made_by.get(storage_of(x)._cdata)
        return frozenset() if found is None else found[1]

    def _write(self, x: Tensor, makers: frozenset[str]) -> None:
        storage = storage_of(x)
        if makers or storage._cdata in self._made_by:
            self._made_by[storage._cdata] = StorageWeakRef(storage), makers

    def _entering(self, name: str) -> Any:
        def hook(_neuron: nn.Module, given: Any, options: Any) -> None:
            for x in tensors_in((given, options)):
                for site in self._makers(x):
                    self.neurons[site].add(name)
            if name not in self.varied and any(bool((x != x.flatten()[:1]).any()) for x in tensors_in(given)[:1]):
                self.varied.add(name)

        return hook

    def _leave(self, _neuron: nn.Module, _given: Any, output: Any) -> None:
        for x in tensors_in(output):
            self._write(x, frozenset())


def tensors_in(values: Any) -> list[Tensor]:
    """Of whatever holds them."""
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]
