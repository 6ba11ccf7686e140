"""Scales shared with the weights before, however their outputs reach the neurons; and where there is none, why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isofire.errors import SpecError
from isofire.neurons import LIF
from isofire.quantization import calibrate, prepare, quantize_
from isofire.quantization.by_firing.trace import calls_of
from isofire.quantization.shared_scale import weight_scale
from isofire.spec import QuantSpec

T, C = 5, 4
# H = 3/4 V + 1/4 X
UNIT = 1 / 3
W4 = {"method": "lsq", "bits": 4}


class Direct(nn.Module):
    """A convolution and its norm see an image once; `spread` makes the currents of all steps of that."""

    def __init__(self, spread: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, C, 3, padding=1, bias=False), nn.BatchNorm2d(C)
        self.other = nn.Conv2d(1, C, 3, padding=1)
        self.groups = nn.GroupNorm(2, C)
        self.fire = LIF(4.0, v_reset=None)
        self.spread = spread
        with torch.no_grad():
            self.conv.weight.mul_(6)
            self.norm.weight.copy_(torch.tensor([2.0, -4.0, 1.0, 3.0]))
            self.norm.bias.copy_(torch.tensor([0.5, 1.5, 0.8, 0.3]))
            self.train()(torch.randn(32, 1, 6, 6))
            self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.fire(self.spread(y)).flatten(2)


def over_time(y: Tensor) -> Tensor:
    return y.unsqueeze(0).expand(T, *y.shape)


ALIKE: dict[str, Callable[[Tensor], Tensor]] = {
    "expand": over_time,
    "contiguous": lambda y: over_time(y).contiguous(),
    "repeat": lambda y: y.unsqueeze(0).repeat(T, 1, 1, 1, 1),
    "folded repeat": lambda y: y.repeat(T, 1, 1, 1).unflatten(0, (T, -1)),
    "stack": lambda y: torch.stack([y] * T),
    "cat": lambda y: torch.cat([y.unsqueeze(0), y.unsqueeze(0).expand(T - 1, *y.shape)]),
    "images first": lambda y: y.unsqueeze(1).repeat_interleave(T, 1).transpose(0, 1),
    "folded": lambda y: over_time(y).flatten(0, 1).unflatten(0, (T, -1)),
    "rows for columns": lambda y: over_time(y).mT,
    "flipped": lambda y: over_time(y).flip(-1),
    "every other place": lambda y: over_time(y)[..., ::2, ::2],
    "halved and moved": lambda y: over_time(2 * y - 1) / 2,
}


def gains(net: Any) -> Tensor:
    norm = net.norm
    return (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).abs().detach()


def steps(net: Any) -> Tensor:
    return net.conv.parametrizations.weight[0].affine().step.double().detach()


def spec_of(method: str, **more: Any) -> QuantSpec:
    given = {
        "weights": W4,
        "membrane": {"method": method, "bits": 4},
        "first_layer": "quantize",
        "last_layer": "quantize",
    }
    return QuantSpec.from_dict(given | more)


@pytest.mark.parametrize("how", ALIKE)
def test_each_step_gets_outputs_of_the_layer(how: str) -> None:
    net = Direct(ALIKE[how])
    x = torch.randn(20, 1, 6, 6)
    model = calibrate(prepare(net, spec_of("mint")), x)
    found = weight_scale(model, "fire", x)
    torch.testing.assert_close(found.step, UNIT * steps(model) * gains(model), rtol=1e-4, atol=0)


class Changed(nn.Module):
    """What the convolution gives is changed in place, then given to the neurons at all steps."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fire, self.change = nn.Conv2d(1, C, 3, padding=1), LIF(v_reset=None), change

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.change(y)
        return self.fire(over_time(y)).flatten(2)


@pytest.mark.parametrize("method", ["mint", "ptq4snn"])
@pytest.mark.parametrize(
    ("change", "factor"),
    [
        (lambda y: y.mul_(3), 3.0),
        (lambda y: y.add_(1), 1.0),
        (lambda y: y[:, 1:].neg_(), 1.0),
        (lambda y: F.dropout(y, 0.5, training=False, inplace=True), 1.0),
    ],
)
def test_outputs_may_be_changed_in_place(method: str, change: Callable[[Tensor], Tensor], factor: float) -> None:
    x = torch.randn(20, 1, 6, 6)
    model = calibrate(prepare(Changed(change), spec_of(method)), x)
    # H = V / 2 + X / 2
    torch.testing.assert_close(weight_scale(model, "fire", x).step, factor * steps(model), rtol=1e-4, atol=0)


