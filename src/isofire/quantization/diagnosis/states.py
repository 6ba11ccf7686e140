"""What a network's membrane quantizers are given: how often each level is taken, and what lies beyond the levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons
from isofire.neurons import MembraneQuantizer, Neuron
from isofire.quantizers import Quantizer
from isofire.quantizers.rows import to_rows


class StateTally(nn.Module):
    """Stands in a quantizer's place: passes what it gives, and counts.

    Attributes
    ----------
    taken
        How often each level was taken, `[G, L]` int64; None before the first state.
    below, above
        States below the lowest and above the highest level of their group.
    """

    is_fixed = False
    """So that no fast path passes it by."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.taken: Tensor | None = None
        self.below = self.above = 0

    @property
    def axis(self) -> int | None:
        """As the quantizer's own."""
        return self.quantizer.axis

    def forward(self, state: Tensor) -> Tensor:
        """The quantizer's answer."""
        with torch.no_grad():
            codes = to_rows(self.quantizer.codes(state), self.axis).values.long()
            values, levels = to_rows(state.detach().float(), self.axis).values, self.quantizer.levels()
            groups, count = len(codes), levels.shape[1]
            places = codes + count * torch.arange(groups, device=codes.device).unsqueeze(1)
            found = torch.bincount(places.flatten(), minlength=groups * count).reshape(groups, count)
            self.taken = found if self.taken is None else self.taken + found
            self.below += int((values < levels[:, :1]).sum())
            self.above += int((values > levels[:, -1:]).sum())
        return self.quantizer(state)

    @property
    def states(self) -> int:
        """How many states were counted."""
        return 0 if self.taken is None else int(self.taken.sum())

    @property
    def levels_used(self) -> float:
        """Levels that any state took, mean over the groups that have their own."""
        return 0.0 if self.taken is None else float((self.taken > 0).double().sum(1).mean())


@contextmanager
def counting_states(model: nn.Module) -> Iterator[Mapping[str, StateTally]]:
    """Count the states of every layer with a membrane quantizer in the forward passes inside: layer -> tally.

    The network computes what it does without; it runs step by step.
    """
    tallies: dict[str, StateTally] = {}
    with ExitStack() as undo:
        for name, (neuron, adapter) in find_neurons(model).items():
            membrane = adapter.membrane(neuron)
            if membrane is None:
                continue
            tallies[name] = _stand_in(membrane, undo)
            if isinstance(neuron, Neuron):
                # a forced fast path keeps its states to itself
                undo.callback(setattr, neuron, "backend", neuron.backend)
                neuron.backend = "auto"
        yield tallies


def _stand_in(membrane: MembraneQuantizer, undo: ExitStack) -> StateTally:
    quantizer = membrane.quantizer
    tally = StateTally(quantizer).train(quantizer.training)
    undo.callback(setattr, membrane, "quantizer", quantizer)
    membrane.quantizer = tally  # pyright: ignore[reportAttributeAccessIssue]
    return tally
