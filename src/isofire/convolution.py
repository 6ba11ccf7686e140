"""Keeping a fault of oneDNN out of training: a convolution whose weight gradient is written past its end.

On a CPU with AVX2 but not AVX-512, oneDNN 3.12 writes past the end of a buffer where it computes the weight gradient of
a strided convolution with a kernel of one pixel and fewer than 8 input channels, if the input's or the weight's strides
are those of channels_last. Memory of other tensors is then changed, or the process dies. In torch's own layout it does
not; so input and weight of such a convolution are brought into it, whoever calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from isofire.running import by_place

_FEW_CHANNELS = 8
_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def overruns(weight: Tensor, stride: Any) -> bool:
    """Whether a convolution with this weight [out, in, ...] and stride is of the kind, whatever its layout."""
    strides = stride if isinstance(stride, Iterable) else (stride,)
    pointwise = all(size == 1 for size in weight.shape[2:])
    return pointwise and weight.shape[1] < _FEW_CHANNELS and any(int(step) > 1 for step in strides)


def plain(x: Tensor) -> Tensor:
    """The tensor in torch's own layout, whose strides also say so where an axis has length 1; itself if they do."""
    return x if _is_plain(x) else x.clone(memory_format=torch.contiguous_format)


def _is_plain(x: Tensor) -> bool:
    expected, step = [], 1
    for size in reversed(x.shape):
        expected.append(step)
        step *= size
    return list(x.stride()) == expected[::-1]


def needs_care(model: nn.Module, device: torch.device) -> bool:
    """Whether a parameter could be the weight of such a convolution, in whatever module: it ends in an axis of length 1
    and has an axis of less than 8 where input channels may be."""
    shapes = [parameter.shape for parameter in model.parameters() if parameter.ndim > 2 and parameter.shape[-1] == 1]
    return device.type == "cpu" and any(1 < size < _FEW_CHANNELS for shape in shapes for size in shape[1:])


class SafeConvolutions(TorchFunctionMode):
    """Inside, every convolution of the kind runs in torch's own layout, whichever module or function calls it.

    `isofire.training.train` runs in it where it may matter; it costs a microsecond or two for every torch function that
    is called. A loop of your own, on a CPU and in channels_last, may need it where a layer of the kind is in no network
    of isofire's builders and no prepared model, which guard themselves.

    Examples
    --------
    >>> x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    >>> with SafeConvolutions():
    ...     y = torch.conv2d(x, torch.randn(8, 4, 1, 1), stride=2)
    >>> y.is_contiguous()
    True
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS and torch.is_grad_enabled():
            return _safely(func, *args, **kwargs)
        return func(*args, **kwargs)


def _safely(
    function: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    *rest: Any,
    **options: Any,
) -> Tensor:
    if input.device.type == "cpu" and overruns(weight, stride):
        input, weight = plain(input), plain(weight)
    return function(input, weight, bias, stride, *rest, **options)


def guard_(model: nn.Module) -> list[RemovableHandle]:
    """Let the layers of a model that are of the kind bring input and weight into torch's own layout themselves.

    It takes a hook that does nothing on other devices or without gradients; called again it adds none. Returns what
    takes the new ones off again.
    """
    handles = []
    for module in model.modules():
        of_the_kind = isinstance(module, _LAYERS) and overruns(module.weight, module.stride)
        if of_the_kind and _before not in module._forward_pre_hooks.values():
            handles.append(module.register_forward_pre_hook(_before, with_kwargs=True))
    return handles


def unguard_(model: nn.Module) -> None:
    """Take that off a network whose forwards are all without gradients."""
    for module in model.modules():
        for place, hook in list(module._forward_pre_hooks.items()):
            if hook is _before:
                del module._forward_pre_hooks[place], module._forward_pre_hooks_with_kwargs[place]


def _before(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    inputs, others = by_place(layer, args, kwargs)
    x = inputs[0]
    if not (isinstance(x, Tensor) and x.device.type == "cpu" and torch.is_grad_enabled()):
        return None
    for parameter in layer.parameters():
        # the layer's own, or the one that a parametrization makes its weight from
        # (`.data` is not touched for nothing: torch.export does not trace it)
        if parameter.ndim > 2 and not _is_plain(parameter):
            parameter.data = plain(parameter.data)
    return (plain(x), *inputs[1:]), others
