"""Heads that give one number an image: no classes can be told, and the error says how they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isofire.adapters import LogitsOf
from isofire.data import TensorSet
from isofire.errors import ModelError
from isofire.firing import compare, observe
from isofire.neurons import LIF, Repeat
from isofire.training import Recipe, evaluate, train

N = 40
INPUTS, LABELS = torch.rand(N, 6, generator=torch.Generator().manual_seed(2)), torch.arange(N) % 2


class OneNumber(nn.Module):
    """[T, N, 1], [N, 1] or [N]."""

    def __init__(self, axes: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.axes = axes
        self.net = nn.Sequential(Repeat(4), nn.Linear(6, 8), LIF(v_threshold=0.3), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(x)
        return {"TN1": found, "N1": found.mean(0), "N": found.mean(0).squeeze(-1)}[self.axes]


@pytest.mark.parametrize("axes", ["TN1", "N1", "N"])
def test_they_are_refused_with_a_cure(axes: str) -> None:
    model, data = OneNumber(axes).eval(), (INPUTS, LABELS)
    verbs: list[Callable[[], object]] = [
        lambda: compare(model, model, data),
        lambda: observe(model, data),
        lambda: evaluate(model, data),
        lambda: evaluate(model, TensorSet.of(data, "mine", "test")),
        lambda: train(
            model, TensorSet.of(data, "mine", "train"), None, Recipe(epochs=1, batch_size=8, lr=0.1), progress=False
        ),
    ]
    for verb in verbs:
        with pytest.raises(ModelError, match=r"OneNumber gives one number an image, .*adapters\.LogitsOf\("):
            verb()


@pytest.mark.parametrize("axes", ["TN1", "N1", "N"])
def test_the_cure_gives_the_classes_and_the_loss_of_one_number(axes: str) -> None:
    model = OneNumber(axes).eval()

    def two(found: Tensor) -> Tensor:
        found = found.unsqueeze(-1) if axes == "N" else found
        return torch.cat((torch.zeros_like(found), found), -1)

    wrapped = LogitsOf(model, output=two, axes="" if axes == "TN1" else "NC")
    with torch.no_grad():
        number = model.net(INPUTS).mean(0).squeeze(-1)
    accuracy = float(((number > 0) == LABELS.bool()).double().mean())
    loss = float(nn.functional.binary_cross_entropy_with_logits(number, LABELS.float()))
    assert compare(wrapped, wrapped, (INPUTS, LABELS)).accuracy == accuracy
    found = evaluate(wrapped, (INPUTS, LABELS))
    assert (found.accuracy, found.loss) == (accuracy, pytest.approx(loss, rel=1e-5))


def test_one_class_alone_is_taken() -> None:
    model = OneNumber("N1").eval()
    assert compare(model, model, (INPUTS, torch.zeros_like(LABELS))).overall["emd_max"] == 0
