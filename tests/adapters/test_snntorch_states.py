"""snnTorch's neurons at post_reset: what a loop hands on keeps what was known of it before rounding."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isofire.adapters import adapter_of
from isofire.errors import ModelError
from isofire.neurons import MembraneQuantizer
from isofire.quantizers import MEMBRANES, Uniform

snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)

STEPS, IMAGES, NEURONS = 8, 24, 6
KINDS: dict[str, Callable[..., Any]] = {
    "Leaky": lambda **options: snntorch.Leaky(0.5, **options),
    "Synaptic": lambda **options: snntorch.Synaptic(0.5, 0.5, **options),
    "RLeaky": lambda **options: snntorch.RLeaky(0.5, V=0.5, all_to_all=False, **options),
    "RSynaptic": lambda **options: snntorch.RSynaptic(0.5, 0.5, V=0.5, all_to_all=False, **options),
}
EITHER_WAY = pytest.mark.parametrize("threshold", [1.25, 0.75])
"""Of levels -1.5, -0.5, 0.5 and 1.5: rounding lifts states over the one, and brings states below the other."""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """snnTorch's `detach_hidden` goes through all neurons that were ever made."""
    kept = list(snntorch.SpikingNeuron.instances)
    yield
    snntorch.SpikingNeuron.instances[:] = kept


def quantized(kind: str, mechanism: str, threshold: float) -> Any:
    neuron = KINDS[kind](threshold=threshold, reset_mechanism=mechanism, reset_delay=False)
    adapter = adapter_of(neuron)
    assert adapter is not None
    adapter.attach(neuron, MembraneQuantizer(Uniform(2, range=(-1.5, 1.5)), "post_reset"))
    return neuron


def currents_of(seed: int = 0) -> Tensor:
    """Whole 1/64: float32 has every sum that follows to the last bit."""
    drawn = torch.randn(STEPS, IMAGES, NEURONS, generator=torch.Generator().manual_seed(seed)) * 1.5
    return (drawn * 64).round() / 64


@torch.no_grad()
def spikes_of(neuron: Any, currents: Tensor, hand: Callable[[Tensor], Tensor]) -> np.ndarray:
    *others, mem = states if isinstance(states := neuron.reset_mem(), tuple) else (states,)
    found = []
    for current in currents:
        if mem.shape != current.shape:
            *others, mem = [torch.zeros_like(current) for _ in (*others, mem)]
        spikes, *others, mem = neuron(current, *others, hand(mem))
        others = [spikes, *others] if type(neuron).__name__.startswith("R") and len(others) < 2 else others
        found.append(spikes)
    return torch.stack(found).numpy()


def expected(
    kind: str,
    mechanism: str,
    threshold: float,
    currents: Tensor,
    hand: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """snnTorch's formulas in numpy: spikes and resets by full potentials, alone the state that is stored rounded."""
    mem, syn, spikes = (np.zeros((IMAGES, NEURONS)) for _ in range(3))
    above, found = np.zeros((IMAGES, NEURONS), bool), []
    for x in currents.double().numpy():
        if hand is not None:
            was, mem = mem, hand(mem)
            above = np.where(mem == was, above, mem > threshold)
        drive = x + (0.5 * spikes if kind.startswith("R") else 0.0)
        if kind.endswith("Synaptic"):
            syn = drive = 0.5 * syn + drive
        h = 0.5 * mem + drive
        h = (
            h - above * threshold
            if mechanism == "subtract"
            else (1 - above) * mem * 0.5 + drive * (1 if kind == "Leaky" else 1 - above)
        )
        spikes = (h > threshold).astype(float)
        if kind != "RSynaptic":  # which forgets the reset that it has computed
            h = h - (spikes - above) * (threshold if mechanism == "subtract" else h)
        above = h > threshold
        mem = np.clip(np.rint(h + 1.5), 0, 3) - 1.5
        found.append(spikes)
    return np.stack(found)


UNCHANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda mem: mem,
    "detach": lambda mem: mem.detach(),
    "clone": lambda mem: mem.clone(),
    "data": lambda mem: mem.data,
    "stack": lambda mem: torch.stack([mem, mem])[1],
    "parts": lambda mem: torch.cat(mem.chunk(3)),
    "another layout": lambda mem: mem.t().contiguous().t(),
    "another type and back": lambda mem: mem.double().float(),
    "half precision": lambda mem: mem.half(),
}


