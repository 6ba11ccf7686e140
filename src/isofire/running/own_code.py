"""What a module does beside what its class is known to do."""

from __future__ import annotations

from typing import Any

from torch import nn

_KNOWN = ("torch.", "isofire.")


def own_code_of(module: nn.Module) -> str | None:
    """A forward or a hook of the user's own, in words; None if a module does what its class of torch or isofire does.

    Who writes a network down by its classes and weights would leave such code out.
    """
    for method in ("forward", "_conv_forward"):
        found = getattr(type(module), method, None)
        if method in vars(module) or (found is not None and not _is_known(found)):
            return "a forward of its own"
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return None if all(map(_is_known, hooks)) else "a hook"


def _is_known(code: Any) -> bool:
    return f"{getattr(code, '__module__', None) or type(code).__module__}.".startswith(_KNOWN)
