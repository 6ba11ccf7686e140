"""The self-test at attach time: a hook that changes spikes, or is run past, is found before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter
from isofire.adapters.facts import check_answers, check_reset, check_threshold, floating, is_isofires, twin_of
from isofire.errors import IsofireError, ModelError
from isofire.neurons import MembraneQuantizer
from isofire.neurons.membrane import Placement
from isofire.quantizers import RangeObserver, Uniform
from isofire.running import seed_generators

STEPS = 5
GAINS = 12
HOLDS = ((-(2.0**-6), 2.0**-6), *((top / 2, top) for top in (2.0, 2.0**6, 2.0**12, 2.0**20)))
"""Ranges, in thresholds, that membranes are held in, one after the other until spikes change: near 0 a neuron falls
silent; where no current makes it fire, or a strong leak leaves little of a stored state, a high one makes it fire."""


def run_self_test(name: str, neuron: nn.Module, adapter: Adapter, placement: Placement) -> None:
    """Check on copies of the neuron, in train and eval mode, that a membrane quantizer will do what it says.

    A quantizer that changes nothing must leave every spike as it is and be called once a step; of those that hold the
    membrane in a range of `HOLDS`, one must change the spikes.

    Raises
    ------
    ModelError
        If the kind of neuron is refused, one of these fails, or the neuron's own code raises an error; of an adapter
        that is not isofire's own, if an answer of its methods is of another kind, or its threshold or reset is not the
        neuron's.
    """
    reason = adapter.refusal(neuron, placement)
    if reason is not None:
        raise ModelError(
            f"the membrane of {name!r} cannot be quantized at {placement}: {reason}; leave it float by a rule "
            f"(match {name!r}, membrane 'float')"
        )
    if not is_isofires(adapter):
        check_answers(name, neuron, adapter)
    plain, watched, held = (twin_of(name, neuron, adapter) for _ in range(3))
    counter = _Counter()
    watching = MembraneQuantizer(Uniform(8), placement)
    watching.observer = counter
    currents = trial_currents(plain, adapter)
    adapter.attach(watched, watching.to(currents.device))
    told, failure = partial(_told, name, neuron, placement), partial(_failure, name, neuron, placement)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in (True, False):
            with told(training, "without a quantizer too"):
                expected = _run(plain, adapter, currents, training)
            counter.calls = 0
            with told(training, "with a quantizer, though not without"):
                spikes = _run(watched, adapter, currents, training)
            if counter.calls != STEPS:
                what = f"the quantizer was called {counter.calls} times in {STEPS} steps"
                raise failure(training, what, adapter)
            if not torch.equal(spikes, expected):
                raise failure(training, "a quantizer that changes nothing changes its spikes", adapter)
            with told(training, "with a quantizer, though not without"):
                ways = (_held(held, adapter, currents, training, placement, hold) for hold in HOLDS)
                silent = all(torch.equal(spikes, expected) for spikes in ways)
            if silent:
                raise failure(training, "what the quantizer returns has no effect on spikes", adapter)
    if not is_isofires(adapter):
        check_threshold(name, neuron, adapter)
        check_reset(name, neuron, adapter)


@contextmanager
def _told(name: str, neuron: nn.Module, placement: str, training: bool, when: str) -> Iterator[None]:
    """The neuron runs inside; an error of its code is raised as a ModelError that says so."""
    try:
        yield
    except IsofireError:
        raise
    except Exception as error:
        # the code of others raises whatever it does, and memory and interrupts are not its faults
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        what = f"its own forward fails in the self-test, {when} ({type(error).__name__}: {error})"
        raise _failure(name, neuron, placement, training, what) from error


class _Counter(RangeObserver):
    """Counts how often a membrane was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def observe(self, x: Tensor) -> None:
        self.calls += 1


def _failure(
    name: str, neuron: nn.Module, placement: str, training: bool, what: str, adapter: Adapter | None = None
) -> ModelError:
    """The error that says what is wrong; it is the host's fault where an adapter is given that is not isofire's own."""
    mend = "" if adapter is None or is_isofires(adapter) else f"mend host() of {type(adapter).__qualname__}, or "
    return ModelError(
        f"the membrane of {name!r} ({type(neuron).__name__}) cannot be quantized at {placement}: {what} "
        f"({'train' if training else 'eval'} mode); {mend}leave it float by a rule (match {name!r}, membrane 'float')"
    )


def trial_currents(neuron: nn.Module, adapter: Adapter) -> Tensor:
    """[T, N, ...]: image i has gain 2**(i - 4) in units of the threshold, so that some fire often and some never."""
    like = floating(neuron, adapter)
    generator = torch.Generator().manual_seed(0)
    shape = adapter.shape(neuron)
    drawn = torch.randn(STEPS, GAINS, *shape, generator=generator) * 1.5 + 0.8
    gains = 2.0 ** (torch.arange(GAINS) - 4).view(-1, *(1,) * len(shape))
    return (drawn * gains * _scale(neuron, adapter)).to(like.device, like.dtype)


def _scale(neuron: nn.Module, adapter: Adapter) -> float:
    return float(adapter.threshold(neuron).abs().max()) or 1.0


def _held(
    neuron: nn.Module,
    adapter: Adapter,
    currents: Tensor,
    training: bool,
    placement: Placement,
    hold: tuple[float, float],
) -> Tensor:
    lowest, highest = (bound * _scale(neuron, adapter) for bound in hold)
    adapter.attach(neuron, MembraneQuantizer(Uniform(2, range=(lowest, highest)), placement).to(currents.device))
    return _run(neuron, adapter, currents, training)


def _run(neuron: nn.Module, adapter: Adapter, currents: Tensor, training: bool) -> Tensor:
    neuron.train(training)
    seed_generators(0, currents.device)
    return adapter.drive(neuron, currents)