@EITHER_WAY
@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_handed_on_unchanged_gives_the_same_spikes(kind: str, mechanism: str, threshold: float) -> None:
    currents = currents_of()
    wanted = expected(kind, mechanism, threshold, currents)
    assert 0.05 < wanted.mean() < 0.6
    for name, hand in UNCHANGED.items():
        assert np.array_equal(spikes_of(quantized(kind, mechanism, threshold), currents, hand), wanted), name


def half_gone(mem: Any) -> Any:
    mem = mem + 0
    mem[:, ::2] = 0
    return mem


def written_over(mem: Tensor) -> Tensor:
    mem[:, ::2] = 0
    return mem


@EITHER_WAY
@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky"])
def test_what_the_network_has_changed_is_reset_by_snntorchs_rule(kind: str, mechanism: str, threshold: float) -> None:
    currents = currents_of(1)
    ways: list[tuple[Callable[[Tensor], Tensor], Callable[[np.ndarray], np.ndarray]]] = [
        (half_gone, half_gone),
        (written_over, half_gone),
        (lambda mem: mem + 0.5, lambda mem: mem + 0.5),
        (lambda mem: mem.clamp(max=0.5), lambda mem: mem.clip(max=0.5)),
        (lambda mem: mem.where(mem < 1, 1.0), lambda mem: np.where(mem < 1, mem, 1.0)),
    ]
    for hand, theirs in ways:
        wanted = expected(kind, mechanism, threshold, currents, theirs)
        assert np.array_equal(spikes_of(quantized(kind, mechanism, threshold), currents, hand), wanted)


@EITHER_WAY
@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
def test_images_in_another_order_or_fewer_of_them_keep_their_own(mechanism: str, threshold: float) -> None:
    currents = torch.cat([currents_of(seed) for seed in range(4)], 2)  # wide enough that no two images are alike
    neuron, order, found = quantized("Leaky", mechanism, threshold), torch.arange(IMAGES), []
    mem, generator = torch.zeros(IMAGES, 4 * NEURONS), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for current in currents:
            chosen = torch.randperm(len(order), generator=generator)[: len(order) - 2]
            order, mem = order[chosen], mem[chosen]
            spikes, mem = neuron(current[order], mem)
            found.append((order, spikes))
    wanted = [expected("Leaky", mechanism, threshold, part) for part in currents.split(NEURONS, 2)]
    for (images, spikes), right in zip(found, np.concatenate(wanted, 2), strict=True):
        assert np.array_equal(spikes.numpy(), right[images])


def test_images_that_join_start_at_rest() -> None:
    neuron, single = quantized("Leaky", "subtract", 1.25), quantized("Leaky", "subtract", 1.25)
    currents = torch.cat([currents_of(seed) for seed in range(4)], 2)
    mem, found = torch.zeros(2, 4 * NEURONS), []
    with torch.no_grad():
        for step, current in enumerate(currents):
            if step:
                mem = torch.cat([torch.zeros(1, 4 * NEURONS), mem])
            spikes, mem = neuron(current[: len(mem)], mem)
            found.append(spikes[-2:])
            assert torch.equal(spikes[0], single(current[:1], torch.zeros(1, 4 * NEURONS))[0][0])
    # the two that were there first: each step a place further on
    shifted = torch.stack([current[step : step + 2] for step, current in enumerate(currents)])
    alone, mem = quantized("Leaky", "subtract", 1.25), torch.zeros(2, 4 * NEURONS)
    for spikes, current in zip(found, shifted, strict=True):
        wanted, mem = alone(current, mem)
        assert torch.equal(spikes, wanted)


