"""A network that sees one step a call, run over all steps in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters.registry import reset_
from isofire.errors import ModelError, SpecError


class OverTime(nn.Module):
    """Runs a net that keeps its own state, one step a call, from rest over T steps: the loop around it, as a module.

    For nets whose loop over time is written outside of them, such as SpikingJelly's in step mode 's' or snnTorch's
    with init_hidden. The net itself is the submodule `net`, unchanged.

    Parameters
    ----------
    net
        From inputs [N, ...] of a step to logits [N, classes], or a tuple that begins with them.
    steps
        Present the same input [N, ...] at each of this many steps; None takes frames [T, N, ...].

    Raises
    ------
    SpecError
        If `steps` is below 1.
    """

    def __init__(self, net: nn.Module, steps: int | None = None) -> None:
        super().__init__()
        if steps is not None and steps < 1:
            raise SpecError(f"steps must be at least 1, got {steps}; None takes frames [T, N, ...]")
        self.net = net
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Logits [T, N, classes]."""
        reset_(self.net)
        frames: Any = x if self.steps is None else [x] * self.steps
        outputs = [self.net(frame) for frame in frames]
        logits = [output[0] if isinstance(output, tuple) else output for output in outputs]
        if not logits:
            raise ModelError(f"frames must be [T, N, ...] with T >= 1 steps, got {list(x.shape)}")
        if strange := [step for step in logits if not isinstance(step, Tensor)]:
            raise ModelError(
                f"the net of a step must give logits [N, classes], or a tuple that begins with them, got a "
                f"{type(strange[0]).__name__}; wrap it: OverTime(LogitsOf(net, output=..., axes='NC'))"
            )
        return torch.stack(logits)

    def extra_repr(self) -> str:
        return f"steps={self.steps}"
