"""The whole road on the digits that come with the package: spiking network, fused neurons, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isofire.data import hold_out, load
from isofire.models import SEWResNet, sew_resnet8
from isofire.training import EpochRecord, Recipe, evaluate, train

RECIPE = Recipe(epochs=4, lr=0.01, batch_size=32, optimizer="adamw", loss="tet")


class Stop(Exception):
    """Interrupts a run."""


def _stop_after_two(record: EpochRecord) -> None:
    if record.epoch == 2:
        raise Stop


def _network(seed: int) -> SEWResNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sew_resnet8(T=4, width=0.5, in_channels=1)


def test_a_spiking_network_learns_digits_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    train_set, valid_set = hold_out(load("digits", "train"), 200, seed=0)
    whole, cut, resumed = _network(0), _network(0), _network(0)
    result = train(whole, train_set, valid_set, RECIPE, progress=False, device="cpu")
    assert result.final.valid_accuracy is not None
    assert result.final.valid_accuracy > 0.85
    assert evaluate(whole, valid_set).accuracy == result.final.valid_accuracy
    with pytest.raises(Stop):
        train(cut, train_set, valid_set, RECIPE, out=tmp_path, progress=False, device="cpu", on_epoch=_stop_after_two)
    found = train(resumed, train_set, valid_set, RECIPE, out=tmp_path, progress=False, device="cpu")
    other = resumed.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in whole.state_dict().items())
    assert found.final.valid_loss == result.final.valid_loss
