"""Batch normalization statistics measured again, for weights that changed after training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.adapters import from_rest, input_axis
from isofire.errors import DataError
from isofire.running import by_place, evaluating, forward

_LOG = logging.getLogger(__name__)


def reestimate_batch_norm(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, device: torch.device | str | None = None
) -> int:
    """Replace the running statistics of every batch normalization by those over `batches`.

    Only those layers run in train mode; dropout, quantizers and neurons stay in eval mode. All layers are measured in
    one pass, so a later layer sees its input as the earlier ones normalize it with the statistics of the batch at hand:
    let batches be large and shuffled.
    Each value that a layer is given counts the same, whichever batch or call brings it, so that a norm that only some
    images or steps reach has the mean and the variance of those. Modes and momenta are put back. Layers without running
    statistics are left alone, and so are, with a warning, those that no image reaches, as an auxiliary head or the norm
    of a later step than the network has. Running statistics of other norms (`nn.InstanceNorm2d`, one of your own)
    stay as they are, with a warning.

    Parameters
    ----------
    model
        The network, modified in place.
    batches
        Inputs as the model takes them, or pairs of them and labels, such as `ImageSet.batches`.
    device
        Where to move the inputs; `None` leaves them.

    Returns
    -------
    int
        Number of layers measured; 0, and nothing runs, if the model has none.

    Raises
    ------
    DataError
        If `batches` is empty, or holds one value a channel for a norm. Whatever fails, the former statistics are put
        back.

    Examples
    --------
    >>> bn = nn.BatchNorm1d(1)
    >>> reestimate_batch_norm(bn, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])]), bn.running_mean
    (1, tensor([4.]))
    """
    named = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    layers = list(named.values())
    others = [name for name, m in model.named_modules() if name not in named and _has_statistics(m)]
    if others:
        _LOG.warning(
            "running statistics of norms that are no batch norms of torch stay as they are: %s", ", ".join(others)
        )
    if not layers:
        return 0
    feed = _moved(batches, device)
    first = next(feed, None)
    if first is None:
        raise DataError("batch normalization needs at least one batch to be measured on, got none; give some images")
    feed = _without_single_images(chain([first], feed), input_axis(model, first))
    with torch.no_grad(), evaluating(model), from_rest(model), _measuring(layers) as called, ExitStack() as hooks:
        for name, layer in named.items():
            calls = _AllCalls(name, layer)
            hooks.callback(layer.register_forward_pre_hook(calls.before, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(calls.after, with_kwargs=True).remove)
        for inputs in feed:
            forward(model, inputs)
        for layer in layers:
            if not all(bool(torch.isfinite(buffer).all()) for buffer in layer.buffers(recurse=False)):
                raise DataError(
                    "batch normalization was measured as NaN or infinite; look for such values in the images"
                )
    left = [name for name, layer in named.items() if layer not in called]
    if left:
        _LOG.warning("batch norms that no image reaches keep their statistics: %s", ", ".join(left))
    return len(called)


def _has_statistics(module: nn.Module) -> bool:
    """Whether it is called a norm's by its buffer, as an instance norm's or that of a norm of the user's own."""
    return isinstance(getattr(module, "running_mean", None), Tensor)


def _moved(batches: Iterable[Tensor | Sequence[Tensor]], device: torch.device | str | None) -> Iterator[Tensor]:
    for batch in batches:
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        yield inputs if device is None else inputs.to(device)


def _without_single_images(feed: Iterator[Tensor], axis: int) -> Iterator[Tensor]:
    """A last batch of one image joins the one before: a norm over images has no variance over one."""
    waiting: Tensor | None = None
    for inputs in feed:
        alike = waiting is not None and _but(axis, waiting) == _but(axis, inputs)
        if waiting is not None and alike and inputs.shape[axis] == 1:
            waiting = torch.cat([waiting, inputs], axis)
            continue
        if waiting is not None:
            yield waiting
        waiting = inputs
    if waiting is not None:
        yield waiting


def _but(axis: int, inputs: Tensor) -> list[int]:
    """Its shape, with that axis left out."""
    return [size for place, size in enumerate(inputs.shape) if place != axis]


class _AllCalls:
    """Around each call of a layer: makes its statistics those of all values so far, as if one call had brought them."""

    def __init__(self, name: str, layer: _BatchNorm) -> None:
        self.name, self.seen = name, 0
        self.mean, self.variance = (buffer.clone() for buffer in _statistics(layer))

    def before(self, layer: _BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs, _ = by_place(layer, args, kwargs)
        if inputs[0].numel() == layer.num_features:
            raise DataError(
                f"the batch norm {self.name!r} cannot be measured on one value a channel, got inputs "
                f"{list(inputs[0].shape)}; give more images, or set reestimate_bn = 'never'"
            )
        # the buffers get those of this call alone
        layer.momentum = 1.0

    def after(self, layer: _BatchNorm, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Tensor) -> None:
        inputs, _ = by_place(layer, args, kwargs)
        count = inputs[0].numel() // layer.num_features
        former, self.seen = self.seen, self.seen + count
        mean, variance = _statistics(layer)
        if former:
            # Chan, Golub and LeVeque 1979
            apart = (mean - self.mean) ** 2 * (former * count / self.seen)
            variance.mul_(count - 1).add_((former - 1) * self.variance).add_(apart).div_(self.seen - 1)
            mean.lerp_(self.mean, former / self.seen)
        self.mean, self.variance = mean.clone(), variance.clone()


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


def _calls(layer: _BatchNorm) -> int:
    return 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)


@contextmanager
def _measuring(layers: Sequence[_BatchNorm]) -> Iterator[list[_BatchNorm]]:
    """Norms in train mode from no statistics on; those that are never called, or all if something fails, get their
    former statistics back. Gives a list that holds, at the end, those that were called."""
    momenta = [layer.momentum for layer in layers]
    former = [[buffer.clone() for buffer in layer.buffers(recurse=False)] for layer in layers]
    called: list[_BatchNorm] = []
    for layer in layers:
        layer.reset_running_stats()
        layer.training = True
    failed = True
    try:
        yield called
        failed = False
    finally:
        for layer, buffers, momentum in zip(layers, former, momenta, strict=True):
            if failed or (layer.num_batches_tracked is not None and not _calls(layer)):
                for buffer, value in zip(layer.buffers(recurse=False), buffers, strict=True):
                    buffer.copy_(value)
            else:
                called.append(layer)
            layer.momentum = momentum
