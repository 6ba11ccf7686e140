"""A library whose neurons isofire knows: is it in use, and which of a model's modules are its neurons."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from types import ModuleType

from torch import nn

from isofire.adapters.base import Adapter


class Framework(ABC):
    """Looks its library up in `sys.modules`: what the user has not imported, no model of theirs can use."""

    module: str
    """Name of the module whose presence says that the library is in use."""

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

    def adopt(self, model: nn.Module) -> None:
        """Make a deep copy known to the library, where building a neuron does more than making it."""
        return None

    def reset_others(self, model: nn.Module) -> None:
        """Bring to rest what else keeps a state between calls."""
        return None
