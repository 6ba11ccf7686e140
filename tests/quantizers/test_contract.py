"""What every quantizer promises, whichever it is."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parametrize

from isofire.errors import DataError, ModelError
from isofire.quantizers import LSQ, Levels, LQNet, Quantizer, Uniform

KINDS = {
    "uniform": lambda bits, **layout: Uniform(bits, range="minmax", **layout),
    "midtread mse": lambda bits, **layout: Uniform(bits, grid="midtread", range="mse", **layout),
    "twos power": lambda bits, **layout: Uniform(
        bits, grid="twos_complement", range="aciq", power_of_two=True, ste="plain", **layout
    ),
    "lsq": lambda bits, **layout: LSQ(bits, **layout),
    "lqnet": lambda bits, **layout: LQNet(bits, iterations=20, restarts=1, **layout),
    "levels": lambda bits, **layout: Levels(2**bits, **layout),
}
CHANNELS = {"granularity": "channel", "channels": 6}


def weights(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-2, 0, 6)[:, None, None, None]


def frozen(kind: str, bits: int, x: torch.Tensor, **layout) -> Quantizer:
    quantizer = KINDS[kind](bits, **layout)
    quantizer.calibrate(x)
    return quantizer.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [{"granularity": "tensor"}, CHANNELS])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_codes_decode_levels_and_idempotence(kind: str, bits: int, layout: dict) -> None:
    w = weights()
    quantizer = frozen(kind, bits, w, **layout)
    q, codes, levels = quantizer(w), quantizer.codes(w), quantizer.levels()
    count = 2**bits - ("midtread" in kind)
    assert levels.shape == (quantizer.channels, count)
    # free levels coincide where there are fewer values than levels
    spare = kind == "levels" and bits == 8
    assert (levels.diff(dim=1) >= 0).all() if spare else (levels.diff(dim=1) > 0).all()
    assert codes.dtype == torch.int32
    assert codes.shape == w.shape
    assert torch.equal(quantizer.decode(codes), q)
    by_row = levels.expand(6, -1).gather(1, codes.flatten(1).long()).view_as(w)
    assert torch.equal(by_row, q)
    assert torch.equal(quantizer(q), q)
    with pytest.raises(DataError, match="codes must lie in"):
        quantizer.decode(codes + count)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=60), st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_monotone_and_nearest(kind: str, xs: list[float], bits: int) -> None:
    quantizer = frozen(kind, bits, torch.linspace(-2, 2, 50), granularity="tensor")
    x = torch.tensor(xs).sort().values
    q = quantizer(x)
    assert (q.diff() >= 0).all()
    distance = (x.double()[:, None] - quantizer.levels().double()).abs().amin(1)
    assert ((q.double() - x.double()).abs() <= distance + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_channels_are_independent(kind: str) -> None:
    w = weights()
    together = frozen(kind, 3, w, **CHANNELS)
    for c in range(6):
        alone = frozen(kind, 3, w[c : c + 1], granularity="channel")
        torch.testing.assert_close(alone(w[c : c + 1])[0], together(w)[c], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_channel_axis_is_a_transposition(kind: str) -> None:
    states = weights().movedim(0, 1).contiguous()
    states_axis = frozen(kind, 3, states, granularity="channel", channel_axis=1)
    weight_axis = frozen(kind, 3, states.movedim(1, 0), granularity="channel")
    assert torch.equal(states_axis(states), weight_axis(states.movedim(1, 0)).movedim(0, 1))
    assert torch.equal(states_axis.codes(states), weight_axis.codes(states.movedim(1, 0)).movedim(0, 1))
    assert torch.equal(states_axis.decode(states_axis.codes(states)), states_axis(states))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_format_does_not_matter(kind: str) -> None:
    w = weights()
    quantizer = frozen(kind, 3, w, **CHANNELS)
    last = w.to(memory_format=torch.channels_last)
    assert torch.equal(quantizer(last), quantizer(w))
    assert torch.equal(quantizer.codes(last), quantizer.codes(w))
    assert quantizer(last).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept_and_values_are_the_float32_levels(kind: str, dtype: torch.dtype) -> None:
    w = weights().to(dtype)
    quantizer = frozen(kind, 3, w, **CHANNELS)
    q = quantizer(w.requires_grad_())
    assert q.dtype == dtype
    assert torch.equal(q, quantizer.decode(quantizer.codes(w)).to(dtype))
    q.sum().backward()
    assert w.grad is not None
    assert w.grad.dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_nothing(kind: str) -> None:
    w = weights()
    results = []
    for enabled in (False, True):
        quantizer = KINDS[kind](3, **CHANNELS)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            quantizer.calibrate(w)
            x = w.clone().requires_grad_()
            outputs = [quantizer(x), quantizer(x)]
        sum(q.square().sum() for q in outputs).backward()
        results.append((*outputs, x.grad, quantizer.levels()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_fits_a_fresh_quantizer(kind: str) -> None:
    w = weights()
    quantizer = frozen(kind, 3, w, **CHANNELS)
    fresh = KINDS[kind](3, **CHANNELS).eval()
    assert not bool(fresh.calibrated)
    state = copy.deepcopy(quantizer.state_dict())
    assert state["calibrated"].dtype == torch.bool
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    fresh.load_state_dict(state)
    assert torch.equal(fresh(w), quantizer(w))
    unready = KINDS[kind](3, **CHANNELS).eval()
    fresh.load_state_dict(unready.state_dict())
    with pytest.raises(ModelError, match="call calibrate"):
        fresh(w)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_copied_from_another_process_are_enough(kind: str) -> None:
    # what a broadcast of parameters and buffers does
    w = weights()
    quantizer, fresh = frozen(kind, 3, w, **CHANNELS), KINDS[kind](3, **CHANNELS).eval()
    theirs = [*quantizer.parameters(), *quantizer.buffers()]
    with torch.no_grad():
        for mine, other in zip([*fresh.parameters(), *fresh.buffers()], theirs, strict=True):
            mine.copy_(other)
    assert torch.equal(fresh(w), quantizer(w))


@pytest.mark.parametrize("kind", KINDS)
def test_use_before_calibration(kind: str) -> None:
    quantizer = KINDS[kind](3).eval()
    for call in (quantizer, quantizer.codes):
        with pytest.raises(ModelError, match="call calibrate"):
            call(weights())
    with pytest.raises(ModelError, match="call calibrate"):
        quantizer.decode(torch.zeros(6, 3, dtype=torch.int32))
    with pytest.raises(ModelError, match="call calibrate"):
        quantizer.levels()
    assert "not calibrated" in repr(quantizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(kind: str, bad: float) -> None:
    w = weights()
    quantizer = frozen(kind, 3, w, **CHANNELS)
    w[3, 1, 1, 1] = bad
    for call in (quantizer, quantizer.train(), quantizer.codes, quantizer.calibrate):
        with pytest.raises(ModelError, match=r"got 1 NaN or infinite values among 216 \(shape"):
            call(w)
    quantizer.eval().check_finite = False
    quantizer(w)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_inputs_are_refused(kind: str) -> None:
    quantizer = frozen(kind, 3, weights(), **CHANNELS)
    with pytest.raises(ModelError, match="holds 6 channels, but the input has 5"):
        quantizer(torch.zeros(5, 3))
    with pytest.raises(ModelError, match="floating-point"):
        quantizer(torch.zeros(6, 3, dtype=torch.int32))
    with pytest.raises(ModelError, match="channel_axis=0, but the input has shape"):
        quantizer(torch.tensor(1.0))
    with pytest.raises(ModelError, match="empty tensor"):
        quantizer.calibrate(torch.zeros(6, 0))
    assert quantizer(torch.zeros(6, 0)).shape == (6, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_large_finite_values_pass_the_search_for_infinities(kind: str) -> None:
    # their float32 sum overflows although no value does
    quantizer = frozen(kind, 3, weights(), granularity="tensor")
    q = quantizer(torch.full((4,), 3e38))
    assert torch.equal(q, quantizer.levels()[0, -1].expand(4))


@pytest.mark.parametrize("kind", KINDS)
def test_as_a_parametrization_it_trains_and_follows_the_weight(kind: str) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 6, 3)
    quantizer = KINDS[kind](3, **CHANNELS)
    quantizer.calibrate(conv.weight)
    with torch.no_grad():
        parametrize.register_parametrization(conv, "weight", quantizer)
    assert sum(1 for name in conv.state_dict() if name.endswith("calibrated")) == 1
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    before = conv.parametrizations.weight.original.clone()  # type: ignore[union-attr]
    x = torch.randn(2, 4, 8, 8)
    loss = conv(x).square().mean()
    loss.backward()
    optimizer.step()
    assert conv(x).square().mean() < loss
    assert not torch.equal(conv.parametrizations.weight.original, before)  # type: ignore[union-attr]
    conv.eval()
    levels = quantizer.levels()
    assert all(torch.isin(conv.weight[c], levels[c]).all() for c in range(6))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_independent(kind: str) -> None:
    w = weights()
    quantizer = frozen(kind, 3, w, **CHANNELS)
    twin = copy.deepcopy(quantizer)
    twin.calibrate(5 * w)
    assert not torch.equal(twin(w), quantizer(w))
    assert torch.equal(quantizer(w), frozen(kind, 3, w, **CHANNELS)(w))
