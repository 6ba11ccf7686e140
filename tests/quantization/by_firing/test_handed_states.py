"""A state that a loop hands from call to call is, in a replay, the one that the layer then has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.quantization.by_firing.trace import calls_of


class Adding(nn.Module):
    """Hands on what it has summed, like snnTorch's and Norse's neurons."""

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total = state["total"] + x
        return total.round(), {"total": total}


class Loop(nn.Module):
    def __init__(self, *, detach: bool) -> None:
        super().__init__()
        self.neuron, self.detach = Adding(), detach

    def forward(self, x: Tensor) -> Tensor:
        state, out = {"total": torch.zeros_like(x)}, []
        for _ in range(3):
            fired, state = self.neuron(x, state)
            if self.detach:
                state = {"total": state["total"].detach()}
            out.append(fired)
        return torch.stack(out)


@pytest.mark.parametrize("detach", [False, True])
def test_a_call_knows_what_the_call_before_returned(detach: bool) -> None:
    (first, second, third), (again, *_) = calls_of(
        Loop(detach=detach), "neuron", [torch.full((2,), 0.25), torch.ones(2)], expected=3
    )
    assert dict(first.handed_on) == dict(again.handed_on) == {}  # made by the loop, and no state of the batch before
    assert second.handed_on == third.handed_on == {1: 1}
    assert torch.equal(third.args[1]["total"], torch.full((2,), 0.5))  # as it was recorded
    (x, state), _ = third.after((torch.zeros(2), {"total": torch.full((2,), 9.0)}))
    assert torch.equal(state["total"], torch.full((2,), 9.0))
    assert torch.equal(x, third.input)