@pytest.mark.parametrize("method", ["mint", "ptq4snn"])
@pytest.mark.parametrize("correct", ["never", "bias"])
@pytest.mark.parametrize("how", ["expand", "repeat", "images first"])
def test_spikes_are_those_of_own_arithmetic(method: str, correct: str, how: str) -> None:
    net = Direct(ALIKE[how])
    x = torch.randn(20, 1, 6, 6)
    model = calibrate(prepare(net, spec_of(method, correct=correct)), x)
    with torch.no_grad():
        weight, step = model.conv.weight.double().numpy(), (steps(model) * gains(model)).numpy()[None, :, None, None]
        currents = F.conv2d(x.double(), torch.from_numpy(weight), padding=1)
        currents = F.batch_norm(
            currents,
            *(
                t.double()
                for t in (model.norm.running_mean, model.norm.running_var, model.norm.weight, model.norm.bias)
            ),
            eps=model.norm.eps,
        ).numpy()
        spikes = model(x).unflatten(2, (C, 6, 6)).numpy()
    v, fired = np.zeros_like(currents), []
    for _ in range(T):
        h = 0.75 * v + 0.25 * currents
        fired.append(h >= 1)
        v = h - fired[-1]
        if method == "ptq4snn":
            grid = UNIT * step * 2.0 ** np.round(np.log2(1 / (7 * UNIT * step)))
            v = np.clip(np.round(v / grid), -8, 7) * grid
        else:
            v = UNIT * np.clip(np.round(np.tanh(v / UNIT) / step), -7, 7) * step
    # rounding to 24 bits may turn a potential at the threshold
    assert 0.05 < spikes.mean() < 0.9
    assert (spikes != np.stack(fired)).mean() < 2e-3


def test_channels_that_move_take_their_scales_along() -> None:
    order = torch.tensor([2, 0, 3, 1])
    x = torch.randn(20, 1, 6, 6)
    for spread, channel in (
        (lambda y: over_time(y[:, order]), order),
        (lambda y: over_time(y[:, 1:3]), torch.arange(1, 3)),
        (lambda y: over_time(y.flatten(1)), torch.arange(C).repeat_interleave(36)),
        (lambda y: over_time(torch.cat([y, y], 1)), torch.arange(C).repeat(2)),
    ):
        model = calibrate(prepare(Direct(spread), spec_of("mint")), x)
        found = weight_scale(model, "fire", x)
        torch.testing.assert_close(found.step, (UNIT * steps(model) * gains(model))[channel], rtol=1e-4, atol=0)


