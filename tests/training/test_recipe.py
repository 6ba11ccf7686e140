from __future__ import annotations

from typing import Any

import msgspec
import pytest

from isofire.errors import SpecError
from isofire.training import Recipe


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, r"epochs must be a whole number of at least 1, got 0 \(recipe\)"),
        ("epochs", 2.5, "epochs must be a whole number"),
        ("epochs", True, "epochs must be a whole number"),
        ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
        ("eval_batch_size", -1, "eval_batch_size must be"),
        ("optimizer", "adam", "optimizer must be one of sgd, adamw, got 'adam'"),
        ("lr", 0.0, "lr must be a number above 0, got 0.0"),
        ("lr", float("nan"), "lr must be a number above 0, got nan"),
        ("lr", float("inf"), "lr must be a number above 0, got inf"),
        ("lr", "0.1", "lr must be a number above 0, got '0.1'"),
        ("momentum", 1.0, "momentum must be a number of at least 0 and below 1, got 1.0"),
        ("weight_decay", -1e-4, "weight_decay must be a number of at least 0"),
        ("quantizer_lr", -1.0, "quantizer_lr must be"),
        ("warmup_epochs", -0.5, "warmup_epochs must be"),
        ("warmup_epochs", 11.0, r"warmup_epochs must not exceed epochs, got 11.0 of 10"),
        ("schedule", "step", "schedule must be one of cosine, one_cycle, constant"),
        ("final_lr_fraction", 1.1, "final_lr_fraction must be a number of at least 0 and at most 1, got 1.1"),
        ("label_smoothing", 1.0, "label_smoothing must be"),
        ("loss", "mse", "loss must be one of mean_logit, tet"),
        ("clip_norm", 0.0, "clip_norm must be a number above 0, got 0.0"),
        ("precision", "fp16", "precision must be one of float32, bf16"),
        ("channels_last", 1, "channels_last must be true or false, got 1"),
        ("pad", -1, "pad must be a whole number of at least 0, got -1"),
        ("flip", 1, "flip must be true or false"),
        ("cutout", 1.5, "cutout must be a whole number"),
        ("seed", -3, "seed must be a whole number of at least 0"),
        ("decay_norm_and_bias", None, "decay_norm_and_bias must be true or false"),
    ],
)
def test_a_bad_value_is_refused_with_rule_value_and_place(name: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe(**{"epochs": 10, "lr": 0.1, name: value})


def test_limits_are_allowed() -> None:
    Recipe(epochs=1, lr=1e-9, momentum=0.0, weight_decay=0.0, warmup_epochs=1.0, final_lr_fraction=1.0, quantizer_lr=0)


def test_a_recipe_cannot_change() -> None:
    with pytest.raises(AttributeError):
        Recipe(epochs=1, lr=0.1).lr = 0.2  # type: ignore[misc]


def test_from_mapping_reads_what_to_builtins_wrote() -> None:
    recipe = Recipe(epochs=3, lr=0.2, optimizer="adamw", clip_norm=1.0, pad=2, flip=True)
    assert Recipe.from_mapping(msgspec.to_builtins(recipe)) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 3, "lr": 0.1, "epoch": 4}, "unknown field `epoch`.*the settings are epochs, lr"),
        ({"epochs": 3}, "missing required field `lr`"),
        ({"epochs": "3", "lr": 0.1}, r"Expected `int`, got `str` - at `\$.epochs`"),
        ({"epochs": 0, "lr": 0.1}, "^epochs must be a whole number of at least 1, got 0"),
    ],
)
def test_from_mapping_names_what_is_wrong(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe.from_mapping(values)
