"""Losses on labels, from the logits of every time step, and how a prediction is read from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isofire.adapters import of_one_number
from isofire.errors import ModelError
from isofire.training.losses.base import Loss, register_loss
from isofire.training.step import Step


def readout(output: Tensor) -> Tensor:
    """Read one row of logits per image: the mean over time.

    Parameters
    ----------
    output
        `[T, N, classes]`, or `[N, classes]` of a model that has read out already.

    Returns
    -------
    Tensor
        `[N, classes]`.

    Raises
    ------
    ModelError
        If the output is no such tensor.

    Examples
    --------
    >>> readout(torch.tensor([[[1.0, 0.0]], [[3.0, 2.0]]]))
    tensor([[2., 1.]])
    """
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        got = f"a tensor of shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"a model must return logits [T, N, classes] or [N, classes], got {got}; wrap it so that it does"
        )
    return _full(output).mean(0) if output.ndim == 3 else output


def mean_logit(output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the logits averaged over time.

    Parameters
    ----------
    output
        `[T, N, classes]` or `[N, classes]`.
    labels
        `[N]`, int64.
    label_smoothing
        Probability mass spread evenly over all classes.

    Returns
    -------
    Tensor
        Scalar, mean over the batch, in nats; float32 if `output` is of half precision.
    """
    return F.cross_entropy(_full(readout(output)), labels, label_smoothing=label_smoothing)


def tet(output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every time step, averaged over time.

    Temporal efficient training, Deng et al., ICLR 2022 (arXiv 2202.11946), equation 10 (lambda = 0: without the
    pull of the logits to a constant). It is never below `mean_logit`, by Jensen's inequality.

    Parameters
    ----------
    output
        `[T, N, classes]`.
    labels
        `[N]`, int64.
    label_smoothing
        Probability mass spread evenly over all classes.

    Returns
    -------
    Tensor
        Scalar, mean over steps and batch, in nats; float32 if `output` is of half precision.

    Raises
    ------
    ModelError
        If `output` has no time axis.
    """
    if output.ndim != 3:
        raise ModelError(
            f"the loss 'tet' needs logits of every step [T, N, classes], got shape {list(output.shape)}; "
            "return them from the model or use the loss 'mean_logit'"
        )
    return F.cross_entropy(_full(output).flatten(0, 1), labels.repeat(output.shape[0]), label_smoothing=label_smoothing)


class MeanLogit(Loss, frozen=True, kw_only=True):
    """`mean_logit`, by the name "mean_logit"."""

    def __call__(self, step: Step) -> Tensor:
        return mean_logit(step.logits, step.labels, step.label_smoothing)


class TET(Loss, frozen=True, kw_only=True):
    """`tet`, by the name "tet"."""

    def __call__(self, step: Step) -> Tensor:
        return tet(step.logits, step.labels, step.label_smoothing)


def hits(output: Tensor, labels: Tensor) -> Tensor:
    """Count the images whose largest mean logit is at their label, as a scalar tensor on the same device."""
    return (readout(output).argmax(1) == labels).sum()


def check_classes(model: nn.Module, output: Tensor, classes: int) -> None:
    """Refuse logits of a model that leave a label without a place, before the device fails with less to say.

    Raises
    ------
    ModelError
        If the model gives fewer logits than `classes`.
    """
    if output.shape[-1] == 1 < classes:
        raise ModelError(f"labels reach {classes - 1}: {of_one_number(model)}")
    if output.shape[-1] < classes:
        raise ModelError(
            f"the model gives {output.shape[-1]} logits but the labels reach {classes - 1}; "
            f"build it with at least {classes} classes or use other data"
        )


def _full(output: Tensor) -> Tensor:
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output


register_loss("mean_logit", MeanLogit)
register_loss("tet", TET)
