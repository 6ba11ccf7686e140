"""Which axis of inputs without labels holds the images: asked of the network, for inputs of two axes too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.adapters import input_axis
from isofire.errors import DataError
from isofire.neurons import IF

RANGE = isofire.QuantSpec(membrane={"bits": 8, "range": "minmax", "placement": "post_reset"})


class Series(nn.Module):
    """One number a step, [T, N]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.neuron, self.last = nn.Linear(1, 6), IF(v_threshold=1e6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.neuron(self.first(x.unsqueeze(-1))))


class Folded(nn.Module):
    """Tokens [N, L, 4] side by side in the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.neuron, self.last = nn.Linear(4, 6), IF(v_threshold=1e6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x).flatten(0, 1)
        return self.last(self.neuron(rows.expand(3, -1, -1))).unflatten(1, x.shape[:2]).mean(2)


@pytest.mark.parametrize("labelled", [True, False])
def test_one_number_a_step_is_not_cut_along_time(labelled: bool) -> None:
    model, x = Series().eval(), torch.rand(200, 6, generator=torch.Generator().manual_seed(0)) + 0.5
    with torch.no_grad():
        largest = model.first(x.unsqueeze(-1)).cumsum(0).abs().max().item()
    isofire.quantize_(model, RANGE, (x, torch.arange(6) % 3) if labelled else x)
    assert model.neuron.membrane.quantizer.levels().max().item() == pytest.approx(largest, rel=0.02)


def test_as_many_images_as_steps_of_one_number() -> None:
    model, x = Series().eval(), torch.rand(6, 6) + 0.5
    assert input_axis(model, x, 6) == 1
    assert isofire.compare(model, model, (x, model(x).mean(0).argmax(1))).accuracy == 1.0


def test_rows_of_features_hold_the_images_on_the_first_axis() -> None:
    model = nn.Sequential(nn.Linear(5, 6), isofire.neurons.Repeat(3), IF())
    assert input_axis(model, torch.rand(5, 5)) == 0


def test_tokens_in_the_batch_are_refused_without_labels() -> None:
    x = torch.rand(4, 150, 4)
    with pytest.raises(DataError, match="folded into the batch; give them with their labels"):
        isofire.quantize_(Folded().eval(), RANGE, x, max_images=2)
    model = Folded().eval()
    with torch.no_grad():
        largest = (3 * model.first(x[:2])).abs().max().item()
    isofire.quantize_(model, RANGE, (x, torch.zeros(4, dtype=torch.int64)), max_images=2)
    assert model.neuron.membrane.quantizer.levels().max().item() == pytest.approx(largest, rel=0.02)


def test_no_images_are_told() -> None:
    with pytest.raises(DataError, match=r"data must hold at least one image, got inputs \[0, 6\]"):
        input_axis(nn.Sequential(nn.Linear(6, 3), IF()), torch.zeros(0, 6))
