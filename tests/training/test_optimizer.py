from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from isofire.errors import ModelError
from isofire.quantizers import LSQ
from isofire.training import Recipe
from isofire.training.optimizer import make_optimizer, parameter_groups, set_learning_rate


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    quantizer = LSQ(3, granularity="channel", channels=3)
    quantizer.calibrate(model[0].weight)
    parametrize.register_parametrization(model[0], "weight", quantizer)
    return model


def _decays(model: nn.Module, recipe: Recipe) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, recipe)
    return {names[id(p)]: (group["weight_decay"], group["scale"]) for group in groups for p in group["params"]}


def test_only_weights_decay_and_quantizers_have_their_own_rate() -> None:
    assert _decays(_model(), Recipe(epochs=1, lr=1.0, weight_decay=0.5, quantizer_lr=0.1)) == {
        "0.parametrizations.weight.original": (0.5, 1.0),
        "0.parametrizations.weight.0.step": (0.0, 0.1),
        "0.bias": (0.0, 1.0),
        "1.weight": (0.0, 1.0),
        "1.bias": (0.0, 1.0),
    }


def test_all_but_quantizers_decay_if_asked() -> None:
    decays = _decays(_model(), Recipe(epochs=1, lr=1.0, weight_decay=0.5, decay_norm_and_bias=True))
    assert {name for name, (decay, _) in decays.items() if decay == 0} == {"0.parametrizations.weight.0.step"}


def test_frozen_parameters_are_left_out_and_a_frozen_model_refused() -> None:
    model = _model()
    model[0].bias.requires_grad_(False)
    assert "0.bias" not in _decays(model, Recipe(epochs=1, lr=1.0))
    with pytest.raises(ModelError, match="needs a parameter with requires_grad, the model has none"):
        parameter_groups(model.requires_grad_(False), Recipe(epochs=1, lr=1.0))


def test_the_rate_is_set_per_group() -> None:
    optimizer = make_optimizer(_model(), Recipe(epochs=1, lr=1.0, quantizer_lr=0.1))
    set_learning_rate(optimizer, 0.5)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.05, 0.5])


def test_nesterov_step_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = make_optimizer(model, Recipe(epochs=1, lr=0.1, momentum=0.5, weight_decay=0.2))
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    # g = 1 + .2 w; v = .5 v + g; w -= .1 (g + .5 v)
    assert model.weight.item() == pytest.approx(0.82 - 0.1 * (1.164 + 0.5 * (0.5 * 1.2 + 1.164)))


def test_adamw_moves_by_the_rate_and_decays_apart() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    recipe = Recipe(epochs=1, lr=0.1, optimizer="adamw", weight_decay=0.5, momentum=0.8)
    optimizer = make_optimizer(model, recipe)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(1.0 * (1 - 0.1 * 0.5) - 0.1)
