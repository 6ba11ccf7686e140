from __future__ import annotations

import pytest
import torch

from isofire.errors import ModelError, SpecError
from isofire.quantizers import Uniform, grids, ranges

RULES = ["minmax", "percentile", "ksigma", "mse", "aciq"]


def weights(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-2, 0, 6)[:, None, None, None]


def test_fixed_range_works_as_built() -> None:
    quantizer = Uniform(2)
    assert quantizer(torch.tensor([-7.0, -0.5, 0.1, 0.9])).tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1], rel=1e-6)
    assert bool(quantizer.calibrated)


def test_wide_range_turns_small_weights_into_signs() -> None:
    # 2 bits over +-10 on weights of sigma 0.05: two levels are left, the premise of the paper's wide baseline
    w = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.05
    q = Uniform(2, range=(-10, 10))(w)
    assert torch.equal(q.sign(), w.sign())
    assert q.abs().unique().numel() <= 2
    assert q.abs().max().item() == pytest.approx(10 / 3, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_rules_store_the_range_of_their_function(rule: str) -> None:
    w = weights()
    quantizer = Uniform(3, grid="midtread", range=rule, granularity="channel", percentile=95, k=2)
    quantizer.calibrate(w)
    extra = {"percentile": {"percentile": 95}, "ksigma": {"k": 2}}.get(rule, {})
    _, hi = getattr(ranges, rule)(w.flatten(1), 3, "midtread", **extra)
    torch.testing.assert_close(quantizer.hi, hi, rtol=1e-6, atol=0)
    assert quantizer.channels == 6
    expected = grids.fake_quantize(w, grids.affine(-quantizer.hi, quantizer.hi, 3, "midtread"), 0)
    assert torch.equal(quantizer.eval()(w), expected)


def test_training_follows_the_data_and_eval_is_frozen() -> None:
    w = weights()
    quantizer = Uniform(4, range="minmax")
    quantizer(w)
    assert quantizer.hi.item() == w.abs().max()
    quantizer(2 * w)
    assert quantizer.hi.item() == 2 * w.abs().max()
    with torch.no_grad():
        quantizer(5 * w)
    quantizer.eval()(9 * w)
    assert quantizer.hi.item() == 2 * w.abs().max()


def test_refresh_counts_training_forwards_and_survives_a_state_dict() -> None:
    w = weights()
    quantizer = Uniform(4, range="minmax", refresh=3)
    seen = []
    for factor in range(1, 9):
        quantizer(factor * w)
        seen.append(round((quantizer.hi / w.abs().max()).item()))
    assert seen == [1, 1, 1, 4, 4, 4, 7, 7]
    resumed = Uniform(4, range="minmax", refresh=3)
    resumed.load_state_dict(quantizer.state_dict())
    for factor in (9, 10):
        resumed(factor * w)
        quantizer(factor * w)
    assert round((resumed.hi / w.abs().max()).item()) == 10
    assert torch.equal(resumed.hi, quantizer.hi)


def test_forwards_without_gradients_do_not_count_towards_refresh() -> None:
    w = weights()
    quantizer = Uniform(4, range="minmax", refresh=2)
    quantizer(w)
    with torch.no_grad():
        quantizer(2 * w)
    quantizer(3 * w)
    assert quantizer.hi.item() == w.abs().max()
    quantizer(4 * w)
    assert quantizer.hi.item() == 4 * w.abs().max()


def test_first_training_forward_calibrates_even_without_gradients() -> None:
    w = weights()
    quantizer = Uniform(4, range="mse", granularity="channel")
    with torch.no_grad():
        quantizer(w)
    reference = Uniform(4, range="mse", granularity="channel")
    reference.calibrate(w)
    assert torch.equal(quantizer.hi, reference.hi)
    assert quantizer.channels == 6


def test_refresh_zero_keeps_the_calibrated_range_in_training() -> None:
    w = weights()
    quantizer = Uniform(4, range="mse", refresh=0)
    with pytest.raises(ModelError, match=r"Uniform\(range='mse'\) has no range yet; call calibrate"):
        quantizer(w)
    quantizer.calibrate(w)
    before = quantizer.hi.clone()
    quantizer(3 * w)
    assert torch.equal(quantizer.hi, before)
    assert [Uniform(4, range=rule).refresh for rule in RULES] == [1, 100, 1, 100, 1]


def test_gradients() -> None:
    x = torch.tensor([-1.5, -1.0, 0.3, 1.0, 1.01], requires_grad=True)
    Uniform(4)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    x.grad = None
    Uniform(4, ste="plain")(x).sum().backward()
    assert x.grad.tolist() == [1] * 5


def test_ranges_that_move_between_forward_and_backward_do_not_disturb_the_gradient() -> None:
    # one quantizer on the membrane of several time steps, each refreshing the range before any backward pass
    quantizer = Uniform(4, range="ksigma", k=1.0)
    x = torch.linspace(-1, 1, 101).requires_grad_()
    first = quantizer(x)
    bound = quantizer.hi.item()
    second = quantizer(10 * x)
    (first.sum() + 0 * second.sum()).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (x.abs() <= bound).float())