def test_images_that_cannot_be_told_apart_are_refused() -> None:
    neuron = quantized("Leaky", "zero", 1.25)
    neuron.reset_mechanism = "none"
    _, mem = neuron(torch.tensor([[1.125, 0.5], [1.375, 0.5], [0.5, 0.5]]), torch.zeros(3, 2))
    assert torch.equal(mem, torch.tensor([[1.5, 0.5], [1.5, 0.5], [0.5, 0.5]]))
    with pytest.raises(ModelError, match=r"image 1 of the states .* may be either of two images .* take placement"):
        neuron(torch.zeros(3, 2), mem[[2, 1, 0]])
    neuron(torch.zeros(3, 2), mem.clone())


def test_a_state_of_another_pass_says_nothing_of_a_fresh_one() -> None:
    # 0.75 is stored as 0: above the threshold, and the next pass starts at the same number
    neuron = snntorch.Leaky(0.5, threshold=0.5, reset_mechanism="none", reset_delay=False)
    adapter = adapter_of(neuron)
    assert adapter is not None
    adapter.attach(neuron, MembraneQuantizer(Uniform(2, range=(-2, 2), grid="midtread"), "post_reset"))
    neuron.reset_mechanism = "subtract"
    current = torch.full((2, 3), 1.25)  # 0.75 remains
    for fresh in (torch.zeros(2, 3), neuron.reset_mem()):
        spikes, mem = neuron(current, fresh)
        assert torch.equal(spikes, torch.ones(2, 3))
        assert torch.equal(mem, torch.zeros(2, 3))


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_a_trace_fires_alike_on_other_images(placement: Any) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = quantized("Leaky", "subtract", 1.25)
            self.neuron.membrane.placement = placement

        def forward(self, x: Tensor) -> Tensor:
            mem, found = self.neuron.reset_mem(), []
            for _ in range(STEPS):
                spikes, mem = self.neuron(x, mem.clone())
                found.append(spikes)
            return torch.stack(found)

    loop, (silent, other) = Loop(), currents_of()[:2]
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        loop(other)
        traced = torch.jit.trace(loop, silent * 0)
        assert torch.equal(traced(other), loop(other))
        assert 0 < float(loop(other).mean()) < 1


@pytest.mark.parametrize("method", ["uniform", "squat"])
def test_an_export_fires_alike_on_other_images(method: str) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = snntorch.Leaky(0.5, threshold=1.25)
            adapter = adapter_of(self.neuron)
            assert adapter is not None
            levels = (
                Uniform(2, range=(-1.5, 1.5))
                if method == "uniform"
                else MEMBRANES[method](bits=2).build_for(1, adapter.facts(self.neuron))
            )
            adapter.attach(self.neuron, MembraneQuantizer(levels, "pre_fire"))

        def forward(self, x: Tensor) -> Tensor:
            mem, found = self.neuron.reset_mem(), []
            for _ in range(STEPS):
                spikes, mem = self.neuron(x, mem)
                found.append(spikes)
            return torch.stack(found)

    loop, (silent, other) = Loop(), currents_of()[:2]
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        exported = torch.export.export(loop, (silent * 0,)).module()
        assert torch.equal(exported(other), loop(other))
        assert 0 < float(loop(other).mean()) < 1


def test_a_neuron_whose_quantizer_is_gone_is_copied_with_nothing_left_of_it() -> None:
    neuron = quantized("Leaky", "subtract", 1.25)
    neuron(torch.ones(2, 3), torch.zeros(2, 3))
    adapter = adapter_of(neuron)
    assert adapter is not None
    adapter.detach(neuron)
    twin = copy.deepcopy(neuron)
    assert type(twin) is snntorch.Leaky
    assert "_stored" not in vars(twin)


@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_levels_that_a_trace_cannot_hold_are_refused(placement: Any) -> None:
    neuron = snntorch.Leaky(0.5, reset_delay=placement == "pre_fire")
    adapter = adapter_of(neuron)
    assert adapter is not None
    levels = MEMBRANES["squat"](bits=2).build_for(1, adapter.facts(neuron))
    adapter.attach(neuron, MembraneQuantizer(levels, placement))
    with pytest.raises(ModelError, match="cannot write down the levels of a") as refused, torch.no_grad():
        torch.jit.trace(neuron, (torch.ones(2, 3), torch.zeros(2, 3)))
    assert ("torch.export" in str(refused.value)) is (placement == "pre_fire")
