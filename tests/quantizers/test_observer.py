from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import ModelError, SpecError
from isofire.quantizers import LSQ, LQNet, RangeObserver, Uniform


def states(n: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def observe(x: torch.Tensor, sizes: list[int], **settings) -> RangeObserver:
    observer = RangeObserver("channel", **settings)
    for batch in x.split(sizes):
        observer.observe(batch)
    return observer


def test_the_sample_is_every_value_whose_hash_is_small_enough() -> None:
    """Against the rule one by one: the place times 2^64 / golden ratio, modulo 2^64, below a power of two."""
    values = torch.arange(150_000.0)
    observer = RangeObserver(capacity=1000)
    for batch in values.split([70_000, 1, 40_000, 39_999]):
        observer.observe(batch)
    hashes = [(place * 0x9E3779B97F4A7C15) % 2**64 for place in range(1, len(values) + 1)]
    # one in 256 is more than fits, before that many were one in 128
    expected = [place - 1.0 for place, value in enumerate(hashes, 1) if value < 2**56]
    assert 500 < len(expected) <= 1000
    assert observer.samples().tolist() == [expected]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_batches_do_not_matter(sizes: list[int]) -> None:
    x = states(sum(sizes))
    whole, parts = observe(x, [len(x)], capacity=3 * 200), observe(x, sizes, capacity=3 * 200)
    assert torch.equal(whole.samples(), parts.samples())
    assert torch.equal(whole.extremes(), parts.extremes())
    assert whole.count == parts.count == len(x) * 64


def test_extremes_are_exact_and_the_sample_is_bounded_and_drawn_from_the_channel() -> None:
    x = states(200)
    observer = observe(x, [40] * 5, capacity=3 * 500)
    rows = x.movedim(1, 0).flatten(1)
    assert torch.equal(observer.extremes(), torch.stack(rows.aminmax(dim=1), 1))
    kept = observer.samples()
    assert kept.shape[0] == 3
    assert 200 < kept.shape[1] <= 500
    for c in range(3):
        assert torch.isin(kept[c], rows[c]).all()


def test_everything_is_kept_while_it_fits() -> None:
    x = states(10)
    assert torch.equal(observe(x, [5, 5]).samples(), x.movedim(1, 0).flatten(1))


def test_the_sample_covers_all_positions_of_a_map_evenly() -> None:
    # a plain stride of 2^k would see one column of a 16 x 16 map only
    x = torch.arange(256.0).reshape(1, 1, 16, 16).expand(400, 1, 16, 16)
    observer = RangeObserver("channel", capacity=4000)
    for batch in x.split(50):
        observer.observe(batch)
    seen = torch.bincount(observer.samples()[0].long(), minlength=256)
    assert seen.min() > 0
    assert seen.max() <= 3 * seen.float().mean()


def test_the_sample_is_spread_evenly_over_the_stream() -> None:
    observer = RangeObserver(capacity=1000)
    for batch in torch.arange(1_000_000.0).split(70_001):
        observer.observe(batch)
    gaps = observer.samples()[0].diff()
    assert gaps.min() > 0.2 * gaps.mean()
    assert gaps.max() < 4 * gaps.mean()


def test_merge_keeps_extremes_and_samples_evenly() -> None:
    x = states(128)
    left, right = observe(x[:96], [96], capacity=3 * 300), observe(x[96:], [32], capacity=3 * 300)
    left.merge(right)
    assert torch.equal(left.extremes(), observe(x, [128]).extremes())
    assert left.count == 128 * 64
    assert left.samples().shape[1] <= 300
    empty = RangeObserver("channel")
    empty.merge(left)
    assert torch.equal(empty.extremes(), left.extremes())
    assert torch.equal(empty.samples(), left.samples())


def test_minmax_uses_the_exact_extremes_even_of_a_thinned_stream() -> None:
    x = states(300)
    x[123, 1, 3, 3] = 50.0
    quantizer = Uniform(4, range="minmax", granularity="channel", channels=3, channel_axis=1)
    quantizer.calibrate_from(observe(x, [100] * 3, capacity=3 * 64))
    reference = Uniform(4, range="minmax", granularity="channel", channels=3, channel_axis=1)
    reference.calibrate(x)
    assert torch.equal(quantizer.hi, reference.hi)


@pytest.mark.parametrize("rule", ["minmax", "percentile", "ksigma", "mse", "aciq"])
def test_streamed_calibration_equals_calibration_at_once_while_all_fits(rule: str) -> None:
    x = states()
    streamed, at_once = (Uniform(4, range=rule, granularity="channel", channels=3, channel_axis=1) for _ in range(2))
    streamed.calibrate_from(observe(x, [16] * 4))
    at_once.calibrate(x)
    torch.testing.assert_close(streamed.hi, at_once.hi, rtol=1e-6, atol=0)
    torch.testing.assert_close(streamed.lo, at_once.lo, rtol=1e-6, atol=0)


def test_other_quantizers_calibrate_from_an_observer() -> None:
    x = states()
    for streamed, at_once in (
        (LSQ(3, granularity="channel", channel_axis=1), LSQ(3, granularity="channel", channel_axis=1)),
        (LQNet(2, channel_axis=1), LQNet(2, channel_axis=1)),
    ):
        streamed.calibrate_from(observe(x, [16] * 4))
        at_once.calibrate(x)
        torch.testing.assert_close(streamed.levels(), at_once.levels())


def test_refusals() -> None:
    with pytest.raises(ModelError, match="seen no values"):
        RangeObserver().samples()
    observer = observe(states(), [64])
    with pytest.raises(ModelError, match="NaN or infinite"):
        observer.observe(torch.full((1, 3, 2, 2), float("nan")))
    with pytest.raises(ModelError, match="has seen 3 channels, this batch has 4"):
        observer.observe(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ModelError, match="channel_axis=1"):
        observer.observe(torch.zeros(4))
    with pytest.raises(SpecError, match="observer groups by channel"):
        Uniform(4, range="mse").calibrate_from(observer)
    with pytest.raises(SpecError, match="can be merged only if"):
        observer.merge(observe_tensor())
    with pytest.raises(SpecError, match="capacity"):
        RangeObserver(capacity=0)


def observe_tensor() -> RangeObserver:
    observer = RangeObserver()
    observer.observe(torch.ones(3))
    return observer
