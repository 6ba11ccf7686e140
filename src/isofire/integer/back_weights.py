"""Recurrent weights in the unit of the membranes that they lead to: codes, and what one of them counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isofire.errors import ModelError
from isofire.integer.connection import Connection
from isofire.integer.stages import Stage
from isofire.quantizers.lattice import Codes, codes_of

_LEAST_FACTOR = 2**12
"""A code that counts fewer units is rounded too coarsely: weights are then rounded one by one."""


@dataclass(frozen=True)
class BackWeights:
    """What leads from a layer's spikes back to it in the next step.

    Parameters
    ----------
    weight
        float64 [out, out], in the float network's units.
    bias
        What it adds in every step, [out].
    found
        The codes of its levels.
    bits
        Of codes that are not exact.
    """

    weight: Tensor
    bias: Tensor
    found: Codes
    bits: int

    @classmethod
    def of(cls, stage: Stage, bits: int, notes: list[str]) -> BackWeights:
        """Of a stage that has them; notes get what is not exact.

        Raises
        ------
        ModelError
            If its neurons fire several spikes a step, so that what comes back has no bound.
        """
        layer, neuron = stage.back, stage.neuron
        assert layer is not None
        assert neuron is not None
        if neuron.dynamics.several:
            raise ModelError(
                f"the recurrent neurons {stage.target!r} fire any number of spikes a step, and what comes back to them "
                "has no bound; take several=False, or lower them onto a chip that has a largest number (hardware=...)"
            )
        found = codes_of(layer.weight, bits)
        if not found.exact:
            name = f"{stage.target}.weight"
            notes.append(f"weights of {name!r} are in full precision or on uneven levels: {bits} bits")
        weight = layer.weight.detach().double().cpu()
        bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.detach().double().cpu()
        return cls(weight, bias, found, bits)

    @property
    def reach(self) -> Tensor:
        """The largest that comes back to each neuron in a step, [out]."""
        return self.weight.abs().sum(1)

    @property
    def digits(self) -> int:
        """Binary digits that rounding a code's units costs, where every neuron has fired."""
        codes = self.found.codes.abs().sum(1) if self.found.exact else torch.tensor([self.weight.shape[1]])
        return int(codes.max()).bit_length()

    def connection(self, name: str, unit: Tensor) -> Connection:
        """The connection, for membranes that count in `unit` [out]."""
        units = self.found.step / unit
        if self.found.exact and float(units.min()) >= _LEAST_FACTOR:
            codes, factor = self.found.codes, units.round().to(torch.int64)
        else:
            most = self.weight.abs().amax(1) / unit / (2 ** (self.bits - 1) - 1)
            factor = 2 ** most.clamp(min=1.0).log2().ceil().to(torch.int64)
            codes = (self.weight / (unit * factor).view(-1, 1)).round().to(torch.int64)
        return Connection(sources=(name,), target=name, weight=codes, factor=factor, delay=1, step=unit * factor)
