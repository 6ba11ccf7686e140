"""Many steps do not take all memory: fewer images are looked at, and their number is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.neurons import IF
from isofire.quantization import calibrated_on
from isofire.quantization.by_firing import images

STEPS = 12


class _Net(nn.Module):
    """Frames [T, N, 6] into logits [N, 3]; the widest input is that of its neurons, 20 floats a step."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.sn, self.two = nn.Linear(6, 20), IF(), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.sn(self.one(x))).mean(0)


def _frames(count: int) -> Tensor:
    return torch.rand(STEPS, count, 6)


@pytest.mark.parametrize(
    ("most", "expected"), [(10 * STEPS * 20 * 4, [10]), (40 * STEPS * 20 * 4, [16, 16, 8]), (1, [1])]
)
def test_as_many_images_as_fit(monkeypatch: pytest.MonkeyPatch, most: int, expected: list[int]) -> None:
    monkeypatch.setattr(images, "MOST_BYTES", most)
    batches = [_frames(16) for _ in range(3)]
    kept, count = images.first_that_fit(_Net().eval(), batches)
    assert [x.shape[1] for x in kept] == expected
    assert count == sum(expected)
    assert torch.equal(kept[0], batches[0][:, : expected[0]])


def test_calibration_says_on_how_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = isofire.QuantSpec(membrane={"method": "firing", "bits": 2}, weights=None)
    model = isofire.quantize_(_Net().eval(), spec, _frames(300))
    assert calibrated_on(model) == 256
    monkeypatch.setattr(images, "MOST_BYTES", 50 * STEPS * 20 * 4)
    assert calibrated_on(isofire.quantize_(_Net().eval(), spec, _frames(300))) == 50
    assert (
        calibrated_on(
            isofire.quantize_(
                _Net().eval(),
                isofire.QuantSpec(weights={"method": "uniform", "bits": 4}, first_layer="quantize"),
                _frames(9),
            )
        )
        is None
    )
