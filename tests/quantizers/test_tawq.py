from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isofire.errors import ModelError, SpecError
from isofire.quantizers import TaWQ


def reference(w: np.ndarray, steps: int) -> np.ndarray:
    """Spikes `[T, ...]` weight by weight, from the equations."""
    normal = (w - w.mean()) / w.std(ddof=1)
    out = np.zeros((steps, *w.shape))
    for place, drive in np.ndenumerate(normal):
        v = 0.0
        for t in range(steps):
            v += (drive - v) / 2
            out[(t, *place)] = float(v > 0.25) - float(v < -0.25)
            v *= 1 - abs(out[(t, *place)])
    return out


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1 + 0.02


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7)])
def test_spikes_and_released_scale(shape: tuple[int, ...]) -> None:
    w = weight(*shape)
    spikes = reference(w.double().numpy(), 4)
    quantizer = TaWQ(4, channels=shape[0])
    np.testing.assert_array_equal(quantizer.codes(w).numpy(), spikes + 1)
    flat = spikes.reshape(4, shape[0], -1)
    density = np.abs(flat).mean(2, keepdims=True)
    np.testing.assert_allclose(quantizer(w).flatten(2).numpy(), flat / (density + 1e-6), rtol=1e-6)


def test_mse_scale_is_least_squares_for_every_step_and_channel() -> None:
    w = weight(6, 50)
    quantizer = TaWQ(3, scale="mse", channels=6)
    out = quantizer(w)
    spikes = quantizer.codes(w).double() - 1
    for t in range(3):
        for c in range(6):
            best, *_ = np.linalg.lstsq(spikes[t, c][:, None].numpy(), w[c].double().numpy(), rcond=None)
            np.testing.assert_allclose(out[t, c].numpy(), spikes[t, c].numpy() * best[0], rtol=1e-5, atol=1e-7)


def test_gradient_is_that_of_the_sigmoids() -> None:
    w = weight(3, 20).double()
    upstream = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(1)).double()
    hard = torch.from_numpy(reference(w.numpy(), 2))
    x = w.clone().requires_grad_()
    drive = (x - x.mean()) / x.std()
    potential, total = torch.zeros_like(x), torch.zeros(())
    for t in range(2):
        potential = potential + (drive - potential) / 2
        smooth = (torch.sigmoid(4 * (potential - 0.25)) + torch.sigmoid(4 * (potential + 0.25))) / 2
        scale = 1 / (hard[t].abs().mean(1, keepdim=True) + 1e-6)
        total = total + (upstream[t] * scale * smooth).sum()
        potential = potential * (1 - hard[t].abs())
    total.backward()
    y = w.float().requires_grad_()
    TaWQ(2, channels=3)(y).backward(upstream.float())
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(y.grad.double(), x.grad, rtol=1e-3, atol=1e-4)


def test_ties_are_zero() -> None:
    # mean 0 and standard deviation 2, so that +-1 normalise to +-1/2 and V = +-1/4 exactly at the first step
    w = torch.tensor([[1.0, -1.0, 3.0, -3.0, 0.0, 0.0]])
    assert (TaWQ(2).codes(w)[:, 0] - 1).tolist() == [[0, 0, 1, -1, 0, 0], [1, -1, 1, -1, 0, 0]]


def test_codes_decode_and_levels() -> None:
    w = weight(4, 3, 3, 3)
    for scale in ("inverse_density", "mse"):
        quantizer = TaWQ(4, scale=scale, channels=4)
        out = quantizer(w)
        codes = quantizer.codes(w)
        assert codes.dtype == torch.int32
        assert set(codes.unique().tolist()) <= {0, 1, 2}
        assert torch.equal(quantizer.decode(codes), out)
        assert quantizer.levels().shape == (4, 4, 3)
        picked = quantizer.levels()[:, :, None, None, None].expand(-1, -1, *w.shape[1:], -1)
        assert torch.equal(picked.gather(-1, codes.long().unsqueeze(-1)).squeeze(-1), out)
    assert quantizer.bits == math.log2(3)


def test_state_dict_and_dtype() -> None:
    w = weight(4, 9)
    quantizer = TaWQ(2, channels=4)
    quantizer.calibrate(w)
    other = TaWQ(2, channels=4)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other.levels(), quantizer.levels())
    assert quantizer(w.half()).dtype == torch.float16


def test_constant_and_silent_weights_stay_finite() -> None:
    for w in (torch.zeros(2, 3), torch.full((2, 3), 4.0), torch.ones(1, 1)):
        for scale in ("inverse_density", "mse"):
            out = TaWQ(3, scale=scale, channels=w.shape[0])(w)
            assert (out == 0).all()
    w = weight(3, 40)
    w[1] = w.mean()
    w.requires_grad_()
    TaWQ(3, channels=3)(w).square().sum().backward()
    assert torch.isfinite(w.grad).all()  # type: ignore[arg-type]


def test_refusals() -> None:
    with pytest.raises(SpecError, match="steps must be"):
        TaWQ(0)
    with pytest.raises(SpecError, match="scale must be"):
        TaWQ(2, scale="density")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="alpha must be"):
        TaWQ(2, alpha=0)
    with pytest.raises(ModelError, match="NaN or infinite"):
        TaWQ(2)(torch.tensor([[float("nan"), 1.0]]))
    quantizer = TaWQ(2, channels=3)
    with pytest.raises(ModelError, match="no levels yet"):
        quantizer.levels()
    quantizer(weight(3, 5))
    with pytest.raises(ModelError, match="holds scales for"):
        quantizer.decode(torch.zeros(2, 4, 5, dtype=torch.int32))
    with pytest.raises(ModelError, match="holds 3 channels"):
        quantizer(weight(4, 5))
