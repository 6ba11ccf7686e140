"""Images sorted by class are no fair sample of their set, which is said where it matters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from isofire.neurons import LIF, PerStep, Repeat
from isofire.quantization import quantize_
from isofire.quantization.order import is_sorted
from isofire.spec import QuantSpec

W4 = {"method": "uniform", "bits": 4}
TOLD = "the calibration images come sorted by class"


def network(norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(Repeat(2), PerStep(nn.Linear(6, 8), *middle), LIF(), PerStep(nn.Linear(8, 5)))


def images(labels: Tensor) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(len(labels), 6) * 2 + labels.unsqueeze(1)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.arange(300) // 60, True),
        (torch.tensor([3, 1, 4, 0, 2]).repeat_interleave(60), True),
        (torch.arange(300) % 5, False),
        (torch.arange(300) // 60 * 0, False),
        (torch.arange(10) // 2, False),
        (torch.tensor([1]), False),
        # pairs of two neighbours, of which shuffled ones would differ in 239 of 299 places
        ((torch.arange(300) // 2) % 5, False),
    ],
)
def test_sorted_labels_are_seen(labels: Tensor, found: bool) -> None:
    assert is_sorted(labels) is found


def test_shuffled_labels_are_never_called_sorted() -> None:
    generator = torch.Generator().manual_seed(0)
    for classes, n in ((2, 65), (2, 1024), (10, 40), (100, 128)):
        for _ in range(500):
            assert not is_sorted(torch.randint(0, classes, (n,), generator=generator))


LABELS = torch.arange(300) // 60


@pytest.mark.parametrize(
    ("data", "spec", "norm", "told"),
    [
        ((images(LABELS), LABELS), {"weights": W4}, True, TOLD),
        (DataLoader(TensorDataset(images(LABELS), LABELS), batch_size=50), {"weights": W4}, True, TOLD),
        (
            [(x, y) for x, y in zip(images(LABELS).split(50), LABELS.split(50), strict=True)],
            {"weights": W4},
            True,
            TOLD,
        ),
        # nothing that is measured batch by batch, and all classes are seen
        ((images(LABELS), LABELS), {"weights": W4, "reestimate_bn": "never"}, True, None),
        ((images(LABELS), LABELS), {"weights": W4, "membrane": {"bits": 4, "range": "minmax"}}, False, None),
        ((images(LABELS % 5), torch.arange(300) % 5), {"weights": W4}, True, None),
    ],
)
def test_where_order_matters_it_is_told(data, spec, norm: bool, told: str | None, caplog) -> None:
    quantize_(network(norm), QuantSpec.from_dict({**spec, "first_layer": "quantize"}), data)
    said = [record.message for record in caplog.records if "sorted" in record.message]
    assert bool(said) is (told is not None)
    assert told is None or said[0].startswith(f"{told}: ranges and the statistics of batch norms")


@pytest.mark.parametrize("method", [{"method": "gptq", "bits": 4}, W4])
def test_classes_that_a_sorted_set_keeps_from_calibration_are_counted(method, caplog) -> None:
    spec = QuantSpec.from_dict(
        {"first_layer": "quantize", "weights": method, "membrane": {"bits": 4, "range": "minmax"}}
    )
    quantize_(network(False), spec, (images(LABELS), LABELS), max_images=100)
    assert f"{TOLD}; 3 classes are not among its 100 images" in caplog.text
    caplog.clear()
    order = torch.randperm(300)
    quantize_(network(False), spec, (images(LABELS)[order], LABELS[order]), max_images=100)
    assert not caplog.text
