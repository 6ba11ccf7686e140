"""The batch norm that runs inside the neuron: against norm, then neuron, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.neurons.which import KERNELS
from tests.neurons.which import NO_KERNELS as needs_kernels
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.neurons import IF, LIF, MembraneQuantizer, Neuron, ParametricLIF, apply_per_step, native
from isofire.quantizers import Uniform


def states64(neuron: Neuron, y: Tensor) -> tuple[Tensor, Tensor]:
    """Membranes at the threshold and spikes of an IF or LIF neuron with hard reset to 0, in float64."""
    tau = None if isinstance(neuron, IF) else neuron.dynamics.tau
    v, hs, ss = torch.zeros_like(y[0]), [], []
    for x in y:
        h = v + x if tau is None else v + (x - v) / tau
        s = (h >= 1.0).double()
        v = h * (1.0 - s)
        hs.append(h)
        ss.append(s)
    return torch.stack(hs), torch.stack(ss)


def share_excused(spikes: Tensor, h: Tensor, s: Tensor) -> float:
    """Share of neurons whose spikes differ from the float64 ones.

    Fails unless each of them differs first at a step where the float64 membrane lies within 1e-5 of the threshold; from
    there on the two neurons have different pasts.
    """
    differs = spikes.double() != s
    first = differs & (differs.cumsum(0) == 1)
    assert (h[first] - 1.0).abs().le(1e-5).all()
    return differs.any(0).double().mean().item()


RANGES = {"weight": (0.5, 1.8), "bias": (0.2, 0.9), "running_mean": (-0.5, 0.7), "running_var": (0.4, 2.0)}


def randomise(norm: nn.Module, seed: int = 3) -> nn.Module:
    """Give a batch norm gains, biases and running statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
            if tensor.is_floating_point():
                low, high = RANGES[name]
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return norm


def run_normed(neuron: Neuron, norm: nn.Module, x: Tensor, **call: Any) -> tuple[Tensor, list[Tensor]]:
    """Spikes, and gradients of the input, the norm's and the neuron's parameters."""
    x = x.detach().clone().requires_grad_()
    spikes = neuron(x, norm=norm, **call)
    upstream = torch.arange(spikes.numel(), dtype=torch.float64).cos().view(spikes.shape).to(spikes.dtype)
    leaves = [x, *norm.parameters(), *neuron.parameters()]
    return spikes.detach(), list(torch.autograd.grad(spikes, leaves, upstream))


def spy(norm: nn.Module) -> list[int]:
    """Counts the norm's own forwards, without the norm noticing."""
    calls, forward = [], norm.forward
    norm.forward = lambda x: (calls.append(1), forward(x))[1]  # type: ignore[method-assign]
    return calls


def safe_input(
    neuron: Neuron, norm: nn.Module, shape: Sequence[int], channels_last: bool, repeat: int | None, currents: Any
) -> Tensor:
    """An input that leaves no float64 membrane within 1e-5 of the threshold: float32 must give the same spikes."""
    for seed in range(100):
        if repeat is None:
            x = currents(*shape, seed=seed, channels_last=channels_last)
        else:
            x = currents(1, *shape, seed=seed, channels_last=channels_last)[0]
        y = copy.deepcopy(norm).double()
        with torch.no_grad():
            y = y(x.double()).expand(repeat, *shape) if repeat else apply_per_step(y, x.double())
            if (states64(neuron, y)[0] - 1.0).abs().min() > 1e-5:
                return x
    raise AssertionError("no input keeps clear of the threshold")


