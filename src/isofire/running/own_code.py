"""What a module does beside what its class is known to do."""

from __future__ import annotations

from typing import Any

from torch import nn

from isofire.errors import ModelError

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


def refuse_own_code(model: nn.Module, kinds: tuple[type[nn.Module], ...], leaves_out: str) -> None:
    """Refuse hooks, and forwards of one's own in modules of these kinds, which are written down as they are.

    Parameters
    ----------
    leaves_out
        What would leave the code out, for the error: "integers", "a graph".

    Raises
    ------
    ModelError
        Naming the module.
    """
    for name, module in model.named_modules():
        own = own_code_of(module)
        if own == "a hook" or (own is not None and isinstance(module, kinds)):
            raise ModelError(
                f"{name or 'the network'!r} ({type(module).__name__}) has {own}, which {leaves_out} would leave out; "
                "take it off, or fold what it does into the weights"
            )


def _is_known(code: Any) -> bool:
    return f"{getattr(code, '__module__', None) or type(code).__module__}.".startswith(_KNOWN)
