"""Models by name and plain settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from isofire.errors import SpecError
from isofire.models.sew_resnet import SEWResNet, sew_resnet8, sew_resnet18

BUILDERS: dict[str, Callable[..., SEWResNet]] = {"sew_resnet8": sew_resnet8, "sew_resnet18": sew_resnet18}


def build(config: Mapping[str, Any]) -> SEWResNet:
    """A freshly initialised model from ``{"builder": name, **arguments}``; a model's `config` builds its like.

    Raises
    ------
    SpecError
        If the builder or an argument is unknown, or a value is out of range.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("builder"), str):
        raise SpecError(f"a model's settings are a table with a builder ({', '.join(BUILDERS)}), got {config!r}")
    arguments = dict(config)
    name = arguments.pop("builder", None)
    if name not in BUILDERS:
        raise SpecError(f"builder must be one of {', '.join(BUILDERS)}, got {name!r}")
    try:
        return BUILDERS[name](**arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        # torch refuses sizes that no memory has, and Python numbers that no size is
        raise SpecError(f"model settings for {name}: {error}") from error
