"""Hooks survive a forward that copies what they are on, and an interrupted one leaves nothing of them behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import _get_current_dispatch_mode

import isofire
from isofire.firing import FiringRecorder, observe
from isofire.firing.cost import measure_cost
from isofire.firing.cost.counting.frames import CallsAsked
from isofire.quantization.by_firing.normed import normed_layers
from isofire.quantization.own_forward import weights_used_as_they_are
from isofire.running import OfOnePass

T = 4
GIVEN = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class OwnWeights(nn.Module):
    """Weights that no module with a hook holds."""

    def __init__(self, copied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.out = nn.Parameter(torch.rand(6, 6)), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(3)
        self.n, self.copied, self.stop = Step(), copied, ""

    def forward(self, x: Tensor) -> Tensor:
        neuron = copy.deepcopy(self.n) if self.copied else self.n
        steps = []
        for step in range(T):
            if self.stop == "between" and step == 1:
                raise KeyboardInterrupt
            steps.append(self.norm(self.out(neuron(x @ self.w))))
        return torch.stack(steps)


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whose methods are registered as hooks from here on."""
    found: list[object] = []

    def noting(register: Callable[..., Any], module: nn.Module, hook: Any, *args: Any, **kwargs: Any) -> Any:
        bound = hook.func if isinstance(hook, partial) else hook
        found.extend([bound.__self__] if hasattr(bound, "__self__") else [])
        return register(module, hook, *args, **kwargs)

    for name in ("register_forward_hook", "register_forward_pre_hook"):
        register = getattr(nn.Module, name)
        monkeypatch.setattr(nn.Module, name, lambda *args, _to=register, **kwargs: noting(_to, *args, **kwargs))
    return found


@pytest.mark.parametrize(
    "run",
    [
        lambda net: observe(net, GIVEN),
        lambda net: measure_cost(net, GIVEN),
        lambda net: isofire.compare(net, net, GIVEN),
        lambda net: normed_layers(net, [GIVEN[0]], ["out"]),
        lambda net: CallsAsked(net, GIVEN[0]).are_steps("out", 1, T, T),
    ],
)
def test_what_hooks_belong_to_stays_itself_in_copies(run: Callable[[nn.Module], Any], owners: list[object]) -> None:
    run(OwnWeights().eval())
    # of others, a copy of a hooked module would copy everything that they hold
    assert not {type(owner) for owner in owners if not isinstance(owner, OfOnePass)}


def test_a_forward_may_copy_its_neuron() -> None:
    counts = [observe(OwnWeights(copied).eval(), GIVEN).counts for copied in (False, True)]
    assert torch.equal(counts[0].per_neuron("n"), counts[1].per_neuron("n"))
    costs = [measure_cost(OwnWeights(copied).eval(), GIVEN) for copied in (False, True)]
    assert costs[0].synops == costs[1].synops


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["between", "inside"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_forward_leaves_torch_as_it_was(where: str, times: int) -> None:
    net = OwnWeights().eval()
    if where == "inside":
        net.n.forward = interrupted
    net.stop = where
    with FiringRecorder(net):
        for _ in range(times):
            # a forward after one that broke off is refused, so each is of the module itself
            with pytest.raises((KeyboardInterrupt, isofire.ModelError)):
                net(GIVEN[0])
    assert is_as_it_was()


@pytest.mark.parametrize("where", ["between", "inside"])
@pytest.mark.parametrize("measured", [measure_cost, lambda net, given: isofire.compare(net, net, given)])
def test_an_interrupted_measurement_leaves_torch_as_it_was(where: str, measured: Callable[..., Any]) -> None:
    net = OwnWeights().eval()
    if where == "inside":
        net.n.forward = interrupted
    net.stop = where
    with pytest.raises(KeyboardInterrupt):
        measured(net, GIVEN)
    assert is_as_it_was()


def test_an_interrupted_calibration_leaves_torch_as_it_was() -> None:
    net = OwnWeights().eval()
    net.stop = "between"
    with pytest.raises(KeyboardInterrupt), weights_used_as_they_are(net, []):
        net(GIVEN[0])
    assert is_as_it_was()


def is_as_it_was() -> bool:
    """Whether no mode is on, nor torch takes one to be."""
    return _get_current_dispatch_mode() is None and not _python_dispatch.is_in_torch_dispatch_mode()
