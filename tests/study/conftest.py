from __future__ import annotations

import pytest
import torch
from torch import nn

from isofire.config import DataSettings
from isofire.study import Splits, load_splits, train_baseline
from isofire.training import Recipe

torch.set_num_threads(1)

MODEL = {"builder": "sew_resnet8", "width": 0.25, "T": 3, "in_channels": 1, "num_classes": 10}
RECIPE = Recipe(epochs=4, lr=0.1, batch_size=16, warmup_epochs=0.5)
QAT = Recipe(epochs=1, lr=0.02, batch_size=32, warmup_epochs=0.0)


@pytest.fixture(scope="session")
def splits() -> Splits:
    return load_splits(DataSettings(name="digits", train_images=320, test_images=120))


@pytest.fixture(scope="session")
def baseline(splits: Splits) -> nn.Module:
    """A small network that fires and has learnt something; tests must not change it."""
    found = train_baseline(MODEL, splits, RECIPE, device="cpu")
    assert found is not None
    assert found.test.accuracy > 0.3
    return found.model
