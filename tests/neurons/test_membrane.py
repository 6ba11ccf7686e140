"""Where the membrane is quantized: three-step traces worked out by hand, calibration, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, MembraneQuantizer, Neuron, Triangle
from isofire.quantizers import LSQ, RangeObserver, Uniform

BACKENDS = ["reference", "torch", "auto"]


def steps(*inputs: float) -> torch.Tensor:
    return torch.tensor(inputs).view(-1, 1, 1)


def trains(neuron: Neuron, x: torch.Tensor, quantizer: Uniform) -> dict[str, list[float]]:
    """Spike trains without a quantizer and with one at either place."""
    found = {"none": neuron(x).flatten().tolist()}
    for placement in ("pre_fire", "post_reset"):
        neuron.membrane = MembraneQuantizer(quantizer, placement)
        found[placement] = neuron(x).flatten().tolist()
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
def test_a_quantizer_that_passes_is_none_on_every_path(backend: Any, placement: Any) -> None:
    x = 2 * torch.randn(4, 2, 3, 50, generator=torch.Generator().manual_seed(0))
    neuron = LIF(backend=backend)
    plain = neuron(x)
    # not even a range is needed
    neuron.membrane = MembraneQuantizer(LSQ(2), placement)
    neuron.membrane.passes = True
    assert torch.equal(neuron(x), plain)
    neuron.membrane = MembraneQuantizer(Uniform(2, range=(0.0, 0.9)), placement)
    neuron.membrane.passes = True
    assert torch.equal(neuron(x), plain)
    neuron.membrane.passes = False
    assert not torch.equal(neuron(x), plain)


@pytest.mark.parametrize("backend", BACKENDS)
class TestTraces:
    """Levels 0, .5, 1, 1.5 and threshold 1; every number is exact in binary."""

    quantizer = Uniform(2, range=(0.0, 1.5))

    def test_if_hard_reset(self, backend: Any) -> None:
        # none:       .875;            .875 + .0625 = .9375;      .9375 + .25 = 1.1875 fires
        # pre_fire:   .875 -> 1 fires; 0 + .0625 -> 0;            0 + .25 -> k = .5, tie to even, 0
        # post_reset: .875, kept as 1; 1 + .0625 = 1.0625 fires;  0 + .25 = .25
        assert trains(IF(backend=backend), steps(0.875, 0.0625, 0.25), self.quantizer) == {
            "none": [0.0, 0.0, 1.0],
            "pre_fire": [1.0, 0.0, 0.0],
            "post_reset": [0.0, 1.0, 0.0],
        }

    def test_if_soft_reset(self, backend: Any) -> None:
        # none:       .875;                .875 + .5 = 1.375 fires, .375;    .375 + .5 = .875
        # pre_fire:   .875 -> 1 fires, 0;  0 + .5 -> .5;                     .5 + .5 -> 1 fires
        # post_reset: .875, kept as 1;     1 + .5 = 1.5 fires, .5 kept;      .5 + .5 = 1 fires
        assert trains(IF(v_reset=None, backend=backend), steps(0.875, 0.5, 0.5), self.quantizer) == {
            "none": [0.0, 1.0, 0.0],
            "pre_fire": [1.0, 0.0, 1.0],
            "post_reset": [0.0, 1.0, 1.0],
        }

    def test_lif_decayed_input(self, backend: Any) -> None:
        # tau 2: h = (v + x) / 2
        # none:       .875;                (.875 + 1) / 2 = .9375;  (.9375 + 1.25) / 2 = 1.09375 fires
        # pre_fire:   .875 -> 1 fires, 0;  1 / 2 -> .5;             (.5 + 1.25) / 2 = .875 -> 1 fires
        # post_reset: .875, kept as 1;     (1 + 1) / 2 = 1 fires;   1.25 / 2 = .625
        assert trains(LIF(2.0, backend=backend), steps(1.75, 1.0, 1.25), self.quantizer) == {
            "none": [0.0, 0.0, 1.0],
            "pre_fire": [1.0, 0.0, 1.0],
            "post_reset": [0.0, 1.0, 0.0],
        }

    def test_lif_undecayed_input(self, backend: Any) -> None:
        # tau 2: h = v / 2 + x
        # none:       .875;                .4375 + .5 = .9375;  .46875 + .5 = .96875
        # pre_fire:   .875 -> 1 fires, 0;  .5 -> .5;            .25 + .5 = .75 -> k = 1.5, tie to even, 1 fires
        # post_reset: .875, kept as 1;     .5 + .5 = 1 fires;   .5
        assert trains(LIF(2.0, decay_input=False, backend=backend), steps(0.875, 0.5, 0.5), self.quantizer) == {
            "none": [0.0, 0.0, 0.0],
            "pre_fire": [1.0, 0.0, 1.0],
            "post_reset": [0.0, 1.0, 0.0],
        }

    def test_a_state_outside_the_range_is_clipped(self, backend: Any) -> None:
        # post_reset, soft: 4 fires, 3 is kept as 1.5; 1.5 fires, .5; without the quantizer 3 and 2 fire too
        assert trains(IF(v_reset=None, backend=backend), steps(4.0, 0.0, 0.0), self.quantizer) == {
            "none": [1.0, 1.0, 1.0],
            "pre_fire": [1.0, 0.0, 0.0],  # 4 -> 1.5 fires, .5
            "post_reset": [1.0, 1.0, 0.0],
        }

    def test_per_channel(self, backend: Any) -> None:
        # two channels with the same input .875: levels 0, .5, 1, 1.5 round it up to 1, levels 0, .8, ... down to .8
        per_channel: Any = {"granularity": "channel", "channels": 2, "channel_axis": 1}
        quantizer = Uniform(2, range="minmax", signed=False, refresh=0, **per_channel)
        quantizer.calibrate(torch.tensor([[1.5, 2.4]]))
        neuron = IF(backend=backend)
        neuron.membrane = MembraneQuantizer(quantizer, "pre_fire")
        assert neuron(torch.full((1, 1, 2), 0.875)).tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("ste", "expected"), [("clipped", 0.0), ("plain", 0.5)])
def test_straight_through_gradient_by_hand(backend: Any, ste: Any, expected: float) -> None:
    # IF, soft, the triangle's slope at h is max(0, 1 - |h - 1|). Step 1: x = 2 is above the range's end 1.5.
    # Its quantized h = 1.5 has slope .5; the gradient of s there passes to x only with the plain estimator.
    neuron = IF(v_reset=None, surrogate=Triangle(), backend=backend)
    neuron.membrane = MembraneQuantizer(Uniform(2, range=(0.0, 1.5), ste=ste), "pre_fire")
    x = torch.full((1, 1, 1), 2.0, requires_grad=True)
    neuron(x).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == expected


@pytest.mark.parametrize(("placement", "low", "high"), [("pre_fire", 0.75, 1.5), ("post_reset", 0.0, 0.875)])
def test_an_observer_sees_the_states_and_changes_nothing(placement: Any, low: float, high: float) -> None:
    # charged .75, .875, 1.5 (fires); after the reset .75, .875, 0
    x = steps(0.75, 0.125, 0.625)
    neuron = IF()
    neuron.membrane = MembraneQuantizer(Uniform(2, range="minmax", refresh=0), placement)
    neuron.membrane.observer = RangeObserver("tensor", channel_axis=1)
    assert neuron(x).flatten().tolist() == [0.0, 0.0, 1.0]
    assert neuron.membrane.observer.count == 3
    assert neuron.membrane.observer.extremes().tolist() == [[low, high]]
    assert not neuron.membrane.is_fixed


def test_a_range_that_follows_the_states_is_followed() -> None:
    neuron = IF()
    quantizer = Uniform(4, range="minmax")
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset")
    neuron(torch.full((1, 1, 3), 0.75, requires_grad=True))
    assert quantizer.hi.item() == 0.75
    neuron(torch.full((1, 1, 3), 0.25, requires_grad=True))
    assert quantizer.hi.item() == 0.25
    neuron.eval()
    neuron(torch.full((1, 1, 3), 0.5, requires_grad=True))
    assert quantizer.hi.item() == 0.25
    assert neuron.membrane.is_fixed


def test_a_learned_membrane_quantizer_runs_and_learns() -> None:
    neuron = LIF()
    quantizer = LSQ(3, granularity="tensor")
    quantizer.calibrate(torch.linspace(-1, 1, 50))
    neuron.membrane = MembraneQuantizer(quantizer, "post_reset")
    neuron(torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)) * 2).sum().backward()
    assert quantizer.step.grad is not None
    assert quantizer.step.grad.abs().item() > 0
    for backend in ("native", "torch"):
        neuron.backend = backend  # type: ignore[assignment]
        with pytest.raises(ModelError, match=f"backend '{backend}' cannot learn or observe a membrane quantizer"):
            neuron(torch.rand(3, 2, 4))


def test_unknown_placement() -> None:
    with pytest.raises(SpecError, match="placement must be one of pre_fire, post_reset, got 'post'"):
        MembraneQuantizer(Uniform(2), "post")  # type: ignore[arg-type]


def test_channels_lie_on_axis_one() -> None:
    with pytest.raises(SpecError, match=r"axis 1 of \[N, C, ...\], got channel_axis=0"):
        MembraneQuantizer(Uniform(2, range="minmax", granularity="channel", channels=3, channel_axis=0), "pre_fire")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_quantizer_that_does_not_fit(backend: Any) -> None:
    neuron = IF(backend=backend)
    quantizer = Uniform(2, range="minmax", granularity="channel", channels=4, channel_axis=1, refresh=0)
    neuron.membrane = MembraneQuantizer(quantizer, "pre_fire")
    with pytest.raises(ModelError, match="no range yet"):
        neuron(torch.rand(2, 3, 4))
    quantizer.calibrate(torch.rand(9, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ModelError, match="holds 4 channels, but the input has 5 along axis 1"):
        neuron(torch.rand(2, 3, 5, 2, 2))
    with pytest.raises(ModelError, match="channel_axis=1, but the input has shape \\(4,\\)"):
        neuron(torch.rand(2, 4))
