"""Neurons whose own spikes of the step before come back to them through weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isofire.errors import ModelError, SpecError
from isofire.neurons import reference
from isofire.neurons.base import Neuron
from isofire.neurons.dynamics import State
from isofire.neurons.fold import apply_per_step


class Recurrent(Neuron):
    """A layer of neurons with recurrent connections: X_t + weight(S_{t-1}) charges them, S_{-1} = 0.

    Parameters
    ----------
    cell
        The neurons; their own class says what a step does.
    weight
        From their spikes [N, ...] to inputs of the same shape, such as `nn.Linear`.

    Steps depend on each other, so that the reference alone runs them. Recorders, membrane quantizers and rules know the
    layer by its own name; its weights are those of `weight`, a layer like others.

    Examples
    --------
    >>> import torch
    >>> from isofire.neurons import IF
    >>> weight = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(weight.weight, -1.0)
    >>> Recurrent(IF(), weight)(torch.ones(4, 1, 1)).flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, cell: Neuron, weight: nn.Module) -> None:
        if not isinstance(cell, Neuron) or not isinstance(weight, nn.Module):
            raise SpecError(
                "Recurrent takes neurons of isofire's, then the layer from their spikes to their inputs, as in "
                f"Recurrent(LIF(), nn.Linear(8, 8)); got {type(cell).__name__}, {type(weight).__name__}"
            )
        if cell.membrane is not None or isinstance(cell, Recurrent):
            raise ModelError("a recurrent layer takes plain neurons; quantize its membrane after it is built")
        super().__init__(cell.dynamics)
        self.cell, self.weight = cell, weight
        self.register_load_state_dict_post_hook(_take_constants)

    def tensors(self) -> State:
        return self.cell.tensors()

    @property
    def threshold(self) -> Tensor:
        return self.cell.threshold

    def decays(self) -> dict[str, Tensor]:
        return self.cell.decays()

    def round_decays_(self, rounded: Callable[[str, Tensor], Tensor]) -> None:
        self.cell.round_decays_(rounded)
        _take_constants(self)

    def response(self) -> Tensor | None:
        return self.cell.response()

    def set_threshold_(self, threshold: Tensor) -> None:
        self.cell.set_threshold_(threshold)
        _take_constants(self)

    def _fire(self, x: Tensor, norm: _BatchNorm | None, repeat: int | None, steps: int) -> Tensor:
        if norm is not None:
            x = norm(x) if repeat is not None else apply_per_step(norm, x)
        if repeat is not None:
            x = x.unsqueeze(0).expand(steps, *x.shape)
        return reference.run(self.dynamics, x, self.tensors(), self.membrane, self._feedback())

    def _feedback(self) -> Callable[[Tensor], Tensor]:
        return self._back

    def _back(self, spikes: Tensor) -> Tensor:
        back = self.weight(spikes)
        if back.shape != spikes.shape:
            raise ModelError(
                f"recurrent weights must give one input to each neuron, got {list(back.shape)} for {list(spikes.shape)}"
            )
        return back

    def extra_repr(self) -> str:
        return ""


def _take_constants(layer: Recurrent, _keys: object = None) -> None:
    """Have the layer know the constants of its cell, which a state dict may have changed."""
    layer.dynamics = layer.cell.dynamics
