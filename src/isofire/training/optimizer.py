"""Parameters sorted into groups, and the optimizer over them."""

from __future__ import annotations

import torch
from torch import nn

from isofire.errors import ModelError
from isofire.quantizers import Quantizer
from isofire.training.recipe import Recipe


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Sort the trainable parameters by weight decay and by learning-rate factor.

    Parameters
    ----------
    model
        The network; parameters of `Quantizer` modules, also those in parametrizations, never decay.
    recipe
        Gives `weight_decay`, `decay_norm_and_bias` and `quantizer_lr`.

    Returns
    -------
    list of dict
        Groups for a torch optimizer; the key `scale` holds the factor on the learning rate.

    Raises
    ------
    ModelError
        If nothing in the model is trainable.
    """
    quantizers = {id(p) for m in model.modules() if isinstance(m, Quantizer) for p in m.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        of_quantizer = id(parameter) in quantizers
        decays = not of_quantizer and (parameter.ndim > 1 or recipe.decay_norm_and_bias)
        key = (recipe.weight_decay if decays else 0.0, recipe.quantizer_lr if of_quantizer else 1.0)
        groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ModelError("training needs a parameter with requires_grad, the model has none; unfreeze one")
    return [{"params": found, "weight_decay": decay, "scale": scale} for (decay, scale), found in groups.items()]


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe over `parameter_groups`."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set `lr` times the factor of each group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
