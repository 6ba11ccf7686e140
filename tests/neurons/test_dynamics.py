"""One step of each neuron against numbers worked out by hand, and the constants that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from isofire.errors import ModelError, SpecError
from isofire.neurons import IF, LIF, ParametricLIF
from isofire.neurons.kinds.integrate_and_fire import IFDynamics, LIFDynamics, ParametricLIFDynamics
from isofire.neurons.surrogate import Sigmoid

V, X = torch.tensor([0.5]), torch.tensor([1.0])


@pytest.mark.parametrize(
    ("kind", "options", "decay", "expected"),
    [
        (IFDynamics, {}, None, 1.5),
        (LIFDynamics, {"tau": 4.0}, None, 0.625),  # .5 + (1 - .5) / 4
        (LIFDynamics, {"tau": 4.0, "decay_input": False}, None, 1.375),  # .5 - .5 / 4 + 1
        (LIFDynamics, {"tau": 4.0, "v_reset": -0.5}, None, 0.5),  # .5 + (1 - (.5 + .5)) / 4
        (LIFDynamics, {"tau": 4.0, "v_reset": -0.5, "decay_input": False}, None, 1.25),  # .5 - 1 / 4 + 1
        (LIFDynamics, {"tau": 4.0, "v_reset": None}, None, 0.625),  # soft reset rests at 0
        (ParametricLIFDynamics, {}, 0.75, 0.875),  # .5 + (1 - .5) * .75
        (ParametricLIFDynamics, {"decay_input": False}, 0.75, 1.125),  # .5 - .5 * .75 + 1
    ],
)
def test_charge(kind: Any, options: dict[str, Any], decay: float | None, expected: float) -> None:
    (h,) = kind(**options).charge(X, (V,), () if decay is None else (torch.tensor(decay),))
    assert h.item() == expected


def test_a_neuron_fires_at_its_threshold_and_not_below() -> None:
    d = IFDynamics(v_threshold=0.5)
    below = math.nextafter(0.5, 0.0)
    assert d.fire((torch.tensor([below, 0.5, 0.75], dtype=torch.float64),)).tolist() == [0.0, 1.0, 1.0]


def test_reset() -> None:
    h, s = torch.tensor([0.75, 1.75]), torch.tensor([0.0, 1.0])
    assert IFDynamics().reset((h,), s)[0].tolist() == [0.75, 0.0]
    assert IFDynamics(v_reset=-0.5).reset((h,), s)[0].tolist() == [0.75, -0.5]
    assert IFDynamics(v_reset=None, v_threshold=1.5).reset((h,), s)[0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_three_steps_by_hand(backend: Any) -> None:
    # hard reset to -.5, tau 2: h = (v + x - .5) / 2 at the threshold 1
    # step 1: (-.5 + 2 - .5) / 2 = .5; step 2: (.5 + 2 - .5) / 2 = 1 fires; step 3: (-.5 + 4 - .5) / 2 = 1.5 fires
    x = torch.tensor([2.0, 2.0, 4.0]).view(3, 1, 1)
    assert LIF(2.0, v_reset=-0.5, backend=backend)(x).flatten().tolist() == [0.0, 1.0, 1.0]
    # soft reset, tau 4 undecayed: h = .75 v + x. 1.5 fires, .5 stays; .375 + .5 = .875; .65625 + .5 = 1.15625 fires
    x = torch.tensor([1.5, 0.5, 0.5]).view(3, 1, 1)
    assert LIF(4.0, decay_input=False, v_reset=None, backend=backend)(x).flatten().tolist() == [1.0, 0.0, 1.0]
    # IF, soft: 2.5 fires, 1.5 stays; 1.5 fires without input, .5 stays; .5 does not
    x = torch.tensor([2.5, 0.0, 0.0]).view(3, 1, 1)
    assert IF(v_reset=None, backend=backend)(x).flatten().tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 0.99}, "tau must be finite and at least 1 .*got 0.99; use IF"),
        ({"tau": math.nan}, "tau must be finite"),
        ({"tau": math.inf}, "tau must be finite"),
        ({"v_threshold": math.nan}, "v_threshold must be finite, got nan"),
        ({"v_threshold": math.inf}, "v_threshold must be finite, got inf"),
        ({"v_reset": 1.0}, "v_reset must be finite and lie below v_threshold \\(1.0\\), got 1.0; for a soft reset"),
        ({"v_reset": math.nan}, "v_reset must be finite"),
        ({"v_reset": -math.inf}, "v_reset must be finite"),
        ({"tau": torch.tensor([2.0, 3.0])}, r"tau must be one number .* a tensor of shape \[2\]; CubaLIF"),
        ({"tau": "2"}, "tau must be one number .* got '2'"),
        ({"tau": None}, "tau must be one number"),
        ({"v_threshold": torch.tensor([1.0, 2.0])}, r"v_threshold must be one number .* shape \[2\]"),
        ({"v_threshold": None}, "v_threshold must be one number"),
        ({"v_reset": torch.zeros(2)}, "v_reset must be one number"),
        ({"v_floor": torch.zeros(2)}, "v_floor must be one number"),
        ({"v_reset": None, "v_threshold": 0.0}, "soft reset needs v_threshold > 0, got 0.0"),
    ],
)
def test_bad_constants(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LIF(**arguments)


def test_what_is_shown_of_a_learned_tau_is_what_it_has_become() -> None:
    neuron = ParametricLIF(3.0)
    assert repr(neuron).startswith("ParametricLIF(tau=3 (learned), decay_input=True, v_threshold=1,")
    with torch.no_grad():
        neuron.w.fill_(0.0)
    # 1 / sigmoid(0)
    assert "tau=2 (learned)" in repr(neuron)


@pytest.mark.parametrize("tau", [1.0, 0.5, math.nan, math.inf])
def test_a_learned_tau_starts_above_one(tau: float) -> None:
    with pytest.raises(SpecError, match="the one that it starts from as init_tau"):
        ParametricLIF(tau=2.5)  # type: ignore[call-arg]
    with pytest.raises(SpecError, match="init_tau must be finite and greater than 1"):
        ParametricLIF(tau)


def test_several_spikes_a_step_and_a_floor() -> None:
    neuron = IF(v_threshold=0.5, v_reset=None, several=True, v_floor=-1.0)
    # v: 1.25 -> .25; -2 -> -1 (floor); .5 -> .5, at the threshold, -> 0
    x = torch.tensor([1.25, -2.25, 1.5, 0.0]).view(4, 1, 1).requires_grad_()
    spikes = neuron(x)
    assert spikes.flatten().tolist() == [2.0, 0.0, 1.0, 0.0]
    spikes[2].sum().backward()
    assert x.grad is not None
    assert x.grad[2].item() == Sigmoid().slope(torch.tensor(0.0)).item()
    d = IFDynamics(v_reset=None, several=True)
    # half-way between two multiples of the threshold the slope is least, below the first it falls off
    assert d.distance((torch.tensor([0.25, 1.0, 2.25, 2.75]),)).tolist() == [-0.75, 0.0, 0.25, -0.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"several": True}, "need a soft reset"),
        ({"v_floor": 0.5}, "at most the rest"),
        ({"v_floor": math.nan}, "must be finite"),
    ],
)
def test_several_spikes_and_floors_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        IF(**options)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_fast_paths_refuse_what_they_do_not_know(backend: Any) -> None:
    with pytest.raises(ModelError, match="neither v_floor nor several"):
        IF(v_reset=None, several=True, backend=backend)(torch.zeros(1, 1, 1))
