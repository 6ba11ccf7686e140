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


def test_a_quantizer_in_the_recurrent_weights_of_sinabs_is_told_with_its_cure() -> None:
    error = KeyError('buffer name can\'t contain "."')
    with pytest.raises(ModelError, match=r"rec_connect holds.*leave its weights float by a rule"):
        forward(Raises(lambda: error), torch.zeros(1))


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


def test_the_layer_in_which_it_fails_is_named() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(ModelError, match=r"shapes cannot be multiplied .* \(in its layer '1\.1', Linear\); if that"):
        forward(net, torch.zeros(2, 3))
    with pytest.raises(ModelError) as found:
        forward(net[1][1], torch.zeros(2, 3))
    assert "in its layer" not in str(found.value)


def test_an_assertion_of_the_networks_is_told_with_the_inputs() -> None:
    with pytest.raises(ModelError, match=r"fails on inputs \[1\] .*AssertionError: three channels"):
        forward(Raises(lambda: AssertionError("three channels")), torch.zeros(1))


class Writes(nn.Module):
    """Does something to its inputs in place."""

    def __init__(self, how: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        self.how(x)
        return x + 1


@pytest.mark.parametrize("how", [lambda x: x.sub_(0.5), lambda x: x[0].zero_(), lambda x: torch.relu_(x.view(-1))])
@pytest.mark.parametrize("inference", [False, True])
def test_a_network_that_writes_over_its_inputs_is_refused(how: Callable[[Tensor], object], inference: bool) -> None:
    inputs = torch.randn(4, 3)
    with torch.inference_mode(inference), pytest.raises(ModelError, match=r"writes over its inputs .*x = x\.clone\(\)"):
        forward(Writes(how), inputs)
    with torch.inference_mode(inference):
        assert torch.equal(forward(Writes(lambda x: how(x.clone())), inputs), inputs + 1)
