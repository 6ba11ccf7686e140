"""A library whose neurons isofire knows: is it in use, and which of a model's modules are its neurons."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from isofire.adapters.base import Adapter
from isofire.errors import SpecError
from isofire.registry import Registry


class Framework(ABC):
    """Looks its library up in `sys.modules`: what the user has not imported, no model of theirs can use.

    The file of a framework imports nothing of its library either, since isofire imports the files of all.
    """

    title: str
    """Name of the library, as an error message writes it."""
    module: str
    """Name of the module whose presence says that the library is in use."""
    nir_writer: tuple[str, str] | None = None
    """Module and function of the library's own writer, which makes a NIR graph of a network and an example."""
    nir_writer_takes_one_image: bool = False
    """Whether that writer takes an example without the axis of images."""
    nir_writer_needs: str = ""
    """What that writer asks of a network, as a sentence's end for its errors."""

    def is_loaded(self) -> bool:
        """Whether the user has imported it."""
        return self.module in sys.modules

    @property
    def loaded(self) -> ModuleType:
        """The imported module."""
        return sys.modules[self.module]

    @abstractmethod
    def adapter_of(self, module: nn.Module) -> Adapter | None:
        """The adapter of one of the library's spiking neurons; None for every other module."""

    def nir_convention(self, neuron: nn.Module) -> Mapping[str, Any] | str:
        """What the neuron's step does that the node of `nir_writer` leaves open.

        Returns
        -------
        Mapping or str
            Fields of an `isofire.nir.Convention` under which the node runs here as the neuron does there; or in words
            why there is none.
        """
        return f"isofire does not know what {self.title}'s {type(neuron).__name__} does that the graph does not say"

    def adopt(self, model: nn.Module) -> None:
        """Make a deep copy known to the library, where building a neuron does more than making it."""
        return None

    def states_after(self, module: nn.Module, output: Any) -> tuple[Tensor, ...] | None:
        """What a layer that does not spike keeps for the next step after a call that gave `output`, for all images
        together; empty where `output` is None and tells nothing, None for a layer that keeps nothing."""
        return None

    def reset_others(self, model: nn.Module) -> None:
        """Bring to rest what else keeps a state between calls."""
        return None


def _fit(name: str, thing: object) -> Framework:
    if not isinstance(thing, Framework):
        given = thing.__name__ if isinstance(thing, type) else type(thing).__name__
        raise SpecError(
            f"the framework {name!r} must be an object of a subclass of isofire.adapters.Framework, got {given}"
        )
    for attribute in ("title", "module"):
        if not isinstance(getattr(thing, attribute, None), str):
            raise SpecError(f"the framework {name!r} ({type(thing).__name__}) must set `{attribute}`, a string")
    return thing


FRAMEWORKS: Registry[Framework] = Registry("framework", "isofire.frameworks", _fit)
"""Libraries by name; an installed package adds its own through the entry-point group `isofire.frameworks`."""


def register_framework(name: str, framework: Framework) -> None:
    """Let isofire know the neurons of a library.

    A package that is installed does this with an entry point instead: group `isofire.frameworks`, `name =
    "package.module:OBJECT"`. For single classes of your own, `isofire.adapters.register` is enough.

    Raises
    ------
    SpecError
        If the name is taken, or `framework` no object of a subclass of `Framework` with a `title` and a `module`.
    """
    FRAMEWORKS.register(name, framework)


def loaded_frameworks() -> list[Framework]:
    """Those whose library the user has imported."""
    return [framework for framework in FRAMEWORKS.values() if framework.is_loaded()]
