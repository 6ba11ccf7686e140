from __future__ import annotations

import torch

from isofire.quantizers import ste


def test_plain_returns_the_quantized_bits_and_passes_every_gradient() -> None:
    x = torch.tensor([-5.0, 0.1, 7.0], requires_grad=True)
    q = torch.tensor([-1.0, 0.1 + 2**-25, 1.0])
    y = ste.plain(x, q)
    assert torch.equal(y, q)
    y.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [1, 2, 3]


def test_clipped_passes_gradients_inside_and_on_the_bounds_only() -> None:
    x = torch.tensor([[-1.5, -1.0, 0.0], [2.0, 2.5, 0.3]], requires_grad=True)
    lo, hi = torch.tensor([[-1.0], [0.5]]), torch.tensor([[1.0], [2.0]])
    y = ste.clipped(x, torch.zeros(2, 3), lo, hi)
    y.backward(torch.full((2, 3), 3.0))
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 3, 3], [3, 0, 0]]
