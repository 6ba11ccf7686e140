"""Accuracy and loss of a model on a data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isofire.adapters import axis_by, from_rest, read_logits
from isofire.batches import Data, read_batches
from isofire.errors import DataError
from isofire.running import device_of, evaluating, forward, refuse_statistics_of_the_batch, require_finite
from isofire.training.distributed import Group, pick_device
from isofire.training.feed import AnySet, Feed
from isofire.training.losses import check_classes, hits, mean_logit
from isofire.training.records import Evaluation


def evaluate(
    model: nn.Module,
    data: AnySet | Data,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    *,
    precision: str = "float32",
    channels_last: bool = True,
) -> Evaluation:
    """Classify every sample once, in eval mode and without gradients; the modes are put back afterwards.

    Parameters
    ----------
    model
        Maps a batch to logits `[T, N, classes]` or `[N, classes]`, or as `isofire.firing.compare` takes them; run from
        rest. It is moved to `device`.
    data
        Any split, or inputs and labels as `isofire.compare` takes them.
    device
        `None` stays where the model's first parameter is.
    batch_size
        Samples per batch, unless the data come in batches.
    precision
        `"bf16"` runs the model under autocast.
    channels_last
        Memory layout of the batches.

    Returns
    -------
    Evaluation
        Prediction is the argmax of the mean over time; the loss is `mean_logit` without label smoothing.

    Raises
    ------
    ModelError
        If a weight is not finite, or the output is no logits, or too few.
    DataError
        If data are no images with labels, or a label is below 0.
    """
    require_finite(model)
    place = device_of(model) if device is None else pick_device(device)
    if not isinstance(data, AnySet):
        return _evaluate_batches(model.to(place), data, batch_size, precision, channels_last)
    feed = Feed(data, place, channels_last)
    return evaluate_feed(model.to(place), feed, batch_size, precision, Group(place))


def evaluate_feed(model: nn.Module, feed: Feed, batch_size: int, precision: str, group: Group) -> Evaluation:
    """Evaluate with the samples shared out among the processes of `group`; all of them get the same result."""
    exact = torch.float32 if group.device.type == "mps" else torch.float64
    sums = torch.zeros(2, dtype=exact, device=group.device)
    with torch.no_grad(), evaluating(model), from_rest(model):
        refuse_statistics_of_the_batch(model)
        for index in feed.place(torch.arange(group.rank, len(feed), group.world)).split(batch_size):
            sums += _sums(model, *feed.cut(index), classes=len(feed.data.classes), precision=precision).to(sums)
    loss, right = group.gather(sums).sum(0).tolist()
    return Evaluation(accuracy=right / len(feed), loss=loss / len(feed), n=len(feed))


def _evaluate_batches(model: nn.Module, data: Data, batch_size: int, precision: str, channels_last: bool) -> Evaluation:
    loss, right, n, device, axis = 0.0, 0.0, 0, device_of(model), axis_by(model)
    with torch.no_grad(), evaluating(model), from_rest(model):
        refuse_statistics_of_the_batch(model)
        for inputs, labels in read_batches(data, batch_size, axis=axis):
            classes, least = int(labels.max()) + 1, int(labels.min())
            if least < 0:
                raise DataError(f"labels must be 0 or more, got {least}; leave such samples out")
            given = inputs.to(device)
            if channels_last and given.ndim == 4 and axis(inputs, labels) == 0:
                given = given.contiguous(memory_format=torch.channels_last)
            sums = _sums(model, given, labels.to(device).long(), classes=classes, precision=precision).tolist()
            loss, right, n = loss + sums[0], right + sums[1], n + len(labels)
    return Evaluation(accuracy=right / n, loss=loss / n, n=n)


def _sums(model: nn.Module, inputs: Tensor, labels: Tensor, *, classes: int, precision: str) -> Tensor:
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16"):
        output = read_logits(model, forward(model, inputs), len(labels), inputs)
    check_classes(model, output, classes)
    return torch.stack([mean_logit(output, labels) * len(labels), hits(output, labels).float()])
