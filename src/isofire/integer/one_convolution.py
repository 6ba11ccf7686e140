"""A convolution and the average pool behind it as one convolution with a larger kernel and stride.

An average over windows of a convolution's outputs, `mean_y sum_k w[k] x[s (p Y + y) + d k]`, is a convolution of stride
`s p` whose kernel has `w[k]` at every place `s y + d k`. Biases, and norms on either side of the pool, stay as they
are: each output is multiplied and shifted by the same numbers, wherever it lies.
"""

from __future__ import annotations

from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.integer.connection import SumPool
from isofire.quantizers.lattice import codes_of

_BITS = 32


def with_pool(
    names: tuple[str, str], layer: nn.Module, padding: tuple[int, int] | None, pool: SumPool, factor: float
) -> nn.Conv2d:
    """The convolution of both, float64.

    Parameters
    ----------
    names
        Of the convolution and the pool, for errors.
    padding
        The convolution's zeros on both sides of height and width.
    pool, factor
        Windows, and what their sums are multiplied by.

    Raises
    ------
    ModelError
        If the pool stands behind a linear layer, is padded (its zeros are no convolution's), or is no average.
    """
    if not isinstance(layer, nn.Conv2d) or padding is None or layer.weight.ndim != 4:
        raise ModelError(
            f"the pool {names[1]!r} stands between the weights {names[0]!r} and their neurons, which integers know of "
            "convolutions padded by zeros; move it behind the neurons, or before the weights"
        )
    size = pool.size
    if size is None or any(pool.padding) or abs(factor * size[0] * size[1] - 1.0) > 1e-9:
        raise ModelError(
            f"the pool {names[1]!r} stands between the convolution {names[0]!r} and its neurons, where integers know "
            "averages without padding; drop its padding or divisor, or move it behind the neurons"
        )
    (down, right), dilation = layer.stride, layer.dilation
    stride = int(down), int(right)
    weight = _spread(_exact(layer.weight), size, stride, (int(dilation[0]), int(dilation[1]))) * factor
    made = nn.Conv2d(
        layer.in_channels, layer.out_channels, (weight.shape[2], weight.shape[3]),
        stride=(stride[0] * pool.stride[0], stride[1] * pool.stride[1]), padding=padding, groups=layer.groups,
        bias=layer.bias is not None, device="meta",
    )  # fmt: skip
    made.weight = nn.Parameter(weight)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.detach().double().cpu())
    return made


def _exact(weight: Tensor) -> Tensor:
    """Weights on levels as exact multiples of their step, so that their sums are too; others as they are."""
    found = codes_of(weight, _BITS)
    if not found.exact:
        return weight.detach().double().cpu()
    return found.codes * found.step.view(-1, *(1,) * (weight.ndim - 1))


def _spread(weight: Tensor, size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The sum of a kernel's copies at every place of a window."""
    *rows, height, width = weight.shape
    reach = dilation[0] * (height - 1) + 1, dilation[1] * (width - 1) + 1
    total = weight.new_zeros(*rows, reach[0] + stride[0] * (size[0] - 1), reach[1] + stride[1] * (size[1] - 1))
    for y in range(0, stride[0] * size[0], stride[0]):
        for x in range(0, stride[1] * size[1], stride[1]):
            total[..., y : y + reach[0] : dilation[0], x : x + reach[1] : dilation[1]] += weight
    return total
