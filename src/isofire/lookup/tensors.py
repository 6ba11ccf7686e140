"""What flows between the layers of a fast network: tensors that remember of what they are made.

Both kinds are tensors to whoever looks at them. An operation that is known to `isofire.lookup.packed`, such as the sum
of two maps of spikes, stays packed; every other one gets the plain tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function
from torch.utils._pytree import tree_leaves, tree_map

from isofire.errors import ModelError
from isofire.lookup import direct, native
from isofire.lookup.affine import Geometry
from isofire.lookup.counts import Counts
from isofire.neurons.fast_path import in_a_graph

if TYPE_CHECKING:
    from isofire.lookup.affine import Affine
    from isofire.lookup.layers import LayerCodes, TableConv2d, TableLayer

Handler = Callable[..., Any]
HANDLERS: dict[Callable[..., Any], dict[type, Handler]] = {}
"""Operations that stay packed, by the kind of their first argument; a handler that gives None leaves it to torch."""

_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_OF_MEMORY = frozenset(
    getattr(Tensor, name)
    for name in (
        "numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "storage", "untyped_storage", "share_memory_",
        "is_shared", "apply_", "map_", "map2_", "__deepcopy__",
    )
) | {_SET_DATA}  # fmt: skip
"""What goes to a tensor's memory past torch's operations."""


class Shared:
    """What a tensor and the packed views of it have in common: their numbers in order, as one axis.

    Attributes
    ----------
    seen
        To be read alone, if something was to read them.
    memory
        To be changed, from when one of them was changed or seen in another way; before that, None.
    """

    seen: Tensor | None = None
    memory: Tensor | None = None


class Lazy(Tensor):
    """A tensor [T, N, ...] that is worked out when an operation needs it; `folded`: its first two axes are one.

    An operation that changes it, or takes a view of it, leaves it a tensor like any other, and with it all that are
    `shared` with it: views of it, and what it is a view of. All of them are the same numbers in the same order.
    """

    folded: bool
    steps: int
    shared: Shared

    @property
    def is_packed(self) -> bool:
        """Whether it is still what it was made of."""
        return self.shared.memory is None

    def plain(self) -> Tensor:
        """The tensor itself, to be read; laid out as it says it is, which decides what can be a view."""
        shared = self.shared
        if shared.memory is not None:
            return shared.memory.view(self.shape)
        if shared.seen is None:
            shared.seen = self.work_out().reshape(-1)
        return shared.seen.view(self.shape)

    def owned(self) -> Tensor:
        """The tensor itself, to be changed or kept: from now on it is no longer packed."""
        if self.shared.memory is None:
            self.shared.memory, self.shared.seen = self.plain().reshape(-1).clone(), None
        return self.plain()

    def work_out(self) -> Tensor:
        """The tensor that it stands for."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HANDLERS and args and isinstance(args[0], Lazy) and args[0].is_packed:
            for kind, handler in HANDLERS[func].items():
                if isinstance(args[0], kind) and (found := handler(*args, **kwargs)) is not None:
                    return found
        if func in _OF_MEMORY:
            if func == _SET_DATA and isinstance(args[0], Lazy):
                raise _of_axes("an assignment to its data")
            if (listening := native.tape()) is not None:
                listening.refuse(f"{func.__name__} goes to the memory of spikes or sums")
            args, kwargs = tree_map(owned, (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given, is_written in _aliased(func, args, kwargs):
            if is_written and torch.Tag.inplace_view in func.tags:
                raise _of_axes(str(func))
            given.owned()
        args, options = tree_map(plain, (args, kwargs))
        found = func(*args, **options)
        if any(isinstance(x, Lazy) and options[name].shape != x.shape for name, x in kwargs.items()):
            raise _of_axes(f"{func} with `out` of another shape")
        return found

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return repr(self.plain())


def _aliased(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[Lazy, bool]]:
    """The lazy tensors of which an operation gives a view, or which it changes (True)."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from ((x, argument.alias_info.is_write) for x in tree_leaves(given) if isinstance(x, Lazy))


def _of_axes(what: str) -> ModelError:
    return ModelError(
        f"{what} changes the axes or the memory of spikes or sums of a fast network in place; use an operation that "
        "gives another tensor (unsqueeze for unsqueeze_), or clone() it first"
    )


def watched() -> bool:
    """Whether somebody follows each operation (a cost's trace, torch.compile, torch.export, torch.jit.trace), who is to
    see ordinary ones."""
    followed = torch._C._len_torch_dispatch_stack() > 0 and native.tape() is None
    return followed or in_a_graph()


def told(product: Callable[..., Tensor], made: Tensor) -> Tensor:
    """What a layer made in place of a product of torch's, after telling who lists a network's products."""
    if torch._C._is_torch_function_mode_enabled():
        return handle_torch_function(product, (made,), made)
    return made


def conv2d(made: Tensor) -> Tensor:
    """Stands for a convolution where products are listed by name."""
    return made


def linear(made: Tensor) -> Tensor:
    """Stands for a linear layer where products are listed by name."""
    return made


def plain(x: Any) -> Any:
    """A lazy tensor worked out, to be read; anything else as it is."""
    return x.plain() if isinstance(x, Lazy) else x


def owned(x: Any) -> Any:
    """A lazy tensor worked out, in memory of its own and its views'; anything else as it is."""
    return x.owned() if isinstance(x, Lazy) else x


class Spikes(Lazy):
    """Counts over `divisor`, shaped [T, N, C, H, W], or without H and W, or with C, H and W as one axis."""

    counts: Counts
    divisor: int
    form: str

    @staticmethod
    def __new__(
        cls, counts: Counts, form: str = "maps", divisor: int = 1, folded: bool = False, shared: Shared | None = None
    ) -> Spikes:
        steps, images, *image = counts.shape
        neurons = {"maps": image, "features": image[:1], "flat": [image[0] * image[1] * image[2]]}[form]
        shape = (steps * images, *neurons) if folded else (steps, images, *neurons)
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)  # type: ignore[attr-defined]
        made.counts, made.form, made.divisor, made.folded, made.steps = counts, form, divisor, folded, steps
        made.shared = shared or Shared()
        return made

    def work_out(self) -> Tensor:
        x = self.counts.dense()
        x = x / self.divisor if self.divisor > 1 else x
        x = x.flatten(2) if self.form == "flat" else x[..., 0, 0] if self.form == "features" else x
        return x.flatten(0, 1) if self.folded else x

    def like(self, counts: Counts, divisor: int | None = None, form: str | None = None) -> Spikes:
        """Other counts of the same axes."""
        return Spikes(counts, form or self.form, divisor or self.divisor, self.folded)


def spikes_in(x: Any) -> Spikes | None:
    """`x`, if it is spikes that nothing has changed since."""
    return x if isinstance(x, Spikes) and x.is_packed else None


class Sums(Lazy):
    """What a layer of tables gives: a convolution of `spikes`, and behind it a batch norm or none.

    The spikes' counts and the layer's codes are those of when it was made, whatever becomes of either.
    """

    layer: TableLayer
    codes: LayerCodes
    spikes: Spikes
    affine: Affine
    neurons: tuple[int, ...]

    @staticmethod
    def __new__(
        cls, layer: TableLayer, codes: LayerCodes, spikes: Spikes, affine: Affine, folded: bool,
        neurons: tuple[int, ...], shared: Shared | None = None,
    ) -> Sums:  # fmt: skip
        steps, images = spikes.counts.shape[:2]
        shape = (steps * images, *neurons) if folded else (steps, images, *neurons)
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)  # type: ignore[attr-defined]
        made.layer, made.codes, made.spikes, made.affine, made.folded = layer, codes, spikes, affine, folded
        made.steps, made.neurons, made.shared = steps, neurons, shared or Shared()
        return made

    def work_out(self) -> Tensor:
        x = self.layer.inputs_of_neurons(self.codes, self.spikes, self.affine)
        return x.flatten(0, 1) if self.folded else x


class Products(Lazy):
    """What a convolution gives of real inputs [M, C, H, W], and behind it a batch norm or none: [M, out, H, W], or
    [T, N, out, H, W]. `folded` is whether M is what it begins with. Inputs and weights are nobody else's."""

    layer: TableConv2d
    weight: Tensor
    inputs: Tensor
    affine: Affine

    @staticmethod
    def __new__(
        cls, layer: TableConv2d, weight: Tensor, inputs: Tensor, affine: Affine, steps: int = 0,
        shared: Shared | None = None,
    ) -> Products:  # fmt: skip
        size = Geometry.of(cast(nn.Conv2d, layer)).out_size(*inputs.shape[2:])
        lead = (steps, inputs.shape[0] // steps) if steps else (inputs.shape[0],)
        made = Tensor._make_wrapper_subclass(cls, (*lead, weight.shape[0], *size), dtype=torch.float32)  # type: ignore[attr-defined]
        made.layer, made.weight, made.inputs, made.affine = layer, weight, inputs, affine
        made.steps, made.folded, made.shared = steps, not steps, shared or Shared()
        return made

    def work_out(self) -> Tensor:
        scale, shift = (part.view(-1, 1, 1) for part in self.affine.floats(1))
        return self._unfolded(self.layer.multiply(self.inputs, self.weight) * scale + shift)

    def in_order(self) -> Tensor:
        """The same, its products added in the order that the kernels have."""
        geometry = Geometry.of(cast(nn.Conv2d, self.layer))
        return self._unfolded(direct.inputs_of_neurons(geometry, self.weight, self.inputs, self.affine))

    def _unfolded(self, x: Tensor) -> Tensor:
        return x.unflatten(0, self.shape[:2]) if self.steps else x
