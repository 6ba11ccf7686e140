"""What becomes of parameters in a forward pass: which work with them is counted, and which is not.

Weights do their work in products, and those are counted. A parameter that is added, that scales each element, that
belongs to a norm or is data itself (a token, a table looked up by the input) holds no synapses. Anything else is work
that is in no number, and so is whatever a network does outside of torch: both are told by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from isofire.firing.cost.events.call import Call
from isofire.firing.cost.events.events import Source
from isofire.firing.cost.events.operations import KNOWN, MEANS, NORMS, PRODUCTS, SUMS
from isofire.firing.cost.following.stored import lies_within
from isofire.running import tensors_in

_ADDED = frozenset(("add", "sub", "rsub"))
_PUT_BESIDE = frozenset((
    "cat", "stack", "copy", "constant_pad_nd", "index_put", "_index_put_impl", "_unsafe_index_put", "select_scatter",
    "slice_scatter", "masked_scatter", "scatter", "fill", "zero", "equal", "is_same_size",
))  # fmt: skip
_NORMED = NORMS | {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}
_GATES = frozenset(("where", "masked_fill"))
_LEAVES = frozenset(("numpy", "tolist", "__array__", "__dlpack__", "data_ptr"))


def not_known(call: Call) -> str | None:
    """Name of an operation of which it is not known what it does."""
    func: Any = call.func
    name = f"{func.namespace}::{call.name}"
    if call.name in PRODUCTS and any(x.layout is not torch.strided for x in tensors_in(call.args)):
        return f"{name} of sparse tensors"
    known = torch.Tag.pointwise in func.tags or (func.namespace == "aten" and call.name in KNOWN)
    return None if known else name


def work_not_counted(call: Call) -> bool:
    """Whether an operation that is no product known to isofire does work with weights, for results that depend on the
    input."""
    tensors = tensors_in(call.args, call.options)
    driven = [x for x in tensors if call.source(x) >= Source.INPUT]
    if not driven or not any(call.source(x) == Source.WEIGHTS for x in tensors):
        return False
    if call.name in _ADDED or call.name in _PUT_BESIDE or call.name in _NORMED:
        return False
    if call.name == "embedding":
        # a table looked up by the input's words; by spikes it is a layer that works by events
        return max(map(call.source, driven)) == Source.SPIKES
    if call.name in _GATES:
        return _gated(call)
    if torch.Tag.pointwise in getattr(call.func, "tags", ()) and isinstance(call.output, Tensor):
        # one weight an element is a gain, an offset, a threshold
        return call.output.numel() > max(x.numel() for x in driven)
    return True


def _gated(call: Call) -> bool:
    """Whether spikes choose which weights go on."""
    mask = call.args[0 if call.name == "where" else 1]
    if not call.depends(mask):
        return False
    return any(isinstance(x, Tensor) and x is not mask and call.source(x) == Source.WEIGHTS for x in call.args)


def weighted_sum(name: str, args: Any, factor: Tensor) -> bool:
    """Whether a sum goes along an axis on which the factor, of the shape of what is summed, differs."""
    if name not in SUMS | MEANS or name in ("trace", "col2im"):
        return False
    return any(factor.shape[axis] > 1 and factor.stride(axis) != 0 for axis in summed_axes(args))


def summed_axes(args: Any) -> list[int]:
    """Of `x.sum(axes)` and its kind."""
    axes = args[1] if len(args) > 1 and args[1] is not None and args[1] != [] else list(range(args[0].ndim))
    return [axes] if isinstance(axes, int) else list(axes)


class Leaving(TorchFunctionMode):
    """Tells `left` of every tensor whose values are taken out of torch: by numpy, as a list, by its address."""

    def __init__(self, left: Callable[[Tensor, str], None]) -> None:
        super().__init__()
        self._left = left

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _LEAVES and args and isinstance(args[0], Tensor):
            self._left(args[0], name)
        return func(*args, **(kwargs or {}))


class Uses:
    """Of a model's parameters, by name."""

    def __init__(self) -> None:
        self.counted: set[str] = set()
        self.lost: dict[str, str] = {}
        """Parameter -> the first operation that did work with it in a way that is not counted."""
        self.outside: dict[str, str] = {}
        """Module -> how values left torch there before others came back."""
        self.read_by: str | None = None
        """How Python last read values that depend on the input, in this pass."""
        self._left: tuple[str, str] | None = None

    def clear(self) -> None:
        """A new forward pass."""
        self._left = self.read_by = None

    def lose(self, names: Collection[str], how: str) -> None:
        """Work that is not counted."""
        for name in names:
            self.lost.setdefault(name, how)

    def see_parts(self, call: Call, stored: list[tuple[str, Tensor]]) -> None:
        """After values were read by Python, parts of weights that are added up may have been chosen by them."""
        if self.read_by is None or call.name not in ("add", "sub", "stack"):
            return
        for x in tensors_in(call.args):
            whole = [name for name, item in stored if isinstance(item, nn.Parameter) and x.numel() < item.numel()
                     and lies_within(x, item)]  # fmt: skip
            self.lose(whole, f"parts, chosen after {self.read_by}()")

    def leave(self, module: str, how: str) -> None:
        """Values that depend on the input left torch."""
        self._left, self.read_by = (module, how), how

    @property
    def waiting(self) -> bool:
        """Whether values have left torch, and may come back."""
        return self._left is not None

    def enter(self) -> None:
        """A tensor that no operation of this forward pass made is used."""
        if self._left is not None:
            self.outside.setdefault(*self._left)