CASES: dict[str, tuple[Callable[[], nn.Module], Sequence[int], bool, bool, int | None]] = {
    # norm, shape, channels_last, training, repeat
    "training": (lambda: nn.BatchNorm2d(5), (3, 4, 5, 6, 7), False, True, None),
    "training, channels_last": (lambda: nn.BatchNorm2d(5), (3, 4, 5, 6, 7), True, True, None),
    "eval": (lambda: nn.BatchNorm2d(5), (3, 4, 5, 6, 7), False, False, None),
    "eval, channels_last": (lambda: nn.BatchNorm2d(5), (3, 4, 5, 6, 7), True, False, None),
    "eps and momentum": (lambda: nn.BatchNorm2d(5, eps=0.1, momentum=0.7), (3, 4, 5, 6, 7), True, True, None),
    "cumulative": (lambda: nn.BatchNorm2d(5, momentum=None), (3, 4, 5, 6, 7), False, True, None),
    "without gain": (lambda: nn.BatchNorm2d(5, affine=False), (3, 4, 5, 6, 7), True, True, None),
    "without gain, eval": (lambda: nn.BatchNorm2d(5, affine=False), (3, 4, 5, 6, 7), False, False, None),
    "no running statistics": (lambda: nn.BatchNorm2d(5, track_running_stats=False), (3, 4, 5, 6, 7), False, True, None),
    "no running statistics, eval": (
        lambda: nn.BatchNorm2d(5, track_running_stats=False),
        (3, 4, 5, 6, 7),
        True,
        False,
        None,
    ),
    "1d on [T, N, C, L]": (lambda: nn.BatchNorm1d(5), (3, 4, 5, 13), False, True, None),
    "1d on [T, N, C]": (lambda: nn.BatchNorm1d(50), (3, 8, 50), False, True, None),
    "1d on [T, N, C], eval": (lambda: nn.BatchNorm1d(50), (3, 8, 50), False, False, None),
    "3d": (lambda: nn.BatchNorm3d(3), (3, 2, 3, 4, 5, 2), False, True, None),
    "repeat": (lambda: nn.BatchNorm2d(5), (4, 5, 6, 7), False, True, 4),
    "repeat, channels_last": (lambda: nn.BatchNorm2d(5), (4, 5, 6, 7), True, True, 4),
    "repeat, eval": (lambda: nn.BatchNorm2d(5), (4, 5, 6, 7), True, False, 4),
    "repeat, 1d on [N, C]": (lambda: nn.BatchNorm1d(40), (9, 40), False, True, 4),
    "one image of one step": (lambda: nn.BatchNorm2d(5), (1, 1, 5, 6, 7), True, True, None),
}


@pytest.mark.parametrize("path", KERNELS)
@pytest.mark.parametrize("case", CASES)
def test_fused_norm_equals_norm_then_neuron_in_float64(
    case: str, path: Any, currents: Any, assert_close: Callable[..., None]
) -> None:
    make_norm, shape, channels_last, training, repeat = CASES[case]
    norm = randomise(make_norm()).train(training)
    neuron = LIF(1.5, backend=path)
    exact_norm, exact_neuron = copy.deepcopy(norm).double(), LIF(1.5, backend="reference")
    own_forwards = spy(norm)
    call = {} if repeat is None else {"repeat": repeat}
    for _ in range(2):  # twice: running statistics move on from where they are
        x = safe_input(neuron, exact_norm, shape, channels_last, repeat, currents)
        # contiguous: with T * N = 1 and channels_last, torch's own batch norm returns a wrong input gradient
        expected, exact = run_normed(exact_neuron, exact_norm, x.double().contiguous(), **call)
        spikes, got = run_normed(neuron, norm, x, **call)
        assert torch.equal(spikes.double(), expected)
        assert 0.05 < spikes.mean() < 0.9
        for name, a, b in zip(("input", "gain", "bias"), got, exact, strict=False):
            assert_close(a, b, note=name)
        assert len(got) == len(exact)
        for (name, a), (_, b) in zip(norm.named_buffers(), exact_norm.named_buffers(), strict=True):
            assert a.dtype == (torch.int64 if name == "num_batches_tracked" else torch.float32)
            assert_close(a, b, 1e-6, note=name)
    assert not own_forwards


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make_neuron", [IF, lambda **o: LIF(2.0, **o)], ids=["if", "lif"])
def test_spikes_of_many_neurons_differ_only_at_the_threshold(
    make_neuron: Callable[..., Neuron], training: bool, channels_last: bool, currents: Any
) -> None:
    norm = randomise(nn.BatchNorm2d(16)).train(training)
    x = currents(4, 8, 16, 24, 24, seed=5, channels_last=channels_last)
    neuron = make_neuron()
    h, s = states64(neuron, apply_per_step(copy.deepcopy(norm).double(), x.double()))
    apart = share_excused(neuron(apply_per_step(copy.deepcopy(norm), x)), h, s)
    fused = share_excused(neuron(x, norm=norm), h, s)
    # of 73,728 neurons, one or two may come that close
    assert max(apart, fused) <= 5e-5


@pytest.mark.parametrize("path", KERNELS)
def test_a_learned_tau_under_a_fused_norm(path: Any, currents: Any, assert_close: Callable[..., None]) -> None:
    norm = randomise(nn.BatchNorm2d(5))
    neuron, exact_neuron = ParametricLIF(1.5, backend=path), ParametricLIF(1.5, backend="reference").double()
    x = safe_input(LIF(1.5), norm, (3, 4, 5, 6, 7), True, None, currents)
    expected, exact = run_normed(exact_neuron, copy.deepcopy(norm).double(), x.double())
    spikes, got = run_normed(neuron, norm, x)
    assert torch.equal(spikes.double(), expected)
    for a, b in zip(got, exact, strict=True):
        assert_close(a, b, 2e-5)


