"""Layers that stop firing in training are named at once."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

import isofire
from isofire.data import ImageSet
from isofire.models import sew_resnet8
from isofire.quantization import prepare_
from isofire.training import Recipe, train

MakeImages = Callable[[int, str, int], ImageSet]


def network() -> nn.Module:
    torch.manual_seed(0)
    return sew_resnet8(width=0.5, T=2, in_channels=1, num_classes=4)


def run(model: nn.Module, data: ImageSet, **changes: object) -> None:
    recipe = Recipe(**{"epochs": 2, "lr": 1e-6, "batch_size": 10, "warmup_epochs": 0.0, **changes})  # pyright: ignore
    train(model, data, None, recipe, teacher=network(), progress=False, device="cpu")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_layer_that_falls_silent_is_named_in_the_step_and_once(make_images: MakeImages, caplog):
    model = network()
    with torch.no_grad():
        model.get_submodule("stages.0.0.bn1").bias.fill_(-50.0)  # type: ignore[union-attr]
    run(model, make_images(40, "train", 0))
    # in the first step of the first epoch, and not again in the second
    first, second = said(caplog)
    assert first.startswith("epoch 1, step 1: stages.0.0.sn1: no neuron fires: its currents are too weak, the highest")
    assert "lower lr" in first
    assert "stages.0.0.sn2: no neuron fires: nothing arrives, since stages.0.0.sn1 before it is silent" in second


def test_a_membrane_quantizer_is_named_as_the_reason(make_images: MakeImages, caplog):
    model = network()
    levels = {"method": "levels", "levels": [-9.0, -8.0], "placement": "post_reset"}
    prepare_(model, isofire.QuantSpec(rules=({"match": "stages.1.0.sn1", "membrane": levels},)))
    with torch.no_grad():
        # below what a neuron at rest fires at
        model.get_submodule("stages.1.0.bn1").weight.mul_(0.1)  # type: ignore[union-attr]
        model.get_submodule("stages.1.0.bn1").bias.fill_(1.5)  # type: ignore[union-attr]
    run(model, make_images(40, "train", 0))
    (text,) = [t for t in said(caplog) if ": stages.1.0.sn1: " in t]
    assert "because of its membrane quantizer (post_reset, 2 levels from -9 to -8)" in text


def test_watching_changes_nothing(make_images: MakeImages, monkeypatch, caplog):
    found = []
    for every in (1, 10**9):
        monkeypatch.setattr("isofire.training.silence.EVERY", every)
        model = network()
        with torch.no_grad():
            # silent all along, so that the reason is looked for
            model.get_submodule("stages.0.0.bn1").bias.fill_(-50.0)  # type: ignore[union-attr]
        run(model, make_images(40, "train", 0), lr=0.02, losses={"paired": 1.0})
        found.append(model.state_dict())
    assert said(caplog)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
