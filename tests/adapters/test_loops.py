"""Loops that people write around a neuron of single steps are taken for what they are: T steps of one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.adapters.stepping import Step, registered  # noqa: F401
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.firing import FiringRecorder


class Net(nn.Module):
    def __init__(self, loop: Callable[[Any, Tensor], Tensor], steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loop, self.T = loop, steps
        self.into, self.back, self.between, self.out = (
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
        )
        self.norms, self.norm, self.drop = (
            nn.ModuleList(nn.BatchNorm1d(8) for _ in range(steps)),
            nn.LayerNorm(8),
            nn.Dropout(),
        )
        self.n, self.other = Step(), Step()

    def forward(self, x: Tensor) -> Tensor:
        return self.loop(self, x)


def plain(net: Any, x: Tensor) -> Tensor:
    o = 0
    for _t in range(net.T):
        o = o + net.out(net.n(net.into(x)))
    return o


def after(net: Any, x: Tensor) -> Tensor:
    z = []
    for _t in range(net.T):
        z.append(net.n(net.into(x)))
    return net.out(torch.stack(z).mean(0))


def last(net: Any, x: Tensor) -> Tensor:
    for _t in range(net.T):
        z = net.n(net.into(x))
    return net.out(z)


def burn(net: Any, x: Tensor) -> Tensor:
    c = net.into(x)
    o = 0
    for t in range(net.T):
        z = net.n(c)
        if t > 1:
            o = o + net.out(z)
    return o


def burn2(net: Any, x: Tensor) -> Tensor:
    o = 0
    seq = net.into(torch.stack([x * (t + 1) / net.T for t in range(net.T)]))
    for t in range(net.T):
        z = net.n(seq[t])
        if t >= net.T // 2:
            o = o + net.out(z)
    return o


def rec(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    o = 0
    for _t in range(net.T):
        z = net.n(net.into(x) + net.back(z))
        o = o + net.out(z)
    return o


def rec_last(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _t in range(net.T):
        z = net.n(net.into(x) + net.back(z))
    return net.out(z)


def rec_if(net: Any, x: Tensor) -> Tensor:
    z = None
    for _t in range(net.T):
        c = net.into(x)
        if z is not None:
            c = c + net.back(z)
        z = net.n(c)
    return net.out(z)


def rec_only(net: Any, x: Tensor) -> Tensor:
    z = x
    for _t in range(net.T):
        z = net.n(net.back(z))
    return net.out(z)


def cue(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    o = 0
    for t in range(net.T):
        z = net.n(net.into(x) if t < 2 else net.back(z))
        o = o + net.out(z)
    return o


def cue_last(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for t in range(net.T):
        z = net.n(net.into(x) if t < 2 else net.back(z))
    return net.out(z)


def cue1(net: Any, x: Tensor) -> Tensor:
    z = None
    for _t in range(net.T):
        z = net.n(net.into(x) if z is None else net.back(z))
    return net.out(z)


def tebn(net: Any, x: Tensor) -> Tensor:
    for t in range(net.T):
        z = net.n(net.norms[t](net.into(x)))
    return net.out(z)


def tebn_rec(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for t in range(net.T):
        z = net.n(net.norms[t](net.back(z) + x))
    return net.out(z)


def tebn_rec2(net: Any, x: Tensor) -> Tensor:
    z = x
    for t in range(net.T):
        z = net.n(net.norms[t](net.back(z)))
    return net.out(z)


def two(net: Any, x: Tensor) -> Tensor:
    o = 0
    for _t in range(net.T):
        o = o + net.out(net.other(net.between(net.n(net.into(x)))))
    return o


def two_fb(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    o = 0
    for _t in range(net.T):
        h = net.n(net.into(x) + net.back(z))
        z = net.other(net.between(h))
        o = o + net.out(z)
    return o


def drop(net: Any, x: Tensor) -> Tensor:
    z = torch.zeros_like(x)
    for _t in range(net.T):
        z = net.n(net.norm(net.into(x) + net.drop(net.back(z))))
    return net.out(z)


def resid(net: Any, x: Tensor) -> Tensor:
    z = x
    for _t in range(net.T):
        z = x + net.n(net.back(z))
    return net.out(z)


def delayed(net: Any, x: Tensor) -> Tensor:
    zs = [torch.zeros_like(x)] * 2
    o = 0
    for _t in range(net.T):
        z = net.n(net.into(x) + net.back(zs[-2]))
        zs.append(z)
        o = o + net.out(z)
    return o


def half(net: Any, x: Tensor) -> Tensor:
    o = 0
    e = net.into(x)
    for t in range(net.T):
        if t % 2 == 0:
            e = net.into(x)
        o = o + net.out(net.n(e))
    return o


def experts(net: Any, x: Tensor) -> Tensor:
    """What lies behind the neuron hangs on its spikes."""
    out = torch.zeros(len(x), 3)
    for step in range(net.T):
        z = net.n(net.into(x))
        out = out + net.out(net.other((net.back, net.between)[step % 2](z)))
    return out


TAKEN = [
    plain,
    after,
    last,
    burn,
    burn2,
    rec,
    rec_last,
    rec_if,
    rec_only,
    cue,
    cue_last,
    cue1,
    tebn,
    tebn_rec,
    tebn_rec2,
    two,
    two_fb,
    drop,
    resid,
    delayed,
    half,
    experts,
]


@pytest.mark.parametrize("loop", TAKEN, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("steps", [3, 5, 6])
def test_each_call_is_a_step(loop: Any, steps: int) -> None:
    if (loop, steps) == (cue_last, 3):
        pytest.skip("one step on own spikes, read alone, is a second layer as well")
    with FiringRecorder(net := Net(loop, steps).eval(), layers="n") as recorder, torch.no_grad():
        net(torch.rand(5, 8) * 2)
    assert recorder.counts.steps == steps


def in_a_row(net: Any, x: Tensor) -> Tensor:
    for layer in (net.into, net.back, net.between)[: net.T]:
        x = net.n(layer(x))
    return net.out(x)


def a_step_later(net: Any, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 3)
    for step in range(net.T):
        z = x
        for at, layer in enumerate((net.into, net.back)):
            if step >= at:
                z = net.n(layer(z))
        out = out + net.out(z)
    return out


def the_last_alone(net: Any, x: Tensor) -> Tensor:
    z = x
    for step in range(net.T):
        z = net.n(net.norm(net.into(x)))
        if step == net.T - 1:
            z = net.n(net.drop(net.back(z)))
    return net.out(z)


def every_third(net: Any, x: Tensor) -> Tensor:
    out = torch.zeros(len(x), 3)
    for step in range(net.T):
        z = net.n(net.into(x))
        if step % 3 == 0:
            z = net.n(net.back(z))
        out = out + net.out(z)
    return out


@pytest.mark.parametrize("loop", [in_a_row, a_step_later, the_last_alone, every_third], ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_layers_that_hand_on_the_spikes_of_one_neuron_are_places(loop: Any, steps: int) -> None:
    with pytest.raises(ModelError, match=r"'n' sees single steps and was called at [23] places"):  # noqa: SIM117
        with FiringRecorder(net := Net(loop, steps).eval(), layers="n"), torch.no_grad():
            net(torch.rand(5, 8) * 2)