@pytest.mark.parametrize("path", KERNELS)
@pytest.mark.parametrize("placement", ["pre_fire", "post_reset"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("repeat", [None, 3])
def test_fused_norm_and_membrane_quantizer(
    placement: Any, granularity: Any, repeat: int | None, path: Any, currents: Any, assert_close: Callable[..., None]
) -> None:
    # every number is a multiple of 1/128 of moderate size, so that both orders of computing the norm are exact
    norm = nn.BatchNorm2d(4, eps=0.0).eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([0.5, -0.25, 0.0, 1.0]))  # type: ignore[union-attr]
        norm.running_var.copy_(torch.tensor([4.0, 1.0, 0.25, 16.0]))  # type: ignore[union-attr]
        norm.weight.copy_(torch.tensor([2.0, 1.0, 0.5, 4.0]))
        norm.bias.copy_(torch.tensor([0.25, 0.5, -0.125, 1.0]))
    x = (currents(3, 2, 4, 5, 6, channels_last=True) * 64).round() / 64
    x = x if repeat is None else x[0]
    channels = 4 if granularity == "channel" else 1
    quantizer = Uniform(3, range="minmax", granularity=granularity, channels=channels, channel_axis=1, refresh=0)
    quantizer.calibrate(torch.tensor([[0.75, 1.0, 1.75, 3.5]]))
    results = []
    for backend in ("reference", path):
        neuron = LIF(2.0, backend=backend)
        neuron.membrane = MembraneQuantizer(quantizer, placement)
        results.append(run_normed(neuron, norm, x, **({} if repeat is None else {"repeat": repeat})))
    (expected, gradients), (spikes, got) = results
    assert torch.equal(spikes, expected)
    assert 0.05 < spikes.mean() < 0.9
    for a, b in zip(got, gradients, strict=True):
        assert_close(a, b)


@needs_kernels
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_norm_with_a_hook_is_called(kind: str, currents: Any) -> None:
    x = currents(3, 2, 4, 5, 5)
    plain, norm, seen = nn.BatchNorm2d(4), nn.BatchNorm2d(4), []
    register = {
        "forward": norm.register_forward_hook,
        "forward_pre": norm.register_forward_pre_hook,
        "full_backward": norm.register_full_backward_hook,
        "full_backward_pre": norm.register_full_backward_pre_hook,
    }[kind]
    handle = register(lambda *_: seen.append(1))
    LIF()(x.requires_grad_(), norm=norm).sum().backward()
    assert seen == [1]
    handle.remove()
    LIF()(x, norm=norm).sum().backward()
    assert seen == [1]
    LIF()(x, norm=plain)
    LIF()(x, norm=plain)
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())


class Doubling(nn.BatchNorm2d):
    """A batch norm with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return 2.0 * super().forward(input)


def test_a_norm_of_another_class_is_called(currents: Any) -> None:
    x = currents(3, 2, 4, 5, 5)
    assert torch.equal(LIF()(x, norm=Doubling(4)), LIF()(2.0 * apply_per_step(nn.BatchNorm2d(4), x)))


@needs_kernels
def test_backward_uses_the_statistics_of_its_own_forward(currents: Any) -> None:
    x, norm = currents(3, 2, 4, 5, 5), nn.BatchNorm2d(4).eval()
    gradients = []
    for shift in (0.0, 5.0):
        spikes = LIF()(x, norm=norm)
        with torch.no_grad():
            norm.running_mean.add_(shift)  # type: ignore[union-attr]
        gradients.append(torch.autograd.grad(spikes.sum(), norm.weight)[0])
    assert torch.equal(*gradients)


@needs_kernels
def test_frozen_parameters_get_no_gradient(currents: Any) -> None:
    norm = nn.BatchNorm2d(4).requires_grad_(False)
    x = currents(3, 2, 4, 5, 5).requires_grad_()
    LIF()(x, norm=norm).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert norm.weight.grad is None
    assert norm.bias.grad is None


@pytest.mark.parametrize("repeat", [None, 2])
def test_a_norm_for_other_channels(repeat: int | None, currents: Any) -> None:
    x = currents(3, 2, 4, 5, 5) if repeat is None else currents(2, 4, 5, 5)
    expected = (ModelError, "expects 3 channels, got input") if native.library() else (RuntimeError, "should contain")
    with pytest.raises(expected[0], match=expected[1]):
        LIF()(x, norm=nn.BatchNorm2d(3), repeat=repeat)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_a_norm_for_other_axes(backend: Any, currents: Any) -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        LIF(backend=backend)(currents(3, 2, 4), norm=nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        LIF(backend=backend)(currents(3, 2, 4, 5, 5), norm=nn.BatchNorm1d(4))


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_one_value_a_channel_has_no_variance(backend: Any) -> None:
    with pytest.raises(ValueError, match=r"more than (one|1) value per channel"):
        LIF(backend=backend)(torch.ones(1, 1, 4), norm=nn.BatchNorm1d(4))
    assert LIF(backend=backend)(torch.ones(1, 1, 4), norm=nn.BatchNorm1d(4).eval()).shape == (1, 1, 4)
