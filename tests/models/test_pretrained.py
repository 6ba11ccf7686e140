"""Networks that come with the package."""

from __future__ import annotations

import pytest
import torch

import isofire
from isofire.errors import SpecError
from isofire.models import open_model, pretrained, save_model, sew_resnet8
from isofire.models.pretrained import REGISTER
from isofire.training import evaluate


def test_an_unknown_name() -> None:
    with pytest.raises(SpecError, match="no pretrained network is called 'sew_resnet1001'; there are: "):
        pretrained("sew_resnet1001")


def test_every_registered_network_loads() -> None:
    for name in REGISTER:
        model = pretrained(name)
        assert not model.training
        assert all(value.isfinite().all() for value in model.state_dict().values()), name
        assert model.about["accuracy"]["test"]["n"] >= 500
        assert len(model.about["normalization"]["mean"]) == len(model.about["normalization"]["std"])
        assert model.about["recipe"]["epochs"] >= 1


@pytest.mark.parametrize("name", ["sew_resnet8-cifar10", "sew_resnet8_long-cifar10", "sew_resnet18_w16-cifar10"])
def test_a_cifar_network_scores_what_its_note_says(name: str, cifar10_root) -> None:
    model = pretrained(name)
    noted = model.about["accuracy"]["test"]
    images = isofire.data.load("cifar10", "test", root=cifar10_root)
    assert list(images.mean) == model.about["normalization"]["mean"]
    # a thousand of them, within four standard errors
    found = evaluate(model, images.take(torch.arange(1000)))
    assert abs(found.accuracy - noted["accuracy"]) < 4 * (noted["accuracy"] * (1 - noted["accuracy"]) / 1000) ** 0.5


def test_the_digits_network_scores_what_its_note_says() -> None:
    model = pretrained("sew_resnet8-digits")
    found = evaluate(model, isofire.data.load("digits", "test"))
    assert (found.n, found.accuracy) == (500, model.about["accuracy"]["test"]["accuracy"])
    assert found.accuracy >= 0.97


def test_commands_take_it_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, note = open_model("sew_resnet8-cifar10")
    assert note["accuracy"] == pretrained("sew_resnet8-cifar10").about["accuracy"]
    save_model("sew_resnet8-cifar10", sew_resnet8(T=2))
    assert open_model("sew_resnet8-cifar10")[0].T == 2, "a file of that name comes first"
    assert model.T == 4
