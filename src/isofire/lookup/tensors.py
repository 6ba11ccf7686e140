"""What flows between the layers of a fast network: tensors that remember of what they are made.

Both kinds are tensors to whoever looks at them. An operation that they know, such as the sum of two maps of spikes,
stays packed; every other one gets the plain tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function
from torch.utils._pytree import tree_map

from isofire.lookup import direct, native
from isofire.lookup.affine import Geometry
from isofire.lookup.counts import Counts, Window
from isofire.neurons.fast_path import in_a_graph

if TYPE_CHECKING:
    from isofire.lookup.affine import Affine
    from isofire.lookup.layers import TableConv2d, TableLayer

Handler = Callable[..., Any]
_HANDLERS: dict[Callable[..., Any], dict[type, Handler]] = {}


class Lazy(Tensor):
    """A tensor [T, N, ...] that is worked out when an operation needs it; `folded`: its first two axes are one.

    An operation that changes it, or takes a view of it, leaves it a tensor of its `own` like any other.
    """

    folded: bool
    steps: int
    own: Tensor | None = None

    def plain(self) -> Tensor:
        """The tensor itself."""
        return self.work_out() if self.own is None else self.own

    def work_out(self) -> Tensor:
        """The tensor that it stands for."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _HANDLERS and args and isinstance(args[0], Lazy) and args[0].own is None:
            for kind, handler in _HANDLERS[func].items():
                if isinstance(args[0], kind) and (found := handler(*args, **kwargs)) is not None:
                    return found
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument, given in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and isinstance(given, Lazy) and given.own is None:
                # laid out as this tensor says it is, which decides what can be a view
                given.own = given.work_out().clone(memory_format=torch.contiguous_format)
        args, kwargs = tree_map(plain, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return repr(self.plain())


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
    """A lazy tensor worked out; anything else as it is."""
    return x.plain() if isinstance(x, Lazy) else x


class Spikes(Lazy):
    """Counts over `divisor`, shaped [T, N, C, H, W], or without H and W, or with C, H and W as one axis."""

    counts: Counts
    divisor: int
    form: str

    @staticmethod
    def __new__(cls, counts: Counts, form: str = "maps", divisor: int = 1, folded: bool = False) -> Spikes:
        steps, images, *image = counts.shape
        neurons = {"maps": image, "features": image[:1], "flat": [image[0] * image[1] * image[2]]}[form]
        shape = (steps * images, *neurons) if folded else (steps, images, *neurons)
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)  # type: ignore[attr-defined]
        made.counts, made.form, made.divisor, made.folded, made.steps = counts, form, divisor, folded, steps
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
    return x if isinstance(x, Spikes) and x.own is None else None


class Sums(Lazy):
    """What a layer of tables gives: a convolution of `spikes`, and behind it a batch norm or none."""

    layer: TableLayer
    spikes: Spikes
    affine: Affine
    neurons: tuple[int, ...]

    @staticmethod
    def __new__(cls, layer: TableLayer, spikes: Spikes, affine: Affine, folded: bool, neurons: tuple[int, ...]) -> Sums:
        steps, images = spikes.counts.shape[:2]
        shape = (steps * images, *neurons) if folded else (steps, images, *neurons)
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)  # type: ignore[attr-defined]
        made.layer, made.spikes, made.affine, made.folded, made.steps = layer, spikes, affine, folded, steps
        made.neurons = neurons
        return made

    def work_out(self) -> Tensor:
        x = self.layer.inputs_of_neurons(self.spikes, self.affine)
        return x.flatten(0, 1) if self.folded else x


