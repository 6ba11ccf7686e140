"""Batch normalization statistics measured again, for weights that changed after training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.adapters import batch_first, from_rest
from isofire.errors import DataError
from isofire.running import evaluating, forward


def reestimate_batch_norm(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, device: torch.device | str | None = None
) -> int:
    """Replace the running statistics of every batch normalization by the mean over `batches`.

    Only those layers run in train mode; dropout, quantizers and neurons stay in eval mode. All layers are measured in
    one pass, so a later layer sees its input as the earlier ones normalize it with the statistics of the batch at hand.
    Each image counts the same, and so does each call of a layer that is called once a step; the variance is the mean of
    the variances within the calls, so let batches be large. Modes and momenta are put back; layers without running
    statistics are left alone.

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
        If `batches` is empty. Whatever fails, the former statistics are put back.

    Examples
    --------
    >>> bn = nn.BatchNorm1d(1)
    >>> reestimate_batch_norm(bn, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])]), bn.running_mean
    (1, tensor([4.]))
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return 0
    feed = iter(batches)
    first = next(feed, None)
    if first is None:
        raise DataError("batch normalization needs at least one batch to be measured on, got none; give some images")
    image_axis = 0 if batch_first(model) else 1
    with torch.no_grad(), evaluating(model), from_rest(model), _measuring(layers), ExitStack() as hooks:
        seen = 0
        for batch in chain([first], feed):
            inputs = batch if isinstance(batch, Tensor) else batch[0]
            inputs = inputs if device is None else inputs.to(device)
            images = inputs.shape[image_axis if inputs.ndim == 5 else 0]
            seen += images
            for layer in layers:
                # the running mean over all images so far, each counting the same
                layer.momentum = images / seen
            forward(model, inputs)
            if images == seen and (repeated := [layer for layer in layers if _calls(layer) > 1]):
                for layer in repeated:
                    hooks.callback(layer.register_forward_pre_hook(_MeanOfCalls()).remove)
                    layer.reset_running_stats()
                for layer in layers:
                    layer.momentum = 1.0
                forward(model, inputs)
        for layer in layers:
            if not all(bool(torch.isfinite(buffer).all()) for buffer in layer.buffers(recurse=False)):
                raise DataError(
                    "batch normalization was measured as NaN or infinite; look for such values in the images"
                )
    return len(layers)


class _MeanOfCalls:
    """Before each call of a layer, the momentum that makes its statistics the mean over all values so far."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        count = inputs[0].numel()
        self.seen += count
        layer.momentum = count / self.seen


def _calls(layer: _BatchNorm) -> int:
    return 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)


@contextmanager
def _measuring(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    momenta = [layer.momentum for layer in layers]
    former = [[buffer.clone() for buffer in layer.buffers(recurse=False)] for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.training = True
    try:
        yield
    except BaseException:
        for layer, buffers in zip(layers, former, strict=True):
            for buffer, value in zip(layer.buffers(recurse=False), buffers, strict=True):
                buffer.copy_(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
