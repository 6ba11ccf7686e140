"""One step of training as a value: what a loss may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

from isofire.errors import SpecError

Need = Literal["rates", "spikes", "membranes", "teacher", "stored", "synops"]
"""What a loss can ask for besides logits and labels; see `Step` for what each gives."""

Layers = Mapping[str, Tensor]
"""Name of a layer of spiking neurons -> tensor."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What one forward pass of a network over a batch gave.

    Reading what no loss asked for raises SpecError, as it was not recorded.

    Attributes
    ----------
    logits
        `[T, N, classes]`, or `[N, classes]` of a network that has read out already.
    presentations
        T * N, of which rates are means; 0 where neither rates nor spikes were asked for.
    """

    logits: Tensor
    presentations: int = 0
    rates_: Layers | None = None
    spikes_: Layers | None = None
    membranes_: Layers | None = None

    @property
    def rates(self) -> Layers:
        """Per layer, `[...]`: each neuron's mean over steps and images, in spikes per neuron per step."""
        return _asked(self.rates_, "rates")

    @property
    def spikes(self) -> Layers:
        """Per layer, `[T, N, ...]`."""
        return _asked(self.spikes_, "spikes")

    @property
    def membranes(self) -> Layers:
        """Per layer, `[T, N, ...]`: the potential in units of the layer's threshold.

        Taken at the place of the layer's membrane quantizer, as it comes out of it; where there is none, before the
        comparison with the threshold. Layers without spikes or with a state of their own library's making alike.
        """
        return _asked(self.membranes_, "membranes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Step(Pass):
    """One step of training: the pass of the network in training, whose tensors carry gradient, and what goes with it.

    Attributes
    ----------
    labels
        `[N]`, int64.
    label_smoothing
        The recipe's; for losses on labels.
    """

    labels: Tensor
    label_smoothing: float = 0.0
    teacher_: Pass | None = None
    stored_: Layers | None = None
    synops_: Layers | None = None

    @property
    def teacher(self) -> Pass:
        """The teacher's pass over the same batch, in eval mode and without gradient, with what was asked for."""
        return _asked(self.teacher_, "teacher")

    @property
    def stored(self) -> Layers:
        """Per layer, `[...]`: the teacher's rates over the first batches of the run, taken once before it."""
        return _asked(self.stored_, "stored")

    @property
    def synops(self) -> Layers:
        """Per layer, `[n]`: synaptic operations that one spike of each neuron causes, neurons flattened."""
        return _asked(self.synops_, "synops")


def _asked(value: T | None, need: Need) -> T:
    if value is None:
        raise SpecError(f"a loss reads {need!r} of a step, which it does not ask for; add {need!r} to its asks()")
    return value
