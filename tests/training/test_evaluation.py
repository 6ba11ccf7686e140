from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.data import ImageSet
from isofire.errors import ModelError
from isofire.training import evaluate


class Known(nn.Module):
    """Reads the first pixel, whose byte is 10 k, and gives logit 2 to class k."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        chosen = (images[:, 0, 0, 0] * 25.5).round().long()
        return 2.0 * nn.functional.one_hot(chosen, self.classes)


def _set(shown: list[int], labels: list[int]) -> ImageSet:
    images = torch.tensor(shown, dtype=torch.uint8).view(-1, 1, 1, 1) * 10
    return ImageSet("known", "test", images, torch.tensor(labels), ("a", "b", "c", "d"), (0.0,), (1.0,))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_accuracy_and_loss_by_hand_whatever_the_batch(batch_size: int) -> None:
    found = evaluate(Known(), _set([0, 1, 2, 3, 0], [0, 1, 2, 0, 1]), batch_size=batch_size)
    right, wrong = math.log(math.exp(2) + 3) - 2, math.log(math.exp(2) + 3)
    assert (found.accuracy, found.n) == (3 / 5, 5)
    assert found.loss == pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-6)


def test_it_leaves_modes_gradients_and_random_numbers_alone(
    make_net: Callable[..., nn.Module], valid_set: ImageSet
) -> None:
    net = make_net().train()
    net.norm.eval()
    state = torch.get_rng_state()
    statistics = net.norm.running_mean.clone()
    first, second = evaluate(net, valid_set), evaluate(net, valid_set)
    assert first == second
    assert [net.training, net.norm.training, net.dropout.training] == [True, False, True]
    assert torch.equal(net.norm.running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_bf16_is_near_float32(make_net: Callable[..., nn.Module], valid_set: ImageSet) -> None:
    net = make_net()
    exact, rough = evaluate(net, valid_set), evaluate(net, valid_set, precision="bf16")
    assert rough.loss == pytest.approx(exact.loss, rel=0.02)
    assert rough.loss != exact.loss


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="the model gives 3 logits but the labels reach 3"):
        evaluate(Known(3), _set([0], [0]))
