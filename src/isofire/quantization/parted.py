"""Weights that modules share and that a spec quantizes otherwise in each, so that they are no longer one."""

from __future__ import annotations

import logging

from torch import nn

from isofire.quantization.plan import QuantPlan, describe
from isofire.quantizers.setting import Setting

_LOG = logging.getLogger(__name__)


def tell_parted(model: nn.Module, plan: QuantPlan) -> None:
    """Warn of them by name, before the model is prepared."""
    settings = {choice.name: choice.setting for choice in plan.chosen("weights")}
    holders: dict[int, dict[str, Setting | None]] = {}
    for name, module in model.named_modules():
        for own, parameter in module._parameters.items():
            if parameter is not None:
                at, setting = (name, settings.get(name)) if own == "weight" else (f"{name}.{own}".lstrip("."), None)
                holders.setdefault(id(parameter), {})[at] = setting
    for each in holders.values():
        if len(set(each.values())) > 1:
            _LOG.warning(
                "modules that share a weight hold one each from now on, and memory for each, since they are quantized "
                "otherwise: %s; quantize them alike, or leave all of them float by rules (match = '...', weights = "
                "'float')",
                ", ".join(f"{name!r} ({describe(setting)})" for name, setting in each.items()),
            )
