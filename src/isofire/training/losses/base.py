"""What a loss is, and the register of those known by name."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Any, get_args

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from isofire.conversion import NamedKeys, convert
from isofire.errors import IsofireError, SpecError
from isofire.registry import Registry
from isofire.training.step import Need, Step

Weight = Annotated[float, Meta(ge=0, le=1e6)]


class Loss(msgspec.Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A loss and its settings: a function from a `Step` to a scalar.

    A subclass adds settings as annotated fields, says in `asks` what it reads of a step, and computes in `__call__`.
    Settings are checked by their types; a subclass may check more in `__post_init__`.

    Parameters
    ----------
    weight
        Factor on the loss in the sum that is minimised.
    warmup_epochs
        The loss does not count, and nothing is run for it, for so many epochs; fractions are allowed.
    relative
        Multiply `weight` by the value that the task's loss has in the same step, taken as a constant. For losses
        without a unit: `weight` is then their exchange rate, whatever the task's loss has fallen to.

    Examples
    --------
    >>> class Quiet(Loss, frozen=True, kw_only=True):
    ...     def asks(self) -> frozenset[Need]:
    ...         return frozenset({"rates"})
    ...
    ...     def __call__(self, step):
    ...         return sum(rates.mean() for rates in step.rates.values())
    >>> register_loss("quiet", Quiet)
    >>> read_loss("quiet", {"weight": 0.5}).weight
    0.5
    >>> LOSSES.unregister("quiet")
    """

    weight: Weight = 1.0
    warmup_epochs: Weight = 0.0
    relative: bool = False

    def asks(self) -> frozenset[Need]:
        """What it reads of a step besides logits and labels; a set of the names in `isofire.training.Need`."""
        return frozenset()

    def __call__(self, step: Step) -> Tensor:
        """The loss of one step: a 0-d tensor of a floating type that carries gradient to the network in training."""
        raise NotImplementedError


def name_of(loss: Loss) -> str:
    """The name that a loss is registered under; of one that is not, the class's."""
    return next((name for name, kind in LOSSES.items() if kind is type(loss)), type(loss).__name__)


def _checked(name: str, thing: object) -> type[Loss]:
    if not (isinstance(thing, type) and issubclass(thing, Loss)):
        raise SpecError(f"the loss {name!r} must be a subclass of isofire.training.losses.Loss, got {thing!r}")
    return thing


LOSSES: Registry[type[Loss]] = Registry("loss", "isofire.losses", _checked)
"""Losses by name; see `register_loss`."""


def register_loss(name: str, loss: type[Loss]) -> None:
    """Make a loss known under `name`, for recipes: `loss = "name"` or `losses = { name = 0.5 }`.

    An installed package does the same by an entry point of the group `isofire.losses`.

    Raises
    ------
    SpecError
        If the name is taken or no identifier, or `loss` is no subclass of `Loss`.
    """
    LOSSES.register(name, loss)


def read_loss(name: str, settings: Any = None) -> Loss:
    """Make a loss from its name and its settings, a weight alone or a mapping.

    Raises
    ------
    SpecError
        If there is no such loss, or a setting is unknown or out of range; says which there are.

    Examples
    --------
    >>> read_loss("paired", 0.5) == read_loss("paired", {"weight": 0.5})
    True
    """
    kind = LOSSES[name]
    if settings is None:
        settings = {}
    elif isinstance(settings, int | float) and not isinstance(settings, bool):
        settings = {"weight": settings}
    if not isinstance(settings, Mapping):
        raise SpecError(f"the loss {name!r} takes a weight or a table of settings, got {settings!r}")
    loss = convert(dict(settings), kind, f"losses.{name}")
    _check_needs(name, loss)
    return loss


def value_of(name: str, loss: Loss, step: Step) -> Tensor:
    """A loss of a step of training, 0-d, and nothing else.

    Raises
    ------
    SpecError
        If the loss fails, gives no scalar, or one without gradient, which would leave training as it is.
    """
    told = f"the loss {name!r} ({_place(loss)})"
    try:
        value: Any = loss(step)
    except IsofireError:
        raise
    except Exception as error:
        # memory is not the loss's fault
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        raise SpecError(f"{told} failed: {type(error).__name__}: {error}; mend its __call__(self, step)") from error
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
        raise SpecError(f"{told} must give a tensor without dimensions, of a floating type, got {got}; take its mean")
    if torch.is_grad_enabled() and step.logits.requires_grad and not value.requires_grad:
        raise SpecError(
            f"{told} gives a value without gradient, which would not change training; compute it from the step's "
            "tensors, without detach(), item(), rounding or comparisons"
        )
    return value


def _check_needs(name: str, loss: Loss) -> None:
    told = f"asks() of the loss {name!r} ({_place(loss)})"
    try:
        needs: Any = loss.asks()
    except Exception as error:
        raise SpecError(f"{told} failed: {type(error).__name__}: {error}") from error
    known = get_args(Need)
    if not isinstance(needs, Set) or not needs <= set(known):
        wrong = next((need for need in needs if need not in known), needs) if isinstance(needs, Set) else needs
        raise SpecError(f"{told} must give a frozenset of {', '.join(map(repr, known))}, got {wrong!r}")


def _place(loss: Loss) -> str:
    return f"{type(loss).__module__}.{type(loss).__qualname__}"
