"""In which module a forward pass is, as hooks on the modules tell."""

from __future__ import annotations

from typing import Any

from torch import nn

from isofire.running import OfOnePass, tensors_in


class Position(OfOnePass):
    """The modules that have been entered and not left.

    Parameters
    ----------
    model
        The network whose modules they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = {id(module): name for name, module in model.named_modules()}
        self.clear()

    def clear(self) -> None:
        """Before a pass."""
        self._neurons: list[str] = []
        self._modules: list[str] = []
        self._leads: list[tuple[int, ...]] = []

    @property
    def module(self) -> str:
        """The innermost module's name; "" outside of all."""
        return self._modules[-1] if self._modules else ""

    @property
    def neuron(self) -> str | None:
        """The layer of neurons that the pass is in, "" for a network that is one; None outside."""
        return self._neurons[-1] if self._neurons else None

    @property
    def lead(self) -> tuple[int, ...]:
        """Shape of what the innermost module was given; () where its axes may be turned before they are multiplied."""
        return self._leads[-1] if self._leads else ()

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook of any module but neurons."""
        # one that the forward made or copied stands for where it does so
        self._modules.append(self._names.get(id(module), self.module))
        first = next(iter(tensors_in(args, kwargs)), None)
        # what holds other modules, and attention and recurrent layers, turn axes before they multiply
        hidden = module is self._model or isinstance(module, nn.RNNBase) or any(True for _ in module.children())
        self._leads.append(() if hidden or first is None else tuple(first.shape))

    def leave(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        """The forward hook to it."""
        self._modules.pop()
        self._leads.pop()

    def enter_neuron(self, name: str) -> None:
        """A layer of neurons is called."""
        self._neurons.append(name)
        self._modules.append(name)
        self._leads.append(())

    def leave_neuron(self) -> None:
        """It has given its spikes."""
        for stack in (self._neurons, self._modules, self._leads):
            stack.pop()
