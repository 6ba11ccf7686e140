"""What a loss is, and the register of those known by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from torch import Tensor

from isofire.conversion import convert
from isofire.errors import SpecError
from isofire.registry import Registry
from isofire.training.step import Need, Step

Weight = Annotated[float, Meta(ge=0, le=1e6)]


class Loss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    ...     def asks(self):
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
        """What it reads of a step besides logits and labels."""
        return frozenset()

    def __call__(self, step: Step) -> Tensor:
        """The loss of one step, a scalar that carries gradient."""
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
    return convert(dict(settings), kind, f"losses.{name}")
