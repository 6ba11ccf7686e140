from __future__ import annotations

from typing import Any

import msgspec
import pytest

from isofire.errors import SpecError
from isofire.training import Recipe


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, r"^epochs: expected `int` >= 1, got 0"),
        ("epochs", 2.5, "^epochs: expected `int`, got 2.5"),
        ("epochs", True, "^epochs: expected `int`"),
        ("batch_size", 0, "^batch_size: expected `int` >= 1, got 0"),
        ("eval_batch_size", -1, "^eval_batch_size: expected `int` >= 1"),
        ("optimizer", "adam", "^optimizer: must be adamw or sgd, got 'adam'"),
        ("lr", 0.0, "^lr: expected `float` > 0.0, got 0.0"),
        ("lr", float("nan"), "^lr: expected `float` > 0.0, got nan"),
        ("lr", float("inf"), "^lr: expected `float` <= 3.4.*, got inf"),
        ("lr", "0.1", "^lr: expected `float`, got '0.1'"),
        ("momentum", 1.0, "^momentum: expected `float` < 1.0, got 1.0"),
        ("weight_decay", -1e-4, "^weight_decay: expected `float` >= 0.0"),
        ("quantizer_lr", -1.0, "^quantizer_lr: expected"),
        ("warmup_epochs", -0.5, "^warmup_epochs: expected"),
        ("warmup_epochs", 11.0, r"^warmup_epochs must not exceed epochs, got 11.0 of 10"),
        ("schedule", "step", "^schedule: must be constant, cosine or one_cycle, got 'step'"),
        ("final_lr_fraction", 1.1, "^final_lr_fraction: expected `float` <= 1.0, got 1.1"),
        ("label_smoothing", 1.0, "^label_smoothing: expected `float` < 1.0"),
        ("loss", "mse", "^unknown loss 'mse'; known: mean_logit, tet, "),
        ("losses", {"pared": 1.0}, "^unknown loss 'pared'; did you mean 'paired'"),
        ("losses", {"paired": -1}, "^losses.paired.weight: .*>= 0.*got -1"),
        ("losses", {"paired": float("inf")}, "^losses.paired.weight: .*<= 1000000"),
        (
            "losses",
            {"paired": {"wait": 1}},
            "^losses.paired.wait: unknown key.*known here: weight, warmup_epochs, re",
        ),
        (
            "losses",
            {"paired": 1.0, "emd": {"warmup_epochs": 10}},
            r"^losses\.emd\.warmup_epochs must be less than epochs, got 10 of 10: the loss would never count; shorten",
        ),
        (
            "losses",
            {"logits": {"warmup_epochs": 12.5}},
            r"^losses\.logits\.warmup_epochs must be less .*got 12\.5 of 10",
        ),
        ("losses", {"paired": {"cost": "w3"}}, "^losses.paired.cost: must be .*'w3'"),
        ("losses", {"paired": True}, "^the loss 'paired' takes a weight or a table of settings, got True"),
        ("losses", {"mean_logit": 1.0}, "^losses must be further ones, 'mean_logit' is the task's loss already"),
        ("losses", ["paired"], "^losses: expected a table"),
        ("clip_norm", 0.0, "^clip_norm: expected `float` > 0.0, got 0.0"),
        ("precision", "fp16", "^precision: must be bf16 or float32"),
        ("channels_last", 1, "^channels_last: expected `bool`, got 1"),
        ("pad", -1, "^pad: expected `int` >= 0, got -1"),
        ("flip", 1, "^flip: expected `bool`"),
        ("cutout", 1.5, "^cutout: expected `int`"),
        ("seed", -3, "^seed: expected `int` >= 0"),
        ("decay_norm_and_bias", None, "^decay_norm_and_bias: expected `bool`"),
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
        ({"epochs": 3, "lr": 0.1, "epoch": 4}, "^epoch: unknown key; did you mean 'epochs'"),
        ({"epochs": 3}, "^needs the key `lr`"),
        ({"epochs": "3", "lr": 0.1}, "^epochs: expected `int`, got '3'"),
        ({"epochs": 0, "lr": 0.1}, "^epochs: expected `int` >= 1, got 0"),
        ({"epochs": 1, "lr": 0.1, "loss": "mse"}, "^unknown loss 'mse'"),
    ],
)
def test_from_mapping_names_what_is_wrong(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe.from_mapping(values)


def test_further_losses_are_kept_complete_and_read_back() -> None:
    short = Recipe(epochs=1, lr=0.1, losses={"paired": 0.5, "logits": {"temperature": 4.0}})
    long = Recipe(epochs=1, lr=0.1, losses={"paired": {"weight": 0.5}, "logits": {"weight": 1, "temperature": 4}})
    assert short == long
    assert short.losses["paired"]["against"] == "batch"
    assert Recipe.from_mapping(msgspec.to_builtins(short)) == short
    assert list(short.further_losses()) == ["paired", "logits"]


def test_a_recipe_without_further_losses_is_told_as_before_there_were_any() -> None:
    assert "losses" not in Recipe(epochs=1, lr=0.1).to_dict()
    assert Recipe(epochs=1, lr=0.1, losses={"emd": 1.0}).to_dict()["losses"]["emd"]["weight"] == 1.0
