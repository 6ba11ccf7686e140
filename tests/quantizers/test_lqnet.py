from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import norm

from isofire.errors import ModelError, SpecError
from isofire.quantizers import LQNet, Uniform, qem
from isofire.quantizers.bins import SortedRows


def gaussian(n: int = 20_000) -> torch.Tensor:
    """Evenly spaced quantiles of N(0, 1), `[1, n]`: a Gaussian without sampling noise."""
    return torch.from_numpy(norm.ppf((np.arange(n) + 0.5) / n)).float()[None]


def naive_levels(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = np.array(list(itertools.product([-1.0, 1.0], repeat=len(v))))
    order = np.argsort(codes @ v, kind="stable")
    return codes[order], (codes @ v)[order]


def naive_step(x: np.ndarray, v: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """One alternation for one channel, written from the definition: the values' levels, and the new basis."""
    codes, levels = naive_levels(v)
    index = np.array([int((value > (levels[1:] + levels[:-1]) / 2).sum()) for value in x])
    b = codes[index]
    fitted = np.linalg.solve(b.T @ b + eps * np.eye(len(v)), b.T @ x + eps * v)
    return levels[index], np.sort(np.abs(fitted))


def error(quantizer: LQNet, x: torch.Tensor) -> float:
    return (quantizer.eval()(x) - x).double().square().mean().item()


# K: MSE at the official start, after 1, after 5 alternations, converged, and the converged basis
TABLE = {
    1: (0.379, 0.364, 0.364, 0.3639, (0.798,)),
    2: (0.174, 0.131, 0.118, 0.1178, (0.529, 0.982)),
    3: (0.108, 0.065, 0.042, 0.0370, (0.302, 0.608, 1.159)),
    4: (0.084, 0.045, 0.019, 0.0115, (0.203, 0.369, 0.743, 1.229)),
}


@pytest.mark.parametrize("bits", TABLE)
def test_official_start_and_alternations_on_a_gaussian(bits: int) -> None:
    x = gaussian()
    *steps, converged, basis = TABLE[bits]
    for iterations, wanted in zip((0, 1, 5, 1000), (*steps, converged), strict=True):
        # fan_out 2 makes the official sigma 1
        quantizer = LQNet(bits, init="official", fan_out=2, iterations=iterations)
        quantizer.calibrate(x)
        assert error(quantizer, x) == pytest.approx(wanted, rel=0.02)
    torch.testing.assert_close(quantizer.basis[0], torch.tensor(basis), atol=0.003, rtol=0)


def test_one_bit_is_the_mean_magnitude() -> None:
    w = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    quantizer = LQNet(1, channels=5)
    quantizer.calibrate(w)
    torch.testing.assert_close(quantizer.basis[:, 0], w.abs().mean(1))
    assert torch.equal(quantizer.eval()(w).sign(), torch.where(w > 0, 1.0, -1.0))


@pytest.mark.parametrize(("bits", "optimum"), [(3, 0.0353), (4, 0.0101)])
def test_restarts_reach_the_better_optimum(bits: int, optimum: float) -> None:
    x = gaussian()
    without, with_restarts = LQNet(bits), LQNet(bits, restarts=2)
    without.calibrate(x)
    with_restarts.calibrate(x)
    assert error(with_restarts, x) <= optimum * 1.005
    assert error(without, x) > optimum * 1.03


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [2, 300])  # two values leave most bases undetermined
def test_never_worse_than_the_best_uniform_grid(bits: int, n: int) -> None:
    w = torch.randn(6, n, generator=torch.Generator().manual_seed(bits)) ** 3
    quantizer = LQNet(bits, iterations=30)
    uniform = Uniform(bits, grid="midrise", range="mse", granularity="channel")
    quantizer.calibrate(w)
    uniform.calibrate(w)
    ours, theirs = ((q.eval()(w) - w).square().mean(1) for q in (quantizer, uniform))
    assert (ours <= theirs * (1 + 1e-5) + 1e-12).all()


def test_official_start_follows_fan_out_of_the_weight() -> None:
    for shape, n in (((8, 5, 3, 3), 72), ((10, 7), 10)):
        quantizer = LQNet(3, init="official", iterations=0)
        quantizer.calibrate(torch.randn(shape))
        wanted = 0.6745 * (2 / n) ** 0.5 * torch.tensor([1.0, 2.0, 4.0]) / 4
        torch.testing.assert_close(quantizer.basis, wanted.expand(shape[0], 3))
    with pytest.raises(SpecError, match="needs fan_out"):
        LQNet(2, init="official", channel_axis=1).calibrate(torch.randn(4, 3))


@pytest.mark.parametrize("zero_debias", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_training_equals_the_definition_step_by_step(bits: int, zero_debias: bool) -> None:
    generator = torch.Generator().manual_seed(bits)
    w = torch.randn(3, 2, 5, 5, generator=generator) * torch.tensor([0.1, 1.0, 5.0])[:, None, None, None]
    quantizer = LQNet(bits, channels=3, iterations=0, zero_debias=zero_debias)
    quantizer.calibrate(w)
    basis = quantizer.basis.double().numpy().copy()
    accumulated = np.zeros_like(basis)  # TensorFlow's form: a biased average from zero, divided by 1 - decay^t
    for t in range(1, 7):
        w = w + 0.05 * torch.randn(w.shape, generator=generator) * w.std()
        q = quantizer(w)
        for c in range(3):
            x = w[c].flatten().double().numpy()
            values, fitted = naive_step(x, basis[c], 1e-4)
            np.testing.assert_allclose(q[c].flatten().numpy(), values, rtol=1e-5, atol=1e-7)
            if zero_debias:
                accumulated[c] = 0.9 * accumulated[c] + 0.1 * fitted
                basis[c] = accumulated[c] / (1 - 0.9**t)
            else:
                basis[c] = 0.9 * basis[c] + 0.1 * fitted
        np.testing.assert_allclose(quantizer.basis.numpy(), basis, rtol=2e-5)
        basis = quantizer.basis.double().numpy().copy()  # rounding must not accumulate into another assignment
        accumulated = basis * (1 - 0.9**t) if zero_debias else accumulated


def test_first_update_overwrites_the_start_and_eval_or_no_grad_do_not_move_it() -> None:
    w = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    quantizer = LQNet(2, channels=4, init="official", fan_out=2, iterations=0)
    quantizer.calibrate(w)
    start = quantizer.basis.clone()
    with torch.no_grad():
        quantizer(w)
    quantizer.eval()(w)
    assert torch.equal(quantizer.basis, start)
    quantizer.train()(w)
    fitted = np.stack(
        [naive_step(row.double().numpy(), v.double().numpy(), 1e-4)[1] for row, v in zip(w, start, strict=True)]
    )
    np.testing.assert_allclose(quantizer.basis.numpy(), fitted, rtol=1e-5)


def test_calibrating_again_starts_the_average_anew() -> None:
    w = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    quantizer, fresh = LQNet(2, channels=4), LQNet(2, channels=4)
    quantizer.calibrate(w)
    quantizer(2 * w)
    for q in (quantizer, fresh):
        q.calibrate(w)
        q(3 * w)
    assert torch.equal(quantizer.basis, fresh.basis)


def test_moving_average_resumes_from_a_state_dict() -> None:
    w = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    quantizer = LQNet(2, channels=4)
    quantizer.calibrate(w)
    for i in range(3):
        quantizer(w * (1 + i))
    resumed = LQNet(2, channels=4)
    resumed.load_state_dict(quantizer.state_dict())
    quantizer(w)
    resumed(w)
    assert torch.equal(resumed.basis, quantizer.basis)
    assert resumed.updates.value == 4


def test_basis_stays_canonical_when_the_fit_flips_or_swaps_entries() -> None:
    now = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    codes = qem.code_table(2, now)[qem.sorted_levels(now)[1]]
    sums = codes @ torch.tensor([3.0, -1.0], dtype=torch.float64)  # exactly the levels of the basis (3, -1)
    fitted, singular = qem.solve(now, torch.ones(1, 4, dtype=torch.float64), sums, qem.sorted_levels(now)[1], 0.0)
    torch.testing.assert_close(fitted, torch.tensor([[1.0, 3.0]], dtype=torch.float64))
    assert not singular.any()
    basis = torch.tensor([[0.9, -0.2, 0.4]], dtype=torch.float64)
    assert qem.canonical(basis).tolist() == [[0.2, 0.4, 0.9]]
    torch.testing.assert_close(qem.sorted_levels(qem.canonical(basis))[0], qem.sorted_levels(basis)[0])
    w = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    quantizer = LQNet(4, channels=8, restarts=3)
    quantizer.calibrate(w)
    for _ in range(20):
        w = w + 0.3 * torch.randn(8, 100)
        quantizer(w)
        assert (quantizer.basis >= 0).all()
        assert (quantizer.basis.diff(dim=1) >= 0).all()


def test_alternation_never_raises_the_error() -> None:
    x = SortedRows(torch.randn(5, 400, generator=torch.Generator().manual_seed(3)))
    basis = qem.paper_start(3, x.energy.sqrt())
    before = qem.mean_squared_error(x, basis)
    for _ in range(30):
        basis = qem.converge(x, basis, ridge=1e-4, iterations=1)
        now = qem.mean_squared_error(x, basis)
        assert (now <= before + 1e-12).all()
        before = now


def test_levels_codes_and_gradient() -> None:
    w = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    quantizer = LQNet(3, channels=6, restarts=2)
    quantizer.calibrate(w)
    for c, levels in enumerate(quantizer.levels()):
        _, wanted = naive_levels(quantizer.basis[c].double().numpy())
        np.testing.assert_allclose(levels.numpy(), wanted, atol=1e-6)
    x = (10 * w).requires_grad_()
    quantizer(x).backward(torch.full_like(x, 2.0))
    assert x.grad is not None
    assert (x.grad == 2).all()  # straight through, also far outside


def test_values_on_a_midpoint_take_the_lower_level() -> None:
    quantizer = LQNet(2, granularity="tensor")
    quantizer.calibrate(torch.tensor([-3.0, -1.0, 1.0, 3.0]))
    torch.testing.assert_close(quantizer.basis, torch.tensor([[1.0, 2.0]]))
    quantizer.basis.copy_(torch.tensor([[1.0, 2.0]]))
    assert quantizer.eval()(torch.tensor([-2.0, 0.0, 2.0])).tolist() == [-3, -1, 1]


def test_clip_clamps_first_and_changes_nothing_inside() -> None:
    w = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).clamp(-0.9, 0.9)
    plain, wide, narrow = LQNet(2), LQNet(2, clip=(-1, 1)), LQNet(2, clip=(-0.3, 0.3))
    for quantizer in (plain, wide, narrow):
        quantizer.calibrate(w)
        quantizer.eval()
    assert torch.equal(plain(w), wide(w))
    assert torch.equal(narrow(w), narrow(w.clamp(-0.3, 0.3)))
    assert narrow(w).abs().max() <= 0.31


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("ridge", [1e-4, 0])
def test_degenerate_channels_stay_finite_and_exact(bits: int, ridge: float) -> None:
    w = torch.stack([torch.zeros(20), torch.full((20,), 0.7), torch.full((20,), -0.7), torch.randn(20)])
    quantizer = LQNet(bits, channels=4, ridge=ridge)
    quantizer.calibrate(w)
    for _ in range(3):
        q = quantizer(w)
        assert torch.isfinite(q).all()
        assert torch.isfinite(quantizer.basis).all()
    q = quantizer(w)
    assert q[0].abs().max() < 1e-15
    torch.testing.assert_close(q[1:3], w[1:3])


def test_singular_rows_span_their_values_unless_the_start_is_better() -> None:
    rows = SortedRows(torch.tensor([[0.1, 1.0]]))  # two values cannot determine three entries
    start = torch.tensor([[0.05, 0.45, 0.5]], dtype=torch.float64)  # has levels at both
    reseeded = qem.converge(rows, start, ridge=0, iterations=5)
    torch.testing.assert_close(reseeded, torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64) / 7)
    basis, error = qem.fit(rows, [start], ridge=0, iterations=5)
    assert torch.equal(basis, start)
    assert error.item() < 1e-12


