"""Running a network: what is told as its own fault, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.errors import DataError, ModelError
from isofire.running import forward


class Raises(nn.Module):
    def __init__(self, make: Callable[[], Exception]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        raise self.make()


def test_what_the_network_does_not_take_is_told_with_the_inputs() -> None:
    with pytest.raises(ModelError, match=r"Linear fails on inputs \[2, 3\] of torch.float32: RuntimeError: .*shapes"):
        forward(nn.Linear(4, 5), torch.zeros(2, 3))
    assert forward(nn.Linear(3, 5), torch.zeros(2, 3)).shape == (2, 5)


@pytest.mark.parametrize(
    "error",
    [
        DataError("mine"), NotImplementedError("todo"), torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), KeyError("x"),
    ],
)  # fmt: skip
def test_what_is_no_fault_of_the_inputs_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as found:
        forward(Raises(lambda: error), torch.zeros(1))
    assert found.value is error
