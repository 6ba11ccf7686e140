"""Whether a layer multiplies with its weight as it is, or with something that its forward makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from isofire.errors import ModelError

PLAIN: dict[type[nn.Module], str] = {
    nn.Linear: "forward",
    nn.Conv1d: "_conv_forward",
    nn.Conv2d: "_conv_forward",
    nn.Conv3d: "_conv_forward",
}
"""The kinds that can be quantized, and the method of each that multiplies."""

_PRODUCTS = {
    "linear", "conv1d", "conv2d", "conv3d", "convolution", "_convolution", "matmul", "__matmul__", "__rmatmul__", "mm",
    "bmm", "mv", "addmm", "addbmm", "baddbmm", "einsum", "tensordot",
}  # fmt: skip


def check_uses_its_weight(name: str, layer: nn.Module) -> None:
    """Refuse a layer whose forward changes its weight before it multiplies, as weight standardisation does: the levels
    would be those of numbers that the network never uses.

    A class with a forward of its own is tried on a copy and a few zeros and ones.

    Raises
    ------
    ModelError
        If it changes its weight, never multiplies with it, or cannot be tried.
    """
    if is_plain(layer):
        return
    kind, cure = type(layer).__name__, f"leave it float by a rule {{match = {name!r}, weights = 'float'}}"
    try:
        twin = copy.deepcopy(layer).eval()
        seen = next(filter(None, map(lambda x: _tried(twin, x), _probes(twin))), None)
    except RuntimeError as error:
        raise ModelError(f"{name!r} ({kind}) cannot be copied to see what it does: {error}; {cure}") from error
    if seen is None:
        raise ModelError(
            f"{name!r} ({kind}) has a forward of its own that runs on none of the inputs tried, so that it cannot be "
            f"seen whether it uses its weight as it is; {cure}"
        )
    if seen.changed or not seen.multiplied:
        how = f"changes its weight ({seen.changed[0]}) before" if seen.changed else "is not seen to use its weight when"
        raise ModelError(
            f"{name!r} ({kind}) {how} it multiplies, so the numbers in use would not be on the levels; fold the change "
            f"into the weight and use a plain layer, or {cure}"
        )


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer's arithmetic is torch's own for its kind."""
    base = next((kind for kind in PLAIN if isinstance(layer, kind)), None)
    if base is None or {"forward", "_conv_forward"} & set(vars(layer)):
        return False
    return all(getattr(type(layer), name) is getattr(base, name) for name in {"forward", PLAIN[base]})


class _Watch(TorchFunctionMode):
    """Follow a weight through a forward: views and equal copies stand for it, products use it, all else changes it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.aliases = [weight]
        self.changed: list[str] = []
        self.multiplied = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        result = func(*args, **(kwargs or {}))
        if not any(leaf is alias for leaf in given for alias in self.aliases):
            return result
        name = getattr(func, "__name__", str(func))
        if name in _PRODUCTS:
            self.multiplied = True
        elif isinstance(result, Tensor):
            if self._same(result):
                self.aliases.append(result)
            elif result.is_floating_point():
                self.changed.append(name)
        return result

    def _same(self, result: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            if result.untyped_storage().data_ptr() == self.weight.untyped_storage().data_ptr():
                return result.numel() == self.weight.numel()
            return result.shape == self.weight.shape and torch.equal(result.to(self.weight), self.weight)


def _tried(layer: nn.Module, x: Tensor) -> _Watch | None:
    """What the forward did with the weight; None if it does not take such inputs."""
    weight = layer._parameters["weight"]
    assert weight is not None
    try:
        with torch.no_grad(), _Watch(weight) as watch:
            layer(x)
    except Exception:
        # any error of a stranger's forward says the same: not these inputs
        return None
    return watch


def _probes(layer: nn.Module) -> Iterator[Tensor]:
    """Inputs [N, ...] and, for layers that take all steps at once, [T, N, ...]."""
    weight = layer._parameters["weight"]
    assert weight is not None
    if isinstance(layer, nn.Linear):
        shape: tuple[int, ...] = (layer.in_features,)
    else:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        spread = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        shape = (layer.in_channels, *(max(8, 2 * side) for side in spread))
    for lead in ((2,), (2, 2), (4, 2, 2)):
        yield torch.ones(*lead, *shape, dtype=weight.dtype, device=weight.device)
