"""Distances against scipy and POT, and the chain |dMFR| <= EMD <= paired MAE."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from isofire.errors import DataError, SpecError
from isofire.firing import SpikeCounts, decompose, distance, emd, emd_from_counts, paired_mae, spearman
from isofire.firing.distance import _positive, average_ranks
from isofire.neurons import native

RATE = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.05, 0.25, 1.0])
POPULATION = st.lists(RATE, min_size=1, max_size=40)
PAIRS = st.lists(st.tuples(RATE, RATE), min_size=1, max_size=40)


@settings(deadline=None, max_examples=200)
@given(a=POPULATION, b=POPULATION)
def test_emd_equals_scipy_for_any_sizes(a: list[float], b: list[float]) -> None:
    assert emd(a, b) == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(a=POPULATION, b=POPULATION)
def test_emd_equals_optimal_transport(a: list[float], b: list[float]) -> None:
    plan_cost = ot.emd2_1d(np.array(a), np.array(b), metric="euclidean")
    quantile = ot.wasserstein_1d(np.array(a), np.array(b), p=1)
    assert emd(a, b) == pytest.approx(float(plan_cost), abs=1e-9)
    assert emd(a, b) == pytest.approx(float(quantile), abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20_000, 20_000), (20_000, 13_001)])
def test_emd_of_large_populations(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.beta(0.5, 4, n), rng.beta(0.6, 4, m)
    reference = stats.wasserstein_distance(a, b)
    assert emd(a, b) == pytest.approx(reference, abs=1e-12)
    assert emd(torch.tensor(a), torch.tensor(b)) == emd(a, b)


LARGE = 60_000
CUT = ("apart", "many dead", "no overlap", "all the same, twice")
SORTED = ("hardly moved", "one far away", "a step at an edge", "enormous")


def _large(kind: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    rng = np.random.default_rng(0)
    beta = rng.beta(0.5, 4, LARGE)
    alive, levels = rng.random((2, LARGE)) < 0.6, rng.binomial(90, [[0.2], [0.21]], (2, LARGE)) / 90
    return {
        "apart": (beta, rng.beta(0.6, 4, LARGE)),
        "of one distribution": (beta, rng.beta(0.5, 4, LARGE)),
        "unequal sizes": (beta, rng.beta(0.5, 4, LARGE - 7_001)),
        "many dead": (np.where(alive[0], beta, 0.0), np.where(alive[1], beta, 0.0)),
        "many at the most": (np.where(alive[0], beta, 1.0), np.where(alive[1], beta, 1.0)),
        "few levels": (levels[0], levels[1]),
        "hardly moved": (beta, beta + 1e-9 * rng.random(LARGE)),
        "one far away": (beta, np.append(beta[1:], 1e7)),
        "no overlap": (beta, 3 + beta),
        "all the same, twice": (np.full(LARGE, 0.25), np.full(LARGE, 0.75)),
        "a step at an edge": (
            np.append(np.full(LARGE, 0.25 - 1e-13), 1.0),
            np.append(np.full(LARGE, 0.25 + 1e-13), 1.0),
        ),
        "enormous": (1e305 * beta, 1e305 * rng.beta(0.6, 4, LARGE)),
        "a narrow range": (1 + 1e-16 * np.round(beta * 2e4), 1 + 1e-16 * np.round(beta[::-1] * 1e4)),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "apart", "of one distribution", "unequal sizes", "many dead", "many at the most", "few levels", "hardly moved",
        "one far away", "no overlap", "all the same, twice", "a narrow range", "a step at an edge", "enormous",
    ],
)  # fmt: skip
def test_buckets_give_what_sorting_gives(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = _large(kind)
    asked = []
    kernel = native.emd
    monkeypatch.setattr(native, "emd", lambda *given: asked.append(kernel(*given)) or asked[-1])
    found, back = emd(a, b), emd(b, a)
    if native.built():
        # sorting does better where most values are to be sorted, or where little is left but rounding
        assert len(asked) == 2
        assert kind not in CUT or None not in asked
        assert kind not in SORTED or asked == [None, None]
    monkeypatch.setattr(distance, "_WORTH_BUCKETS", 2**60)
    assert found == pytest.approx(emd(a, b), rel=1e-12, abs=1e-18)
    assert found == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-9, abs=1e-15)
    assert back == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("way", ["every second", "turned round", "a column", "read-only", "float32", "sparse"])
def test_memory_of_any_kind_is_read_rightly(way: str) -> None:
    rng = np.random.default_rng(0)
    whole = [rng.beta(0.5, 4, (LARGE, 2)).astype(np.float32).astype(np.float64) for _ in range(2)]
    for each in whole:
        each.setflags(write=way != "read-only")
    taken: dict[str, Any] = {
        "every second": lambda x: x.reshape(-1)[::2],
        "turned round": lambda x: x[::-1, 0],
        "a column": lambda x: x[:, 0],
        "read-only": lambda x: x[:, 0],
        "float32": lambda x: torch.from_numpy(x[:, 0].astype(np.float32)),
        "sparse": lambda x: torch.from_numpy(x[:, 0].copy()).to_sparse(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = emd(taken[way](whole[0]), taken[way](whole[1]))
    assert found == pytest.approx(stats.wasserstein_distance(whole[0][:, 0], whole[1][:, 0]), rel=1e-9)


def test_a_masked_array_is_refused() -> None:
    with pytest.raises(DataError, match="take those that are not masked out"):
        emd(np.ma.masked_array([0.1, 0.2], [True, False]), [0.1])


def test_buckets_hang_on_no_threads() -> None:
    a, b = _large("apart")
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(emd(a, b))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_permutation_is_no_distance() -> None:
    a, _ = _large("many dead")
    assert emd(a, np.random.default_rng(1).permutation(a)) == 0


@settings(deadline=None, max_examples=200)
@given(a=POPULATION, b=POPULATION)
def test_small_populations_in_buckets(a: list[float], b: list[float]) -> None:
    if not native.built():
        pytest.skip("needs the compiled kernels")
    found = native.emd(np.array(a), np.array(b))
    assert found is None or found == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(a=POPULATION, b=POPULATION, c=POPULATION)
def test_emd_is_a_metric(a: list[float], b: list[float], c: list[float]) -> None:
    assert emd(a, a[::-1]) == 0
    assert emd(a, b) == pytest.approx(emd(b, a), abs=1e-15)
    assert emd(a, c) <= emd(a, b) + emd(b, c) + 1e-12


@settings(deadline=None, max_examples=150)
@given(
    a=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    b=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    denominators=st.tuples(st.integers(1, 80), st.integers(1, 80)) | st.integers(1, 80).map(lambda d: (d, d)),
)
def test_emd_from_counts_equals_emd_of_rates(a: list[int], b: list[int], denominators: tuple[int, int]) -> None:
    first, second = np.array(a), np.array(b)
    expected = emd(first / denominators[0], second / denominators[1])
    assert emd_from_counts(first, second, *denominators) == pytest.approx(expected, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize(("n", "m"), [(50_000, 50_000), (50_000, 30_000)])
def test_emd_from_counts_equals_scipy(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.binomial(40_000, rng.beta(0.5, 4, n)), rng.binomial(40_000, rng.beta(0.6, 4, m))
    reference = stats.wasserstein_distance(a / 40_000, b / 40_000)
    assert emd_from_counts(torch.tensor(a), torch.tensor(b), 40_000) == pytest.approx(reference, rel=1e-12)


def test_counts_on_a_huge_grid_are_sorted_instead() -> None:
    a, b = np.array([0, 2**40]), np.array([2**39, 2**40])
    assert emd_from_counts(a, b, 2**41) == 0.125


def test_counts_as_int32_do_not_overflow() -> None:
    a, b = torch.zeros(70_000, dtype=torch.int32), torch.full((50_000,), 100_000, dtype=torch.int32)
    assert emd_from_counts(a, b, 100_000) == 1.0
    assert emd_from_counts(a, torch.full((70_000,), 100_000, dtype=torch.int32), 100_000) == 1.0


@settings(deadline=None, max_examples=200)
@given(pairs=PAIRS)
def test_shift_below_emd_below_paired_mae(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    parts = decompose(a, b)
    assert min(parts) >= 0
    assert parts.shift == pytest.approx(abs(a.mean() - b.mean()), abs=1e-12)
    assert parts.shift + parts.shape == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-12)
    assert sum(parts) == pytest.approx(np.abs(a - b).mean(), abs=1e-12)


def test_each_part_alone() -> None:
    base = np.array([0.1, 0.2, 0.3, 0.4])
    assert decompose(base, base + 0.25) == pytest.approx((0.25, 0.0, 0.0), abs=1e-15)
    assert decompose(base, base[[1, 0, 3, 2]]) == pytest.approx((0.0, 0.0, 0.1), abs=1e-15)
    # spread around an unchanged mean, order kept
    assert decompose(base, [0.0, 0.2, 0.3, 0.5]) == pytest.approx((0.0, 0.05, 0.0), abs=1e-15)


def test_only_rounding_is_clamped() -> None:
    assert _positive(-1e-17, 1e-12) == 0
    assert _positive(-1e-6, 1e-12) == -1e-6
    assert _positive(1e-17, 1e-12) == 1e-17


@settings(deadline=None, max_examples=150)
@given(pairs=PAIRS)
def test_spearman_equals_scipy(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_average_ranks_are_those_of_scipy_to_the_last_bit() -> None:
    values = np.random.default_rng(0).integers(0, 9, (5, 40)) / 7
    for rows in (values, values[:, :1], values[:0], np.ones((2, 3))):
        assert np.array_equal(average_ranks(rows), stats.rankdata(rows, axis=1))
    assert np.array_equal(average_ranks(values[0]), stats.rankdata(values[0]))


def test_spearman_with_many_ties() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 5, 5_000) / 4, rng.integers(0, 3, 5_000) / 4
    assert spearman(a, b + a) == pytest.approx(stats.spearmanr(a, b + a).statistic, abs=1e-12)


def test_paired_mae_sees_what_the_emd_cannot() -> None:
    rates = np.array([0.0, 0.1, 0.9])
    shuffled = rates[[2, 0, 1]]
    assert emd(rates, shuffled) == 0
    assert paired_mae(rates, shuffled) == pytest.approx((0.9 + 0.1 + 0.8) / 3)


@pytest.mark.parametrize("call", [emd, paired_mae, decompose, spearman])
@pytest.mark.parametrize(
    ("rates", "match"),
    [([], "b must hold"), ([float("nan")], "b must be finite"), ([-1.0], "b must not be"), ([[0.1]], "b must be one-")],
)
def test_bad_rates_are_refused(call: object, rates: list[float], match: str) -> None:
    with pytest.raises(DataError, match=match):
        call([0.1], rates)  # type: ignore[operator]


@pytest.mark.parametrize("call", [paired_mae, decompose, spearman])
def test_pairs_need_the_same_neurons(call: object) -> None:
    with pytest.raises(DataError, match="same neurons, got 1 against 2"):
        call([0.1], [0.1, 0.2])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("counts", "denominator", "match"),
    [
        (np.array([], dtype=int), 4, "b must be integers"),
        (np.array([0.5]), 4, "b must be integers .* got float64"),
        (np.array([[1]]), 4, "b must be integers"),
        (np.array([3, -1]), 4, "b must not be negative, got -1 at neuron 1"),
        (np.array([1]), 0, "denominators must be"),
    ],
)
def test_bad_counts_are_refused(counts: NDArray[np.integer], denominator: int, match: str) -> None:
    with pytest.raises(DataError, match=match):
        emd_from_counts(np.array([1]), counts, denominator)


def test_recordings_are_measured_as_their_rates() -> None:
    rng = np.random.default_rng(0)
    first, second = (
        SpikeCounts(
            {name: torch.from_numpy(rng.integers(0, 9, (3, n))).int() for name, n in (("x", 7), ("y", 4))},
            torch.tensor([2, 2, 1]), 4,
        )
        for _ in range(2)
    )  # fmt: skip
    for layer in ("x", "y", None):
        pair = first.rates(layer), second.rates(layer)
        for measure in (emd, paired_mae, spearman, decompose):
            assert measure(first, second, layer) == pytest.approx(measure(*pair), nan_ok=True)
        assert emd(first, second, layer) == pytest.approx(stats.wasserstein_distance(*pair))
        assert emd(first, pair[1]) == pytest.approx(emd(first.rates(), pair[1]))
    with pytest.raises(SpecError, match="layer must be one of x, y, got 'z'"):
        emd(first, second, "z")
    with pytest.raises(SpecError, match="plain rates have no layers"):
        emd([0.1], [0.2], "x")
    other = SpikeCounts({"x": first.counts["x"]}, first.images_per_block, 4)
    with pytest.raises(DataError, match="must be rates of the same neurons: layer 'y' is only in the first"):
        paired_mae(first, other)
    for wrong in (object(), "rates", {"x": 1}):
        with pytest.raises(DataError, match=r"a must be rates \[n\] or a recording"):
            emd(wrong, [0.1])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
@pytest.mark.parametrize("threads", [1, 2])
def test_counts_are_binned_alike_by_kernel_and_numpy(dtype, threads) -> None:
    """Also with a histogram a thread, counts of several spikes a step, and an edge count of exactly the denominator."""
    generator = np.random.default_rng(3)
    a, b = (generator.integers(0, 201, 70_000) for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for denominator in (200, 100):  # all counts within it, and some above
            found = emd_from_counts(*(torch.from_numpy(x).to(dtype) for x in (a, b)), denominator)
            assert found == pytest.approx(stats.wasserstein_distance(a / denominator, b / denominator), rel=1e-12)
    finally:
        torch.set_num_threads(before)


def test_a_negative_count_is_named() -> None:
    with pytest.raises(DataError, match=r"b must not be negative, got -1 at neuron 2"):
        emd_from_counts(torch.tensor([0, 1, 2]), torch.tensor([0, 1, -1]), 4)


@pytest.mark.parametrize("denominators", [(4.5,), (8, 2.5), ("8",), (None, 8)])
def test_denominators_are_whole_numbers(denominators: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match="denominators must be T \\* images, whole numbers, got"):
        emd_from_counts(torch.tensor([0, 4]), torch.tensor([1, 4]), *denominators)
    numbers = np.int64(8), torch.tensor(8)
    assert emd_from_counts(torch.tensor([0, 4]), torch.tensor([1, 4]), *numbers) == 1 / 16  # type: ignore[arg-type]
