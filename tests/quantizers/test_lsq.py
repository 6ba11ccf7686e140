from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from isofire.errors import ModelError, SpecError
from isofire.quantizers import LSQ, grids, ranges
from isofire.spec import LSQWeights, UniformWeights


def calibrated(bits: int, x: torch.Tensor, **settings) -> LSQ:
    quantizer = LSQ(bits, **settings)
    quantizer.calibrate(x)
    return quantizer


def by_hand(x: np.ndarray, s: float, qn: int, qp: int, upstream: np.ndarray) -> tuple[np.ndarray, float]:
    """Gradients of LSQ element by element, from the formulas of the paper (eqs. 3 and 5)."""
    to_x, to_s = np.zeros_like(x), 0.0
    for i, (value, up) in enumerate(zip(x, upstream, strict=True)):
        v = value / s
        if v <= qn:
            to_s += up * qn
        elif v >= qp:
            to_s += up * qp
        else:
            to_s += up * (np.rint(v) - v)
            to_x[i] = up
    return to_x, to_s / np.sqrt(len(x) * qp)


@pytest.mark.parametrize(("bits", "signed"), [(2, True), (3, True), (8, True), (1, False), (4, False)])
def test_gradients_equal_the_formula(bits: int, signed: bool) -> None:
    rng = np.random.default_rng(bits)
    x = rng.normal(size=200).astype(np.float32)
    upstream = rng.normal(size=200).astype(np.float32)
    qn, qp = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    x[:2] = 0.5 * qn, 0.5 * qp  # on the edges of the clamp at step 0.5
    tensor = torch.from_numpy(x).requires_grad_()
    quantizer = calibrated(bits, tensor.detach(), signed=signed)
    quantizer.step.data.fill_(0.5)
    quantizer(tensor).backward(torch.from_numpy(upstream))
    to_x, to_s = by_hand(x.astype(np.float64), quantizer.step.item(), qn, qp, upstream.astype(np.float64))
    assert tensor.grad is not None
    assert quantizer.step.grad is not None
    np.testing.assert_array_equal(tensor.grad.numpy(), to_x.astype(np.float32))
    assert quantizer.step.grad.item() == pytest.approx(to_s, rel=1e-4, abs=1e-5)


def test_per_channel_gradient_is_that_of_each_channel_alone() -> None:
    w = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 5.0)[:, None, None, None]
    quantizer = calibrated(3, w, granularity="channel", channels=4)
    x = w.clone().requires_grad_()
    quantizer(x).square().sum().backward()
    assert quantizer.step.grad is not None
    for c in range(4):
        alone = calibrated(3, w[c])
        y = w[c].clone().requires_grad_()
        alone(y).square().sum().backward()
        assert alone.step.grad is not None
        torch.testing.assert_close(alone.step.grad[0], quantizer.step.grad[c])
        assert torch.equal(y.grad, x.grad[c])  # type: ignore[index]


def test_gradient_scale_of_states_counts_one_sample() -> None:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    quantizer = calibrated(3, x, channel_axis=1)
    quantizer(x.requires_grad_()).sum().backward()
    as_weight = calibrated(3, x.detach())
    as_weight(x).sum().backward()
    assert quantizer.step.grad is not None
    assert as_weight.step.grad is not None
    torch.testing.assert_close(quantizer.step.grad, as_weight.step.grad * 6**0.5)


def test_start_values() -> None:
    x = torch.tensor([[-1.0, 3.0], [0.5, 0.5]])
    quantizer = calibrated(3, x, granularity="channel")
    torch.testing.assert_close(quantizer.step.data, torch.tensor([4 / 3**0.5, 1 / 3**0.5]))
    assert calibrated(2, torch.zeros(5)).affine().step.item() > 0
    w = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    best = calibrated(4, w, init="mse")
    _, hi = ranges.mse(w, 4, "twos_complement")
    torch.testing.assert_close(best.step.data, hi / 8)
    error = (best(w) - w).square().mean()
    assert error < (calibrated(4, w)(w) - w).square().mean()


def test_forward_is_the_affine_grid() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    quantizer = calibrated(3, x)
    affine = quantizer.affine()
    assert (affine.k_min, affine.k_max, affine.origin.item()) == (-4, 3, 0)
    assert torch.equal(quantizer(x), grids.fake_quantize(x, affine))


def test_step_cannot_become_zero_or_negative() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    quantizer = calibrated(3, x.detach())
    least = quantizer.step.item() * 2**-10
    for value in (-1.0, 0.0, 1e-9):
        quantizer.step.data.fill_(value)
        quantizer.eval()
        assert torch.isfinite(quantizer(x)).all()
        assert quantizer.affine().step.item() == pytest.approx(least)
        assert quantizer.step.item() == pytest.approx(value)
        quantizer.train()
        first, second = quantizer(x), quantizer(x)
        assert quantizer.step.item() == pytest.approx(least)
        (first + second).sum().backward()
    quantizer.step.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="the learned step of LSQ got 1 NaN"):
        quantizer(x)


def test_training_ends_where_the_expected_gradient_vanishes() -> None:
    x = norm.ppf((np.arange(4000) + 0.5) / 4000)

    def expected_gradient(s: float) -> float:
        # of mean (q - x)^2 on a Gaussian, through the paper's straight-through slope
        v = x / s
        k = np.clip(np.rint(v), -2, 1)
        slope = np.where((v > -2) & (v < 1), k - v, k)
        return float(np.mean((s * k - x) * slope))

    root = brentq(expected_gradient, 0.3, 3)
    tensor = torch.from_numpy(x).float()
    quantizer = calibrated(2, tensor)
    assert abs(quantizer.step.item() - root) > 0.1
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=5.0)
    for _ in range(200):
        optimizer.zero_grad()
        (quantizer(tensor) - tensor).square().mean().backward()
        optimizer.step()
    assert quantizer.step.item() == pytest.approx(root, rel=0.01)


def test_refusals() -> None:
    with pytest.raises(SpecError, match=r"bits >= 2 if signed.*QuantSpec, another method; .*LSQ\(1, signed=False\)"):
        LSQ(1)
    with pytest.raises(SpecError, match="take 2 bits or, in a QuantSpec, another method"):
        LSQWeights(bits=1).build(3)
    for cure in (LSQ(1, signed=False), LSQWeights(bits=2).build(3), UniformWeights(bits=1).build(3)):
        cure.calibrate(torch.ones(3, 4))
    with pytest.raises(SpecError, match="init must be"):
        LSQ(4, init="max")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="has no levels yet; call calibrate"):
        LSQ(4)(torch.zeros(3))