def test_a_linear_layer_on_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self, weights: Tensor) -> None:
            super().__init__()
            self.fc, self.fire, self.head = nn.Linear(5, 4), LIF(2.0, v_reset=None), nn.Linear(4, 2)
            with torch.no_grad():
                self.fc.weight.copy_(weights)

        def forward(self, x: Tensor) -> Tensor:
            # tokens [N, L, 5], their features moved to the axis of channels
            y = self.fc(x).mT.unsqueeze(0)
            return self.head(self.fire(torch.cat([y for _ in range(T)])).mT)

    weights = torch.randn(4, 5) * 3
    model = calibrate(prepare(Tokens(weights), spec_of("ptq4snn")), torch.randn(16, 7, 5))
    found = weight_scale(model, "fire", torch.randn(16, 7, 5))
    torch.testing.assert_close(
        found.step, model.fc.parametrizations.weight[0].affine().step.double().detach(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("method", ["mint", "ptq4snn"])
@pytest.mark.parametrize("correct", ["never", "bias"])
def test_a_loop_over_steps_on_currents_made_once_is_one_on_currents_made_anew(method: str, correct: str) -> None:
    snn = pytest.importorskip("snntorch")

    class Loop(nn.Module):
        def __init__(self, anew: bool) -> None:
            super().__init__()
            self.anew, self.fc, self.head = anew, nn.Linear(64, 20), nn.Linear(20, 10)
            self.fire = snn.Leaky(beta=0.9, reset_delay=False)

        def forward(self, x: Tensor) -> Tensor:
            membrane, outputs, currents = self.fire.init_leaky(), [], self.fc(x)
            for _ in range(T):
                spikes, membrane = self.fire(self.fc(x) if self.anew else currents, membrane)
                outputs.append(self.head(spikes))
            return torch.stack(outputs)

    x, found = torch.randn(32, 64) * 2, []
    for anew in (False, True):
        torch.manual_seed(0)
        model = calibrate(prepare(Loop(anew), spec_of(method, correct=correct)), x)
        step = model.fc.parametrizations.weight[0].affine().step.double().detach()
        # H = .9 V + X
        torch.testing.assert_close(weight_scale(model, "fire", x).step, step / 0.9, rtol=1e-4, atol=0)
        found.append(model(x))
    assert torch.equal(*found)


class Fading(nn.Module):
    """Currents that halve at each step, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.fire, self.in_place = nn.Linear(3, 4), LIF(v_reset=None), in_place

    def forward(self, x: Tensor) -> Tensor:
        y, spikes = self.fc(x), []
        for _ in range(3):
            spikes.append(self.fire(y.unsqueeze(0)))
            y = y.mul_(0.5) if self.in_place else y * 0.5
        return torch.cat(spikes)


@pytest.mark.parametrize("in_place", [False, True])
def test_currents_are_those_of_their_own_step(in_place: bool) -> None:
    net, x = Fading(in_place).eval(), torch.randn(16, 3)
    (calls,) = calls_of(net, "fire", [x])
    currents = (x.double() @ net.fc.weight.double().T + net.fc.bias.double()).float()
    for step, call in enumerate(calls):
        torch.testing.assert_close(call.input[0], currents / 2**step)
    with pytest.raises(SpecError, match="some take the outputs of 'fc' times another factor"):
        quantize_(net, spec_of("mint"), x)


def test_channels_made_of_several_need_one_step() -> None:
    def shuffled(y: Tensor) -> Tensor:
        return over_time(F.pixel_shuffle(y, 2))

    def made() -> Direct:
        net = Direct(shuffled)
        net.norm = nn.BatchNorm2d(C, eps=0.0).eval()
        return net

    x = torch.randn(20, 1, 6, 6)
    with pytest.raises(
        SpecError, match=r"channel 0 of 'fire' takes outputs of several channels of 'conv', .* 'tensor'"
    ):
        quantize_(made(), spec_of("mint", reestimate_bn="never"), x)
    spec = spec_of("mint", reestimate_bn="never", weights=W4 | {"granularity": "tensor"})
    model = calibrate(prepare(made(), spec), x)
    torch.testing.assert_close(weight_scale(model, "fire", x).step, UNIT * steps(model).expand(1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("correct", ["never", "bias"])
@pytest.mark.parametrize(
    ("spread", "why"),
    [
        (lambda net, y: over_time(y + net.other(net.image)), "'other' does not give them alone"),
        (lambda net, y: over_time(y + net.image), "'conv' does not give them alone"),
        (lambda net, y: over_time(F.max_pool2d(y, 2)), "not single outputs of 'conv': .* a pool"),
        (lambda net, y: over_time(F.avg_pool2d(y, 2)), "not single outputs of 'conv'"),
        (lambda net, y: over_time(y.relu()), "not single outputs of 'conv': .* an activation function"),
        (lambda net, y: over_time(net.groups(y)), "not single outputs of 'conv': .* own statistics"),
        (lambda net, y: over_time(F.pad(y, (1, 1, 1, 1))), "another factor than others of their channel"),
        (
            lambda net, y: over_time(y) * torch.arange(1, T + 1).view(T, 1, 1, 1, 1),
            "another factor than others of their channel",
        ),
        (lambda net, y: over_time(y) + torch.arange(T).view(T, 1, 1, 1, 1), "'conv' does not give them alone"),
        (lambda net, y: over_time(net.image.expand_as(y)), "no convolution or linear layer reaches them"),
    ],
)
def test_what_is_in_the_way_is_named_before_any_work(spread: Any, why: str, correct: str) -> None:
    net = Direct(lambda y: y)
    net.spread = lambda y: spread(net, y)
    net.register_forward_pre_hook(lambda _net, args: setattr(net, "image", args[0]))
    done: list[Any] = []
    with pytest.raises(SpecError, match=f"currents of 'fire' share no scale with weights: .*{why}"):
        quantize_(net, spec_of("mint", correct=correct), torch.randn(20, 1, 6, 6), on_step=done.append)
    assert not done
