"""The field's own membrane quantizers against their published formulas, written here once more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from isofire.errors import SpecError
from isofire.quantizers import MEMBRANES, NeuronFacts
from isofire.quantizers.weight_scale import WeightScale

V = torch.randn(500, 3, 2, generator=torch.Generator().manual_seed(0)) * 0.7


def run(quantizer: torch.nn.Module, v: Tensor) -> Tensor:
    with torch.no_grad():
        return quantizer(v)


# -- SpQuant: clamp, nearest of whole levels; slopes of sigmoids at the edges ----------------------------------------


@pytest.mark.parametrize("lowest", [-1, -3, 0])
def test_spquant(lowest: int) -> None:
    quantizer = MEMBRANES["spquant"](lowest=lowest).build(1)
    levels = torch.arange(lowest, 2.0)
    wanted = levels[(V.clamp(lowest, 1).unsqueeze(-1) - levels).abs().argmin(-1)]
    assert torch.equal(run(quantizer, V), wanted)
    x = V.clone().requires_grad_()
    quantizer(x).sum().backward()
    s = torch.sigmoid(2 * (V.unsqueeze(-1) - (levels[:-1] + 0.5)))
    torch.testing.assert_close(x.grad, (2 * s * (1 - s)).sum(-1))
    assert MEMBRANES["spquant"](lowest=lowest).nominal_bits == round(math.log2(2 - lowest), 3)


def test_spquant_scales_with_the_threshold() -> None:
    one = MEMBRANES["spquant"]().build(1)
    other = MEMBRANES["spquant"]().build_for(1, NeuronFacts(thresholds=(0.5,), v_reset=0.25))
    x, y = V.clone().requires_grad_(), (V * 0.25 + 0.25).requires_grad_()
    torch.testing.assert_close(other(y), one(x) * 0.25 + 0.25)
    one(x).sum().backward()
    other(y).sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    with pytest.raises(SpecError, match=r"lowest must be -254 to 0, .* got 1; -1 is"):
        MEMBRANES["spquant"](lowest=1)


# -- Q-SNN and MINT: tanh, clamp to a, round to 2^(b-1) - 1 steps ----------------------------------------------------


def squashed(u: Tensor, alpha: Tensor, bits: int, squash: bool = True) -> Tensor:
    """u_q of both published codes, with autograd; MINT is given alpha, Q-SNN takes the largest."""
    t = torch.tanh(u) if squash else u
    n = 2 ** (bits - 1) - 1
    t = torch.clamp(t / alpha, min=-1, max=1) * n
    return ((t.round() - t).detach() + t) * alpha / n


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_qsnn(bits: int, granularity: str) -> None:
    quantizer = MEMBRANES["qsnn"](bits=bits, granularity=granularity).build(1)
    quantizer.calibrate(V)
    alpha = torch.tanh(V).abs().amax((0, 2) if granularity == "channel" else (0, 1, 2)).view(-1, 1)
    x, y = V.clone().requires_grad_(), V.clone().requires_grad_()
    wanted = squashed(y, alpha, bits)
    # a float32 on an edge may fall to either side
    same = (quantizer(x) - wanted).abs() < 1e-5
    assert float(same.float().mean()) > 0.998
    quantizer(x).sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("squash", [True, False])
@pytest.mark.parametrize("bits", [2, 4])
def test_mint(bits: int, squash: bool) -> None:
    setting = MEMBRANES["mint"](bits=bits, squash=squash)
    quantizer = setting.build(1)
    step, unit, largest = torch.tensor([0.02, 0.05, 0.1]).double(), 0.5, 7
    setting.take_scale(quantizer, WeightScale(step, largest, unit))
    # the weights' range in the units of the currents, which the source quantizes in
    alpha = (step * largest / unit).float().view(-1, 1)
    x, y = V.clone().requires_grad_(), V.clone().requires_grad_()
    wanted = unit * squashed(y / unit, alpha, bits, squash)
    same = (quantizer(x) - wanted).abs() < 1e-5
    assert float(same.float().mean()) > 0.998
    quantizer(x).sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_mint_with_as_many_bits_as_the_weights_has_their_step() -> None:
    setting = MEMBRANES["mint"](bits=4, squash=False)
    quantizer = setting.build(1)
    step = torch.tensor([0.02, 0.05, 0.1]).double()
    setting.take_scale(quantizer, WeightScale(step, 7, 1.0))
    places = quantizer.levels() / step[:, None]
    torch.testing.assert_close(places, places.round())


# -- PTQ4SNN: signed integers, step s_w 2^k, the threshold at the top level as nearly as a shift allows --------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("tau", "threshold"), [(2.0, 1.0), (4.0, 0.5)])
def test_ptq4snn(bits: int, tau: float, threshold: float) -> None:
    setting = MEMBRANES["ptq4snn"](bits=bits)
    quantizer = setting.build_for(1, NeuronFacts(thresholds=(threshold,)))
    weights = np.array([0.003, 0.02, 0.11])
    leak, gain = 1 - 1 / tau, 1 / tau
    setting.take_scale(quantizer, WeightScale(torch.tensor(weights) * gain / leak, 7, gain / leak))
    # as published: mem = leak (1 - s) (mem + x), for x in units where the threshold is V_th / gain
    q = 2 ** (bits - 1) - 1
    exponent = np.round(np.log2(q / (threshold / gain * leak / weights)))
    alpha = weights / 2.0**exponent
    u = (leak / gain) * V.numpy()
    wanted = np.clip(np.round(u / alpha[:, None]), -q - 1, q) * alpha[:, None] * gain / leak
    same = np.abs(run(quantizer, V).numpy() - wanted) < 1e-5
    assert same.mean() > 0.998
    ratio = np.log2(alpha / weights)
    np.testing.assert_allclose(ratio, np.round(ratio), atol=1e-9)


# -- SQUAT: snnTorch's levels, as sums of a geometric series; against snnTorch itself in tests/adapters --------------


def test_squat_at_two_bits() -> None:
    def levels(**options: object) -> list[float]:
        return MEMBRANES["squat"](bits=2, **options).build(1).levels()[0].tolist()

    assert levels() == pytest.approx([-1, -1 + 2.2 / 3, -1 + 4.4 / 3, 1.2])
    # three gaps of 1 : 0.1 : 0.01 up to V_th, from whose last level one gap is left; then one level above
    whole = 1.11
    assert levels(spacing="threshold") == pytest.approx([-1, -1 + 2 / whole, -1 + 2.2 / whole, 1.2])
    # one below zero, three above, their gaps growing away from it
    assert levels(spacing="zero") == pytest.approx([-1, 1.2 * 0.01 / whole, 1.2 * 0.11 / whole, 1.2])


def test_published_methods_refuse_what_they_cannot_be() -> None:
    for method in ("mint", "qsnn", "ptq4snn"):
        with pytest.raises(SpecError, match=rf"{method} needs bits >= 2, got 1: .* none is left; take 2 bits"):
            MEMBRANES[method](bits=1)
    for options in ({"lower": -1.0}, {"upper": -0.1}, {"upper": 0.0, "spacing": "zero"}):
        with pytest.raises(SpecError, match="squat needs lower > -1 and upper >= 0"):
            MEMBRANES["squat"](bits=2, **options)
    with pytest.raises(SpecError, match=r"ratio 0\.5 and 8 bits, levels of squat coincide .* nearer to 1"):
        MEMBRANES["squat"](bits=8, spacing="zero", ratio=0.5)
    with pytest.raises(SpecError, match=r"ratio must lie above 0 and below 1, got 1"):
        MEMBRANES["squat"](bits=2, ratio=1.0)
