"""A loss of an outside package, found by its entry point, in a recipe."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from isofire import registry
from isofire.data import ImageSet
from isofire.errors import SpecError
from isofire.models import sew_resnet8
from isofire.training import Recipe, train
from isofire.training.losses import LOSSES

PLUGIN = Path(__file__).parents[1] / "plugin"


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    table = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]["isofire.losses"]
    points = [EntryPoint(name, place, "isofire.losses") for name, place in table.items()]
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "isofire.losses" else ())
    monkeypatch.setattr(LOSSES, "_looked", False)
    yield
    for name in table:
        LOSSES.unregister(name)


@pytest.mark.usefixtures("_installed")
def test_it_trains_a_network_to_fire_less(train_set: ImageSet) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sew_resnet8(width=0.5, T=2, in_channels=1, num_classes=4)
    losses = {"spike_price": {"weight": 50.0, "free": 0.01}}
    recipe = Recipe.from_mapping({"epochs": 8, "lr": 0.02, "batch_size": 10, "losses": losses})
    history = train(model, train_set, None, recipe, progress=False, device="cpu").history
    assert history[-1].losses["spike_price"] < 0.7 * history[0].losses["spike_price"]
    assert recipe.labels() == ["spike_price=50(free=0.01)"]
    with pytest.raises(SpecError, match=r"losses.spike_price.fee: unknown key.*known here: weight.*free"):
        Recipe(epochs=1, lr=0.1, losses={"spike_price": {"fee": 1.0}})
