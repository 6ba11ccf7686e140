"""Running statistics of norms measured again, for weights that changed after training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from isofire.adapters import from_rest, input_axis
from isofire.errors import DataError
from isofire.running import OfOnePass, by_place, evaluating, forward, statistics_of

_LOG = logging.getLogger(__name__)
_NOTHING = 1e-6
"""Share of a variance that is none of it."""


def reestimate_batch_norm(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, device: torch.device | str | None = None
) -> int:
    """Replace the running statistics of every batch normalization, and instance normalization that has some, by those
    over `batches`.

    Only those layers run in train mode; dropout, quantizers and neurons stay in eval mode. All layers are measured in
    one pass, as in training, so a later layer sees its input as the earlier ones normalize it with the statistics of
    the batch and call at hand, not with those of all: let batches be large and shuffled. Of 1,024 images in batches of
    128 that changes a variance by less than other images would; in batches of 8, or sorted ones, by more.
    Each value that a layer is given counts the same, whichever batch or call brings it, so that a norm that only some
    images or steps reach, or one at several places, has the mean and the variance of those. An instance norm has the
    means of its images' means and variances. Modes and momenta are put back. Layers without running statistics are left
    alone, and so are, with a warning, those that no image reaches, as an auxiliary head or the norm of a later step
    than the network has. Running statistics of norms of one's own stay as they are, with a warning.

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
        If `batches` is empty, or holds one value a channel for a norm (an instance norm: a channel of an image).
        Whatever fails, the former statistics are put back.

    Examples
    --------
    >>> bn = nn.BatchNorm1d(1)
    >>> reestimate_batch_norm(bn, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])]), bn.running_mean
    (1, tensor([4.]))
    """
    named = statistics_of(model)
    others = [name for name, m in model.named_modules() if name not in named and _has_statistics(m)]
    if others:
        _LOG.warning("running statistics of norms that are none of torch's stay as they are: %s", ", ".join(others))
    if not named:
        return 0
    feed = _moved(batches, device)
    first = next(feed, None)
    if first is None:
        raise DataError("batch normalization needs at least one batch to be measured on, got none; give some images")
    feed = _without_single_images(chain([first], feed), input_axis(model, first))
    measured = [_AllCalls(name, layer) for name, layer in named.items()]
    with torch.no_grad(), evaluating(model), from_rest(model), _measuring(measured):
        for inputs in feed:
            forward(model, inputs)
        for calls in measured:
            if not all(bool(torch.isfinite(buffer).all()) for buffer in calls.layer.buffers(recurse=False)):
                raise DataError(
                    "batch normalization was measured as NaN or infinite; look for such values in the images"
                )
    left = [calls.name for calls in measured if not calls.seen]
    if left:
        _LOG.warning("batch norms that no image reaches keep their statistics: %s", ", ".join(left))
    if still := [told for calls in measured if (told := calls.still())]:
        _LOG.warning(
            "norms that found one value alone in channels that varied before: %s. That comes of one image, or of a "
            "silent layer, and what then varies on other images is blown up: calibrate on more, or set reestimate_bn "
            "= 'never'. Or of weights that are all 0, which more bits or levels for each channel prevent",
            "; ".join(still),
        )
    return len(measured) - len(left)


def _has_statistics(module: nn.Module) -> bool:
    """Whether it is called a norm's by its buffer, as that of a norm of the user's own."""
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


class _AllCalls(OfOnePass):
    """Around each call of a layer: makes its statistics those of all values so far, as if one call had brought them."""

    def __init__(self, name: str, layer: _NormBase) -> None:
        self.name, self.layer, self.seen = name, layer, 0
        self.mean, self.variance = (buffer.clone() for buffer in _statistics(layer))
        self._former = self.variance

    def before(self, layer: _NormBase, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs, _ = by_place(layer, args, kwargs)
        if inputs[0].numel() == layer.num_features * (1 if isinstance(layer, _BatchNorm) else self._count(inputs[0])):
            raise DataError(
                f"the norm {self.name!r} cannot be measured on one value a channel, got inputs "
                f"{list(inputs[0].shape)}; give more images, or set reestimate_bn = 'never'"
            )
        # the buffers get those of this call alone
        layer.momentum = 1.0

    def after(self, layer: _NormBase, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Tensor) -> None:
        inputs, _ = by_place(layer, args, kwargs)
        count = self._count(inputs[0])
        former, self.seen = self.seen, self.seen + count
        mean, variance = _statistics(layer)
        if former and isinstance(layer, _BatchNorm):
            # Chan, Golub and LeVeque 1979
            apart = (mean - self.mean) ** 2 * (former * count / self.seen)
            variance.mul_(count - 1).add_((former - 1) * self.variance).add_(apart).div_(self.seen - 1)
        elif former:
            variance.lerp_(self.variance, former / self.seen)
        if former:
            mean.lerp_(self.mean, former / self.seen)
        self.mean, self.variance = mean.clone(), variance.clone()

    def still(self) -> str | None:
        """How many channels have no variance although they had one; None if none has."""
        # rounding leaves some of a value that comes again
        same = (
            (self.variance <= _NOTHING * self._former)
            & (self.variance < self.layer.eps)
            & (self._former > self.layer.eps)
        )
        return f"{self.name!r} ({int(same.sum())} of {len(same)})" if self.seen and bool(same.any()) else None

    def _count(self, x: Tensor) -> int:
        """How many values of a channel a call brings; of an instance norm, how many images."""
        if isinstance(self.layer, _BatchNorm):
            return x.numel() // self.layer.num_features
        alone = isinstance(self.layer, _InstanceNorm) and x.ndim == self.layer._get_no_batch_dim()
        return 1 if alone else x.shape[0]


def _statistics(layer: _NormBase) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


@contextmanager
def _measuring(measured: Sequence[_AllCalls]) -> Iterator[None]:
    """Norms in train mode from no statistics on; those that are never called, or all if something fails, get their
    former statistics back."""
    momenta = [calls.layer.momentum for calls in measured]
    former = [[buffer.clone() for buffer in calls.layer.buffers(recurse=False)] for calls in measured]
    failed = True
    with ExitStack() as hooks:
        for calls in measured:
            calls.layer.reset_running_stats()
            calls.layer.training = True
            hooks.callback(calls.layer.register_forward_pre_hook(calls.before, with_kwargs=True).remove)
            hooks.callback(calls.layer.register_forward_hook(calls.after, with_kwargs=True).remove)
        try:
            yield
            failed = False
        finally:
            for calls, buffers, momentum in zip(measured, former, momenta, strict=True):
                if failed or not calls.seen:
                    for buffer, value in zip(calls.layer.buffers(recurse=False), buffers, strict=True):
                        buffer.copy_(value)
                calls.layer.momentum = momentum
