from __future__ import annotations

import numpy as np
import pytest
import torch

from isofire.quantizers import bins


def data(groups: int, n: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(groups * n + count)
    rows = torch.randn(groups, n, generator=generator)
    levels = torch.randn(groups, count, generator=generator).sort(dim=1).values
    return rows, levels


def reference(row: np.ndarray, levels: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cell = np.array([int((x > t).sum()) for x in row])
    counts = np.array([(cell == i).sum() for i in range(len(levels))], dtype=float)
    sums = np.array([row[cell == i].astype(float).sum() for i in range(len(levels))])
    return cell, counts, sums


@pytest.mark.parametrize("count", [2, 4, 16, 128])
def test_all_ways_agree_with_brute_force(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, levels = data(5, 300, count)
    t = (levels[:, 1:] + levels[:, :-1]) / 2
    rows[:, :3] = t[:, :1]  # ties belong to the lower cell
    wanted = [reference(r.numpy(), v.numpy(), u.numpy()) for r, v, u in zip(rows, levels, t, strict=True)]
    assert bins.assign(rows, t).tolist() == [w[0].tolist() for w in wanted]
    for block in (100, 700, 1 << 20):
        monkeypatch.setattr(bins, "_BLOCK", block)
        values, counts, sums = bins.quantize_and_count(rows, levels, t)
        assert torch.equal(values, levels.gather(1, torch.tensor(np.stack([w[0] for w in wanted]))))
        assert torch.equal(bins.quantize(rows, levels, t), values)
        np.testing.assert_array_equal(counts.numpy(), np.stack([w[1] for w in wanted]))
        np.testing.assert_allclose(sums.numpy(), np.stack([w[2] for w in wanted]), atol=1e-9)
    for other in (bins.count_by_threshold(rows, t), bins.SortedRows(rows).cells(t)):
        assert torch.equal(other[0], counts)
        torch.testing.assert_close(other[1], sums, atol=1e-5, rtol=1e-6)


def test_selected_rows_are_those_rows() -> None:
    rows, levels = data(6, 50, 4)
    t = (levels[:, 1:] + levels[:, :-1]) / 2
    kept = torch.tensor([True, False, True, True, False, False])
    part, all_of_them = bins.SortedRows(rows).select(kept).cells(t[kept]), bins.SortedRows(rows).cells(t)
    assert torch.equal(part[0], all_of_them[0][kept])
    assert torch.equal(part[1], all_of_them[1][kept])
