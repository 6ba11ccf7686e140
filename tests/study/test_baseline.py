from __future__ import annotations

import json

import pytest
import torch

from isofire import QuantSpec, prepare
from isofire.config import DataSettings
from isofire.errors import CheckpointError, SpecError
from isofire.models import load_model, save_model
from isofire.study import fresh_model, load_splits, train_baseline
from isofire.training import Recipe, evaluate
from isofire.training.resume import state_hash

MODEL = {"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1}


def recipe(**changes) -> Recipe:
    return Recipe(**({"epochs": 2, "lr": 0.05, "batch_size": 32, "warmup_epochs": 0.0, "seed": 4} | changes))


@pytest.fixture
def splits():
    return load_splits(DataSettings(name="digits", valid=100, train_images=128, test_images=50))


def test_fresh_models_depend_on_the_seed_alone():
    state = torch.random.get_rng_state()
    weights = [fresh_model(MODEL, seed).state_dict()["fc.weight"] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_folder_holds_the_best_epoch_and_its_story(splits, tmp_path):
    found = train_baseline(MODEL, splits, recipe(epochs=3), folder=tmp_path, device="cpu")
    assert found is not None
    accuracies = [record.valid_accuracy for record in found.history]
    assert found.epoch == 1 + accuracies.index(max(accuracies))
    model, note = load_model(tmp_path / "model.safetensors")
    assert evaluate(model, splits.test) == found.test
    assert evaluate(model, splits.valid) == found.valid
    assert note["accuracy"]["test"] == {"accuracy": found.test.accuracy, "loss": found.test.loss, "n": 50}
    assert note["seed"] == note["recipe"]["seed"] == 4
    assert note["normalization"] == {"mean": list(splits.train.mean), "std": list(splits.train.std)}
    assert set(note["data"]["fingerprints"]) == {"train", "valid", "test"}
    history = json.loads((tmp_path / "history.json").read_text())
    assert [record["valid_accuracy"] for record in history["history"]] == accuracies
    assert json.loads((tmp_path / "environment.json").read_text()) == note["environment"]


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    splits = load_splits(DataSettings(name="digits", train_images=64, test_images=20))
    found = train_baseline(MODEL, splits, recipe(), folder=tmp_path, device="cpu")
    assert found is not None
    assert (found.epoch, found.valid) == (2, None)


def test_without_a_folder_nothing_is_written(splits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = train_baseline(MODEL, splits, recipe(), device="cpu")
    assert found is not None
    assert found.epoch == 2
    assert list(tmp_path.iterdir()) == []


def test_test_images_are_not_touched_before_the_end(splits):
    seen = []
    train_baseline(MODEL, splits, recipe(), device="cpu", on_epoch=lambda _: seen.append("test" in splits.__dict__))
    assert seen == [False, False]
    assert "test" in splits.__dict__


def test_a_finished_run_is_not_trained_again(splits, tmp_path):
    epochs: list[int] = []
    options = {"folder": tmp_path, "device": "cpu", "on_epoch": lambda record: epochs.append(record.epoch)}
    runs = [train_baseline(MODEL, splits, recipe(), **options) for _ in range(2)]
    assert epochs == [1, 2]
    assert runs[0] is not None
    assert runs[1] is not None
    assert runs[0].test == runs[1].test


def test_followers_of_torchrun_write_nothing(splits, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert train_baseline(MODEL, splits, recipe(epochs=1), folder=tmp_path, device="cpu") is None
    assert not (tmp_path / "model.safetensors").exists()


def test_unknown_builder(splits):
    with pytest.raises(SpecError, match="builder must be one of"):
        train_baseline({"builder": "vgg"}, splits, recipe(), device="cpu")


def test_training_can_start_from_a_network_of_another_T(splits, tmp_path):
    first = train_baseline(MODEL, splits, recipe(epochs=1), folder=tmp_path / "first", device="cpu")
    assert first is not None
    start = tmp_path / "first" / "model.safetensors"
    config = {**MODEL, "T": 3}
    # an epoch at a rate too small to change anything ends where it began
    still = recipe(epochs=1, lr=1e-12, weight_decay=0.0)
    found = train_baseline(config, splits, still, start=start, folder=tmp_path / "second", device="cpu")
    assert found is not None
    for name, value in first.model.named_parameters():
        torch.testing.assert_close(found.model.get_parameter(name), value, rtol=0, atol=1e-6)
    _, note = load_model(tmp_path / "second" / "model.safetensors")
    assert note["model"]["T"] == 3
    assert note["start"]["model"]["T"] == 2
    assert note["start"]["accuracy"]["test"]["accuracy"] == first.test.accuracy


def test_a_start_of_another_architecture_or_quantized_is_refused(splits, tmp_path):
    model = fresh_model({**MODEL, "width": 0.5}, 0)
    save_model(tmp_path / "wide.safetensors", model)
    with pytest.raises(CheckpointError, match=r"wide\.safetensors"):
        train_baseline(MODEL, splits, recipe(), start=tmp_path / "wide.safetensors")
    prepared = prepare(fresh_model(MODEL, 0), QuantSpec(weights={"method": "lsq", "bits": 4}))
    save_model(tmp_path / "quantized.safetensors", prepared)
    with pytest.raises(CheckpointError, match="quantized"):
        train_baseline(MODEL, splits, recipe(), start=tmp_path / "quantized.safetensors")


@pytest.fixture
def teacher(tmp_path):
    model = fresh_model(MODEL | {"width": 0.5, "T": 3}, 1)
    return save_model(tmp_path / "teacher.safetensors", model, {})


def test_a_teacher_is_followed_and_recorded(splits, teacher, tmp_path):
    given = recipe(losses={"logits": {"weight": 20.0}}, epochs=3)
    found = train_baseline(MODEL, splits, given, teacher=teacher, folder=tmp_path / "a", device="cpu")
    alone = train_baseline(MODEL, splits, recipe(epochs=3), folder=tmp_path / "b", device="cpu")
    assert found is not None
    assert alone is not None
    _, note = load_model(tmp_path / "a" / "model.safetensors")
    assert note["teacher"] == {"name": str(teacher), "state": state_hash(load_model(teacher)[0])}
    assert load_model(tmp_path / "b" / "model.safetensors")[1].get("teacher") is None
    losses = [record.losses["logits"] for record in found.history]
    assert losses[-1] < losses[0]


def test_a_teacher_that_no_loss_asks_for_is_refused(splits, teacher, tmp_path):
    with pytest.raises(SpecError, match=r"no loss of the recipe compares with the teacher .*teacher\.safetensors"):
        train_baseline(MODEL, splits, recipe(), teacher=teacher, folder=tmp_path / "a", device="cpu")
    with pytest.raises(SpecError, match="isofire train --teacher"):
        train_baseline(MODEL, splits, recipe(losses={"logits": 1.0}), folder=tmp_path / "b", device="cpu")
    assert not (tmp_path / "a").exists()


def test_training_goes_on_with_its_own_teacher_alone(splits, teacher, tmp_path):
    given = recipe(losses={"logits": 1.0})
    train_baseline(MODEL, splits, given, teacher=teacher, folder=tmp_path / "a", device="cpu")
    other = save_model(tmp_path / "other.safetensors", fresh_model(MODEL, 7), {})
    with pytest.raises(CheckpointError, match="teacher"):
        train_baseline(MODEL, splits, given, teacher=other, folder=tmp_path / "a", device="cpu")
