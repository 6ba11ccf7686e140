"""Which models are trained in channels_last."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from isofire.models import sew_resnet8
from isofire.training.memory_format import use_channels_last

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 1, 2), False),
        (nn.Conv2d(16, 8, 1, 2, groups=4), False),
        (nn.Conv2d(8, 16, 1, 2), True),
        (nn.Conv2d(4, 8, 1, 1), True),
        (nn.Conv2d(4, 8, 3, 2), True),
        (nn.Linear(4, 8), True),
    ],
)
def test_strided_pointwise_layers_of_few_channels_stay_in_torchs_layout(layer: nn.Module, expected: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), layer)
    assert use_channels_last(model, True, CPU) is expected
    assert not use_channels_last(model, False, CPU)
    assert use_channels_last(model, True, torch.device("cuda")) is True


def test_the_model_of_cifar_is_trained_in_it() -> None:
    assert use_channels_last(sew_resnet8(), True, CPU)


def test_training_a_narrow_network_leaves_the_heap_whole() -> None:
    code = """
import torch
from isofire.study import DataSettings, load_splits, train_baseline
from isofire.training import Recipe
torch.set_num_threads(1)
splits = load_splits(DataSettings(name="digits", train_images=64, test_images=16))
config = {"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1}
train_baseline(config, splits, Recipe(epochs=4, lr=0.1, batch_size=16), device="cpu")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
