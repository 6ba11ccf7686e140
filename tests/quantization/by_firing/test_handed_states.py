"""A state that a loop hands from call to call is, in a replay, the one that the layer then has."""

from __future__ import annotations

from collections.abc import Callable

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


class Silent(nn.Module):
    """A layer that does not fire before its last step, and a loop that hands states on as `hand` has them."""

    def __init__(self, hand: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.neuron, self.hand = Adding(), hand

    def forward(self, x: Tensor) -> Tensor:
        state, out = torch.zeros_like(x[0]), []
        for step in x:
            fired, kept = self.neuron(step, {"total": state})
            state = self.hand(kept["total"])
            out.append(fired)
        return torch.stack(out)


X = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.25, 0.0], [1.0, 0.25], [0.5, 0.5]])


@pytest.mark.parametrize(
    "hand",
    [
        lambda state: state,
        lambda state: state.clone(),
        lambda state: torch.stack([state, state])[1],
        lambda state: state.data.view(1, 2)[0],
        lambda state: state.double().float(),
    ],
)
def test_a_copy_is_handed_on_too(hand: Callable[[Tensor], Tensor]) -> None:
    ((first, *others),) = calls_of(Silent(hand), "neuron", [X])
    assert dict(first.handed_on) == {}
    # in silent steps the spikes are equal to the state
    assert [dict(call.handed_on) for call in others] == [{1: 1}] * 4


def halved(state: Tensor) -> Tensor:
    return state.mul_(0.5)


@pytest.mark.parametrize("hand", [lambda state: state * 0.5, halved, torch.zeros_like])
def test_what_the_network_changes_is_given_as_it_was(hand: Callable[[Tensor], Tensor]) -> None:
    (calls,) = calls_of(Silent(hand), "neuron", [X])
    # of zeros that stay zero both are right, spikes of zero are no state
    assert all(dict(call.handed_on) in ({}, {1: 1}) for call in calls)
    assert [dict(call.handed_on) for call in calls[3:]] == [{}, {}]
    wanted, seen = torch.zeros(2), []
    for step in X:
        seen.append(wanted)
        wanted = hand((wanted + step).clone())
    assert torch.equal(torch.stack([call.args[1]["total"] for call in calls]), torch.stack(seen))