def test_membrane_axis_and_unsigned_range() -> None:
    states = torch.randn(8, 5, 4, 4, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 6.0)[:, None, None]
    quantizer = Uniform(4, range="minmax", signed=False, granularity="channel", channels=5, channel_axis=1, refresh=0)
    quantizer.calibrate(states)
    assert torch.equal(quantizer.hi, states.amax((0, 2, 3)))
    assert (quantizer.lo == 0).all()
    q = quantizer(states)
    assert q.min() == 0
    for c in range(5):
        alone = Uniform(4, range=(0.0, quantizer.hi[c].item()))
        assert torch.equal(q[:, c], alone(states[:, c]))
    flat = quantizer(torch.zeros(3, 5))
    assert flat.shape == (3, 5)


def test_fixed_range_serves_any_number_of_channels() -> None:
    quantizer = Uniform(2, range=(0, 1), granularity="channel", channel_axis=1)
    assert quantizer(torch.rand(2, 7, 3)).shape == (2, 7, 3)
    quantizer.calibrate(torch.rand(2, 7, 3))
    assert quantizer.levels().shape == (7, 4)
    assert (quantizer.lo.tolist(), quantizer.hi.tolist()) == ([0] * 7, [1] * 7)


@pytest.mark.parametrize("grid", ["endpoint", "midtread", "twos_complement", "midrise"])
def test_power_of_two(grid: str) -> None:
    w = weights()
    quantizer = Uniform(4, grid=grid, range="mse", granularity="channel", power_of_two=True)
    quantizer.calibrate(w)
    exponent = quantizer.affine().step.double().log2()
    assert torch.equal(exponent, exponent.round())
    lo, hi = grids.bounds(quantizer.affine(), grid)
    assert torch.equal(lo, quantizer.lo)
    assert torch.equal(hi, quantizer.hi)


def test_all_zero_channel_stays_zero_for_practical_purposes() -> None:
    w = weights()
    w[2] = 0
    for rule in RULES:
        quantizer = Uniform(2, range=rule, granularity="channel")
        quantizer.calibrate(w)
        q = quantizer.eval()(w)
        assert torch.isfinite(q).all()
        assert q[2].abs().max() <= 2.0**-64


def test_contradictory_settings() -> None:
    cases = [
        ({"bits": 17}, "bits must be a whole number"),
        ({"bits": 1, "grid": "midtread"}, "needs bits >= 2"),
        ({"bits": 4, "grid": "midrise", "range": (0, 1)}, "needs a symmetric range"),
        ({"bits": 4, "grid": "midrise", "range": "mse", "signed": False}, "signed=False needs grid 'endpoint'"),
        ({"bits": 4, "range": (-1, 1), "signed": False}, "signed=False contradicts"),
        ({"bits": 4, "range": "best"}, "or one of minmax"),
        ({"bits": 4, "range": (1, 2, 3)}, "two numbers"),
        ({"bits": 4, "range": (1, 1)}, "lo < hi"),
        ({"bits": 4, "refresh": 2}, "nothing to estimate"),
        ({"bits": 4, "range": "mse", "refresh": -1}, "refresh must be"),
        ({"bits": 4, "ste": "hard"}, "ste must be"),
        ({"bits": 4, "granularity": "layer"}, "granularity must be"),
        ({"bits": 4, "channels": 3}, "granularity 'tensor' has one set"),
        ({"bits": 4, "granularity": "channel", "channels": 0}, "channels must be"),
        ({"bits": 4, "channel_axis": -1}, "channel_axis must be"),
        ({"bits": 4, "range": "percentile", "percentile": 0}, "percentile must lie"),
        ({"bits": 4, "range": "ksigma", "k": -1}, "k must be"),
    ]
    for settings, message in cases:
        with pytest.raises(SpecError, match=message):
            Uniform(**settings)


def test_repr_says_what_it_is() -> None:
    text = repr(Uniform(2, range="mse", granularity="channel", channels=4))
    for part in ("bits=2", "channels=4", "range='mse'", "refresh=100", "not calibrated"):
        assert part in text
    assert "range=(-1, 1)" in repr(Uniform(2))
