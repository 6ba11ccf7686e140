from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.batches import Data
from isofire.data import ImageSet
from isofire.errors import DataError, ModelError
from isofire.training import Recipe, evaluate, train


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


SHOWN, LABELS = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 1, 2, 0, 1])
PIXELS = (SHOWN / 25.5).view(-1, 1, 1, 1)
PAIRS: dict[str, Callable[[], Data]] = {
    "a pair": lambda: (PIXELS, LABELS),
    "small integers": lambda: (PIXELS, LABELS.to(torch.uint8)),
    "batches": lambda: [(PIXELS[:2], LABELS[:2]), (PIXELS[2:], LABELS[2:])],
    "a generator": lambda: ((PIXELS[i : i + 1], LABELS[i : i + 1]) for i in range(5)),
    "a loader that shuffles": lambda: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(PIXELS, LABELS), batch_size=2, shuffle=True
    ),
}


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("kind", PAIRS)
def test_inputs_and_labels_are_taken_as_compare_takes_them(kind: str, batch_size: int) -> None:
    found = evaluate(Known(), PAIRS[kind](), batch_size=batch_size)
    right, wrong = math.log(math.exp(2) + 3) - 2, math.log(math.exp(2) + 3)
    assert (found.accuracy, found.n) == (3 / 5, 5)
    assert found.loss == pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-6)


def test_frames_with_the_time_first(make_net: Callable[..., nn.Module], valid_set: ImageSet) -> None:
    class OfFrames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, frames: Tensor) -> Tensor:
            return self.net(frames.mean(0))

    inputs = torch.cat([images for images, _ in valid_set.batches(16)])
    frames = torch.stack([inputs * 0.5, inputs * 1.5])
    found, expected = evaluate(OfFrames(), (frames, valid_set.labels), batch_size=7), evaluate(make_net(), valid_set)
    assert (found.accuracy, found.n) == (expected.accuracy, expected.n)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (PIXELS, "data must be an image set, a pair of tensors"),
        ((PIXELS.numpy(), LABELS.numpy()), "make tensors of arrays"),
        ((PIXELS, LABELS[:3]), "3 labels need as many inputs"),
        ((PIXELS, LABELS - 1), "labels must be 0 or more, got -1"),
        ((PIXELS * torch.nan, LABELS), "images must be finite"),
        ([], "at least one image"),
        (7, "data must be an image set"),
        (None, "data must be an image set"),
    ],
)
def test_what_is_no_data_is_told(given: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        evaluate(Known(), given)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("place", [0, 1])
def test_training_names_what_makes_a_set_of_a_pair(place: int, valid_set: ImageSet) -> None:
    given = [(PIXELS, LABELS), (PIXELS, LABELS)]
    given[1 - place] = valid_set  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(DataError, match=r"_set must be an ImageSet, .* got tuple; isofire.data.TensorSet.of"):
        train(Known(), *given, Recipe(epochs=1, batch_size=2, lr=0.1))  # type: ignore[arg-type] # pyright: ignore
