"""Which axis of a network's inputs holds the images: decided here, from the network and the data, for all callers.

Where the number of images is known and only one axis is as long, it is that one. Else the network is run on parts of
its inputs, with one axis made twice as long and the others left: the neurons see twice as many images if that axis
holds them, and twice as many steps, or an error, if it does not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from isofire.adapters.base import Adapter
from isofire.adapters.compiled import original
from isofire.adapters.registry import batch_first, find_neurons, from_rest, heard
from isofire.errors import DataError
from isofire.quantizers import RangeObserver
from isofire.running import device_of, evaluating, forked, forward

_KNOWN: WeakKeyDictionary[nn.Module, dict[int, int]] = WeakKeyDictionary()
"""Network -> number of axes of its inputs -> the one that holds the images."""
_MOST = 64
"""How long the other axis may be in a first try."""


def input_axis(model: nn.Module, inputs: Tensor, images: int | None = None) -> int:
    """0 for inputs [N, ...], also [N, T, ...] of batch-first networks; 1 for frames [T, N, ...].

    Parameters
    ----------
    images
        N, where labels or the like tell it.

    Raises
    ------
    DataError
        If no axis is as long as `images`, none can be told from the others, or there is no image.
    ModelError
        If the network fails on the inputs.
    """
    fits = [axis for axis in range(min(2, inputs.ndim)) if images is None or inputs.shape[axis] == images]
    if not fits:
        raise DataError(f"inputs must hold {images} images on their first or second axis, got {list(inputs.shape)}")
    if not inputs.numel():
        raise DataError(f"data must hold at least one image, got inputs {list(inputs.shape)}")
    net = original(model)
    known = _KNOWN.setdefault(net, {})
    if len(fits) > 1:
        fits = [known[inputs.ndim] if inputs.ndim in known else _probed(net, inputs)]
    known[inputs.ndim] = fits[0]
    return fits[0]


def axis_by(model: nn.Module) -> Callable[[Tensor, Tensor], int]:
    """`input_axis` of a model, for inputs and their labels."""
    return lambda inputs, labels: input_axis(model, inputs, len(labels))


def _probed(net: nn.Module, inputs: Tensor) -> int:
    neurons = find_neurons(net)
    if not neurons:
        return 0
    built = {size for neuron, kind in neurons.values() if (size := kind.batch_size(neuron))}
    if len(sized := [axis for axis in (0, 1) if inputs.shape[axis] in built]) == 1:
        # neurons that were built for so many images take no other number, so that there is nothing to probe
        return sized[0]
    unit = max(built, default=1)
    place = device_of(net, inputs.device)
    for limit in (_MOST, max(inputs.shape[:2])):
        found = []
        for axis in (0, 1):
            other = inputs.narrow(1 - axis, 0, min(max(limit, unit), inputs.shape[1 - axis]))
            counts = [_images_seen(net, neurons, _resized(other, axis, size).to(place)) for size in (2 * unit, unit)]
            if counts[0] is not None and counts[1] and counts[0] == 2 * counts[1]:
                found.append(axis)
        if len(found) == 1 or (found and batch_first(net)):
            # squeezed rows [N * T, ...] of a batch-first network are more whichever of both is longer
            return found[0]
        if found:
            raise DataError(
                f"cannot tell which axis of inputs {list(inputs.shape)} holds the images of {type(net).__name__}: its "
                "neurons see more images whichever is longer, as if tokens or steps were folded into the batch; give "
                "them with their labels, (inputs, labels)"
            )
    # where it fails on all of them, the network's own error says more
    with evaluating(net), from_rest(net), torch.no_grad(), heard(neurons, lambda *_: None):
        forward(net, inputs.to(place))
    raise DataError(
        f"cannot tell which axis of inputs {list(inputs.shape)} holds the images of {type(net).__name__}; give them "
        "with their labels, and another number of images than of steps"
    )


def _resized(inputs: Tensor, axis: int, size: int) -> Tensor:
    """Repeated or cut to `size` along an axis."""
    return inputs.index_select(axis, torch.arange(size, device=inputs.device) % inputs.shape[axis])


def _images_seen(net: nn.Module, neurons: dict[str, tuple[nn.Module, Adapter]], inputs: Tensor) -> int | None:
    """How many images the first neuron that runs is given; None if the network does not take such inputs."""
    seen: list[int] = []

    def note(_name: str, spikes: Any) -> None:
        if isinstance(spikes, Tensor) and spikes.ndim > 1:
            seen.append(spikes.shape[1])

    membranes = [found for neuron, adapter in neurons.values() if (found := adapter.membrane(neuron)) is not None]
    kept = [membrane.observer for membrane in membranes]
    with unheard(net), evaluating(net), from_rest(net), torch.no_grad(), forked(inputs.device), heard(neurons, note):
        for membrane in membranes:
            # a membrane that is not calibrated yet, or is being calibrated, passes states on
            membrane.observer = RangeObserver(membrane.quantizer.granularity, channel_axis=1)
        try:
            net(inputs)
        except Exception:
            # whatever a stranger's network raises says the same: not these inputs
            return None
        finally:
            for membrane, observer in zip(membranes, kept, strict=True):
                membrane.observer = observer
    return seen[0] if seen else None


@contextmanager
def unheard(net: nn.Module) -> Iterator[None]:
    """Nobody who listens to the network's modules hears of a probe."""
    kept = [(module, module._forward_hooks) for module in net.modules()]
    for module, _ in kept:
        module._forward_hooks = OrderedDict()
    try:
        yield
    finally:
        for module, hooks in kept:
            module._forward_hooks = hooks
