"""How strongly a membrane answers to an input: what a change of its decays does to that, its thresholds must follow."""

from __future__ import annotations

import torch
from torch import Tensor


def response(share: Tensor, synapse_share: Tensor | None = None, *, after: bool = False) -> Tensor:
    """Root of the summed squares of a membrane's answer to one input of 1, without threshold.

    Infinite for a membrane that does not leak. The sum is the variance of a process with two poles, driven by white
    noise; so it is how far an input without correlation moves the membrane.

    Parameters
    ----------
    share, synapse_share
        Of the membrane and of the current, what is lost in a step, float64; None: no current is kept.
    after
        Whether the current is used after it has decayed.

    Examples
    --------
    >>> float(response(torch.tensor(0.5, dtype=torch.float64))) ** 2
    1.3333333333333333
    """
    a = 1.0 - share
    b = torch.zeros_like(a) if synapse_share is None else 1.0 - synapse_share
    squares = (1.0 + a * b) / ((1.0 - a * a) * (1.0 - b * b) * (1.0 - a * b))
    return squares.sqrt() * (b if after else 1.0)
