from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.errors import ModelError
from isofire.training import mean_logit, readout, tet
from isofire.training.losses import check_classes, hits

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(2, 7))


def _draw(shape: tuple[int, int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randint(0, shape[2], (shape[1],), generator=generator)


def _cross_entropy(logits: list[float], label: int, smoothing: float) -> float:
    log_sum = math.log(sum(math.exp(value) for value in logits))
    classes = len(logits)
    target = [(1 - smoothing) * (k == label) + smoothing / classes for k in range(classes)]
    return sum(weight * (log_sum - value) for weight, value in zip(target, logits, strict=True))


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99), st.floats(0, 0.9))
def test_tet_equals_a_loop_over_steps_and_images(shape: tuple[int, int, int], seed: int, smoothing: float) -> None:
    logits, labels = _draw(shape, seed)
    loop = [
        _cross_entropy(logits[t, n].tolist(), int(labels[n]), smoothing)
        for t in range(shape[0])
        for n in range(shape[1])
    ]
    assert tet(logits, labels, smoothing).item() == pytest.approx(sum(loop) / len(loop), rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99), st.floats(0, 0.9))
def test_mean_logit_equals_a_loop_over_images(shape: tuple[int, int, int], seed: int, smoothing: float) -> None:
    logits, labels = _draw(shape, seed)
    loop = [
        _cross_entropy([sum(column) / shape[0] for column in logits[:, n].T.tolist()], int(labels[n]), smoothing)
        for n in range(shape[1])
    ]
    assert mean_logit(logits, labels, smoothing).item() == pytest.approx(sum(loop) / len(loop), rel=1e-12)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 99))
def test_tet_is_never_below_mean_logit(shape: tuple[int, int, int], seed: int) -> None:
    logits, labels = _draw(shape, seed)
    assert tet(logits, labels) >= mean_logit(logits, labels) - 1e-12


def test_both_losses_agree_on_one_step() -> None:
    logits, labels = _draw((1, 5, 4), 0)
    torch.testing.assert_close(tet(logits, labels, 0.1), mean_logit(logits[0], labels, 0.1))


def test_half_precision_is_averaged_in_float32() -> None:
    logits = torch.tensor([[[256.0, 0.0]], [[1.0, 0.0]]], dtype=torch.bfloat16)
    assert readout(logits).tolist() == [[128.5, 0.0]]
    assert mean_logit(logits, torch.tensor([0])).dtype == torch.float32


def test_hits_counts_the_argmax_of_the_mean() -> None:
    logits = torch.tensor([[[5.0, 0.0], [0.0, 1.0]], [[0.0, 4.0], [0.0, 1.0]]])
    assert hits(logits, torch.tensor([0, 0])) == 1


def test_tet_refuses_logits_without_time() -> None:
    with pytest.raises(ModelError, match=r"'tet' needs logits of every step \[T, N, classes\], got shape \[3, 4\]"):
        tet(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("output", [torch.zeros(3), torch.zeros(2, 3, 4, 5), (torch.zeros(3, 4),)])
def test_readout_refuses_what_is_no_logits(output: object) -> None:
    with pytest.raises(ModelError, match=r"must return logits \[T, N, classes\] or \[N, classes\], got"):
        readout(output)  # type: ignore[arg-type]


def test_too_few_logits_are_refused() -> None:
    model = torch.nn.Linear(4, 9)
    check_classes(model, torch.zeros(2, 3, 10), 10)
    with pytest.raises(ModelError, match="gives 9 logits but the labels reach 9"):
        check_classes(model, torch.zeros(2, 3, 9), 10)
    with pytest.raises(ModelError, match="labels reach 1: Linear gives one number an image"):
        check_classes(model, torch.zeros(2, 3, 1), 2)