def test_singular_channel_is_reseeded_in_training_and_recovers() -> None:
    generator = torch.Generator().manual_seed(0)
    quantizer = LQNet(2, channels=2)
    quantizer.calibrate(torch.randn(2, 200, generator=generator))
    constant = torch.stack([torch.full((200,), 3.0), torch.randn(200, generator=generator)])
    quantizer(constant)
    torch.testing.assert_close(quantizer.basis[0], torch.tensor([1.0, 2.0]))  # outermost levels +-3
    for _ in range(60):
        quantizer(torch.randn(2, 200, generator=generator))
    error = (quantizer.eval()(gaussian().expand(2, -1)) - gaussian()).square().mean(1)
    assert (error < 0.125).all()


def test_refusals() -> None:
    for settings, message in (
        ({"bits": 9}, r"bits in 1\.\.8"),
        ({"bits": 2, "ema": 1.0}, "ema must lie"),
        ({"bits": 2, "ridge": -1}, "ridge must be"),
        ({"bits": 2, "restarts": -1}, "restarts must be"),
        ({"bits": 2, "iterations": 1.5}, "iterations must be"),
        ({"bits": 2, "fan_out": 0}, "fan_out must be"),
        ({"bits": 2, "init": "zeros"}, "init must be"),
        ({"bits": 2, "clip": (1, -1)}, "clip needs lo < hi"),
    ):
        with pytest.raises(SpecError, match=message):
            LQNet(**settings)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="has no levels yet"):
        LQNet(2)(torch.zeros(1, 3))
