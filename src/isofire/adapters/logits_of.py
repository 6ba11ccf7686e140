"""A network that returns something else than logits, with a word on where the logits are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isofire.errors import ModelError, SpecError

STEPS = "steps"
"""`LogitsOf.output` for a list or tuple of the logits of every step."""
_ORDERS = {"NC": "NC", "CN": "NC", **{order: "TNC" for order in ("TNC", "NTC", "NCT", "TCN", "CNT", "CTN")}}


class LogitsOf(nn.Module):
    """Runs a network and hands on the logits in what it returns: for dictionaries, several heads, other orders of axes.

    The network itself is the submodule `net`, unchanged. Wrap the baseline and what is made of it alike: quantize the
    wrapped network.

    Parameters
    ----------
    net
        The network.
    output
        Where the logits are: the key of a dictionary or named tuple, the place in a tuple or list, "steps" for a list
        or tuple with the logits of every step, or a function of what the network returns; None for all of it.
    axes
        Their axes: "NC", or "TNC", "NTC" and the other orders of time T, images N and classes C. With "steps", those of
        one step: "NC" or "CN".

    Raises
    ------
    SpecError
        If `axes` is no such order, or does not go with `output`.

    Examples
    --------
    >>> model = LogitsOf(two_heads, output="main", axes="NTC")  # doctest: +SKIP
    >>> isofire.compare(model, isofire.quantize_(copy.deepcopy(model), spec, data), data)  # doctest: +SKIP
    """

    def __init__(
        self, net: nn.Module, output: str | int | Callable[[Any], Tensor] | None = None, axes: str = ""
    ) -> None:
        super().__init__()
        axes = axes or ("NC" if output == STEPS else "TNC")
        if axes not in _ORDERS or (output == STEPS and len(axes) != 2):
            known = "NC, CN" if output == STEPS else ", ".join(_ORDERS)
            raise SpecError(f"axes must be one of {known} with output={output!r}, got {axes!r}")
        self.net, self.output, self.axes = net, output, axes

    def forward(self, *inputs: Any) -> Tensor:
        """Logits [T, N, classes] or [N, classes]."""
        found = self._chosen(self.net(*inputs))
        if not isinstance(found, Tensor) or found.ndim != len(self.axes) + (self.output == STEPS):
            given = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ModelError(
                f"logits must have the axes {self.axes} (LogitsOf, output={self.output!r}), got {given}; "
                "name another part of the output, or its axes"
            )
        axes = f"T{self.axes}" if self.output == STEPS else self.axes
        return found.permute([axes.index(axis) for axis in _ORDERS[axes]])

    def _chosen(self, output: Any) -> Any:
        where = self.output
        try:
            if where is None:
                return output
            if callable(where):
                return where(output)
            if where == STEPS:
                return torch.stack(list(output))
            if isinstance(where, str) and isinstance(output, tuple):
                return getattr(output, where)
            return output[where]
        except (LookupError, AttributeError, TypeError, RuntimeError) as error:
            held = f" with {', '.join(map(str, output))}" if isinstance(output, dict) else ""
            raise ModelError(
                f"{type(self.net).__name__} returned a {type(output).__name__}{held}, in which output={where!r} finds "
                f"nothing ({type(error).__name__}: {error}); name another part of it to LogitsOf"
            ) from error

    def extra_repr(self) -> str:
        return f"output={self.output!r}, axes={self.axes!r}"