class Products(Lazy):
    """What a convolution gives of real inputs [M, C, H, W], and behind it a batch norm or none: [M, out, H, W], or
    [T, N, out, H, W]. `folded` is whether M is what it begins with."""

    layer: TableConv2d
    inputs: Tensor
    affine: Affine

    @staticmethod
    def __new__(cls, layer: TableConv2d, inputs: Tensor, affine: Affine, steps: int = 0) -> Products:
        size = Geometry.of(cast(nn.Conv2d, layer)).out_size(*inputs.shape[2:])
        lead = (steps, inputs.shape[0] // steps) if steps else (inputs.shape[0],)
        made = Tensor._make_wrapper_subclass(cls, (*lead, layer.weight.shape[0], *size), dtype=torch.float32)  # type: ignore[attr-defined]
        made.layer, made.inputs, made.affine, made.steps, made.folded = layer, inputs, affine, steps, not steps
        return made

    def work_out(self) -> Tensor:
        scale, shift = (part.view(-1, 1, 1) for part in self.affine.floats(1))
        return self._unfolded(self.layer.multiply(self.inputs) * scale + shift)

    def in_order(self) -> Tensor:
        """The same, its products added in the order that the kernels have."""
        return self._unfolded(direct.inputs_of_neurons(cast(nn.Conv2d, self.layer), self.inputs, self.affine))

    def _unfolded(self, x: Tensor) -> Tensor:
        return x.unflatten(0, self.shape[:2]) if self.steps else x


def _handles(kind: type, *functions: Any) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        for function in functions:
            _HANDLERS.setdefault(function, {})[kind] = handler
        return handler

    return add


def _axis(x: Tensor, dim: int) -> int:
    return dim + x.ndim if dim < 0 else dim


@_handles(Lazy, Tensor.flatten, torch.flatten)
def _flatten(x: Lazy, start_dim: int = 0, end_dim: int = -1) -> Any:
    start, end = _axis(x, start_dim), _axis(x, end_dim)
    if not x.folded and (start, end) == (0, 1):
        return _folded(x, True)
    if not isinstance(x, Spikes) or start != (1 if x.folded else 2) or end != x.ndim - 1:
        return None
    return x if x.form != "maps" else x.like(x.counts, form="flat")


@_handles(Lazy, Tensor.unflatten)
def _unflatten(x: Lazy, dim: int, sizes: Any) -> Any:
    if isinstance(x, Products):
        fits = x.folded and _axis(x, dim) == 0 and len(sizes) == 2 and sizes[0] > 0
        fits = fits and (sizes[1] == -1 or sizes[0] * sizes[1] == x.shape[0]) and x.shape[0] % sizes[0] == 0
        return Products(x.layer, x.inputs, x.affine, sizes[0]) if fits else None
    steps, images = x.steps, x.shape[0] // x.steps if x.steps else 0
    same = x.folded and _axis(x, dim) == 0 and len(sizes) == 2 and tuple(sizes) in ((steps, images), (steps, -1))
    return _folded(x, False) if same else None


def _folded(x: Lazy, folded: bool) -> Lazy:
    if isinstance(x, Spikes):
        return Spikes(x.counts, x.form, x.divisor, folded)
    if isinstance(x, Products):
        return Products(x.layer, x.inputs, x.affine)
    assert isinstance(x, Sums)
    return Sums(x.layer, x.spikes, x.affine, folded, x.neurons)


@_handles(Spikes, torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
def _add(a: Spikes, b: Any, **options: Any) -> Any:
    return a.like(a.counts.plus(b.counts)) if not options and _alike(a, b) and a.divisor == b.divisor else None


@_handles(Spikes, torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)
def _mul(a: Spikes, b: Any) -> Any:
    return a.like(a.counts.times(b.counts), a.divisor * b.divisor) if _alike(a, b) else None


@_handles(Spikes, Tensor.__rsub__)
def _one_minus(x: Spikes, other: Any) -> Any:
    fits = isinstance(other, (int, float)) and other == 1 and x.counts.most == 1 and x.divisor == 1
    return x.like(x.counts.complement()) if fits else None


def _alike(a: Spikes, b: Any) -> bool:
    b = spikes_in(b)
    return b is not None and a.counts.shape == b.counts.shape and (a.form, a.folded) == (b.form, b.folded)


@_handles(Spikes, Tensor.mean, torch.mean)
def _mean(x: Spikes, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    axes = dim if isinstance(dim, (tuple, list)) else ()
    whole = x.form == "maps" and sorted(_axis(x, axis) for axis in axes) == [x.ndim - 2, x.ndim - 1]
    if not whole or options or not all(x.counts.shape):
        return None
    return _averaged(x, "maps" if keepdim else "features")


@_handles(Spikes, F.adaptive_avg_pool2d)
def _global_average(x: Spikes, output_size: Any) -> Any:
    ones = output_size in (1, (1, 1), [1, 1])
    return _averaged(x, "maps") if ones and x.folded and x.form == "maps" and all(x.counts.shape) else None


def _averaged(x: Spikes, form: str) -> Spikes:
    height, width = x.counts.shape[3:]
    return x.like(x.counts.sum_pool(Window((height, width), (1, 1), (0, 0))), x.divisor * height * width, form)


@_handles(Spikes, torch.max_pool2d, F.max_pool2d)
def _max_pool(
    x: Spikes, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    if not _is_map(x) or ceil_mode or return_indices or _pair(dilation) != (1, 1):
        return None
    return x.like(x.counts.max_pool(_window(kernel_size, stride, padding)))


@_handles(Spikes, F.avg_pool2d)
def _avg_pool(
    x: Spikes, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    window = _window(kernel_size, stride, padding)
    if not _is_map(x) or ceil_mode or (any(window.pad) and not count_include_pad):
        return None
    size = window.size[0] * window.size[1] if divisor_override is None else divisor_override
    return x.like(x.counts.sum_pool(window), x.divisor * size) if size > 0 else None


def _is_map(x: Spikes) -> bool:
    return x.folded and x.form == "maps" and all(x.counts.shape) and x.counts.most > 0


def _window(size: Any, stride: Any, pad: Any) -> Window:
    return Window(_pair(size), _pair(size if stride is None or stride == [] else stride), _pair(pad))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


@_handles(Lazy, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
def _dropout(x: Lazy, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return None if training else x


@_handles(Lazy, Tensor.contiguous, Tensor.detach, Tensor.float)
def _same(x: Lazy, **options: Any) -> Any:
    return x


@_handles(Products, F.batch_norm)
@_handles(Sums, F.batch_norm)
def _batch_norm(
    x: Sums | Products, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    if training or running_mean is None or running_var is None or not x.folded:
        return None
    return with_norm(x, running_mean, running_var, weight, bias, eps)


def with_norm(
    x: Sums | Products, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Sums | Products | None:
    """The sums with a batch norm of running statistics behind them; None if one is there already."""
    affine = x.affine.normalised(mean, var, weight, bias, eps)
    if affine is None:
        return None
    if isinstance(x, Products):
        return Products(x.layer, x.inputs, affine, x.steps)
    return Sums(x.layer, x.spikes, affine, x.folded, x.neurons)


def norm_of(x: Sums | Products, norm: nn.modules.batchnorm._BatchNorm) -> Sums | Products | None:
    """`with_norm` of a module; None in training."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    return with_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
