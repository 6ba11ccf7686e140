"""Losses on what neurons did, where a network's own forward is computed twice."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isofire.data import load
from isofire.errors import ModelError
from isofire.neurons import LIF
from isofire.training import Recipe, train


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(64, 16), LIF())
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).expand(2, -1, -1)
        return self.head(checkpoint(self.inner, x, use_reentrant=False)).mean(0)


@pytest.mark.parametrize("loss", ["paired", "membrane"])
def test_activation_checkpointing_is_taken_or_told(loss: str) -> None:
    train_set = load("digits", "train").first(64)
    model, recipe = Checkpointed(), Recipe(epochs=1, lr=0.01, batch_size=32, losses={loss: {"weight": 0.1}})
    teacher = copy.deepcopy(model)
    if loss == "membrane":
        with pytest.raises(ModelError, match=r"activation checkpointing .* without torch\.utils\.checkpoint"):
            train(model, train_set, None, recipe, teacher=teacher, progress=False, device="cpu")
    else:
        result = train(model, train_set, None, recipe, teacher=teacher, progress=False, device="cpu")
        assert result.final.epoch == 1
