"""Weights and membrane states in the bits that they take on a chip, not in those of the tensors that simulate them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from isofire.adapters import refuse_integers
from isofire.firing.record import spiking_adapters
from isofire.quantization import make_plan, spec_of
from isofire.quantization.on_levels import require_levels
from isofire.quantization.temporal import TemporalLayer
from isofire.quantizers import Setting, WeightSetting
from isofire.running import in_common, statistics_of
from isofire.spec import CONSTANT_TARGETS

Weighted = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | TemporalLayer
FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class WeightMemory:
    """One weighted layer.

    Parameters
    ----------
    weights, bits
        Number of stored weights (with a time axis: of all steps) and bits of each.
    table_bits
        What the quantizer needs beside the codes: steps, offsets or bases, 32 bits each.
    bias_bits
        Of its bias, at its bits (32 in full precision) and with its step; 0 where a layer before it stores the same.
    nonzero
        Share of weights that are not 0.
    stored_in
        Name of the layer in which the same weights are stored already; None for a layer with weights of its own.
    shared
        How many of its weights layers before it store, where it has others beside them.
    """

    weights: int
    bits: int
    table_bits: int
    bias_bits: int
    nonzero: float
    stored_in: str | None = None
    shared: int = 0

    @property
    def total(self) -> int:
        """Bits in all; of weights that another layer stores, none."""
        own = (self.weights - self.shared) * self.bits + self.table_bits if self.stored_in is None else 0
        return own + self.bias_bits


@dataclass(frozen=True, kw_only=True)
class StateMemory:
    """The states of one layer of neurons, or of one that does not spike.

    Parameters
    ----------
    neurons, bits
        Their number, and bits of each one's membrane; of a layer that does not spike, of its first state.
    others
        States of each neuron beside the membrane, such as synaptic currents, 32 bits each: nothing quantizes them.
    """

    neurons: int
    bits: int
    others: int = 0

    @property
    def total(self) -> int:
        """Bits in all."""
        return self.neurons * (self.bits + self.others * FLOAT_BITS)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a network keeps.

    Parameters
    ----------
    weights, states
        By layer. Weights are those of convolutions and linear layers, and every other parameter of two and more axes
        (attention, recurrent weights, a class of one's own), at 32 bits as far as nothing quantizes it. So are weights
        that are no parameters, where a forward pass has shown them.
    norm_bits
        Batch norms, and other norms with running statistics, folded into one factor and one offset of 32 bits a
        channel.
    other_bits
        Parameters of one axis that are no bias of a layer in `weights` and no batch norm: 32 bits each.
    """

    weights: Mapping[str, WeightMemory]
    states: Mapping[str, StateMemory]
    norm_bits: int
    other_bits: int = 0

    @property
    def weight_bits(self) -> int:
        """Weights, tables, biases, norms and all other parameters."""
        return sum(layer.total for layer in self.weights.values()) + self.norm_bits + self.other_bits

    @property
    def state_bits(self) -> int:
        """Membranes, what else neurons keep, and the states of layers that do not spike."""
        return sum(layer.total for layer in self.states.values())


def memory_of(
    model: nn.Module,
    neurons: Mapping[str, int],
    kept: Mapping[str, Sequence[int]] | None = None,
    fixed: Mapping[str, Mapping[Any, tuple[int, int]]] | None = None,
) -> Memory:
    """Memory of a full-precision, prepared or quantized model, for one image at a time.

    Parameters
    ----------
    neurons
        Layer of neurons -> their number, which depends on the size of the images.
    kept
        Layer that keeps states but does not spike -> numbers in each; see `isofire.adapters.find_keepers`.
    fixed
        Place with weights that are no parameters (buffers, tensors of the model's own), which only a forward pass tells
        from other buffers -> shape -> their number, and that of those that are not 0.

    Raises
    ------
    ModelError
        If its weights or biases were changed since they were quantized: they take more bits than its spec says.
    """
    refuse_integers(model)
    require_levels(model)
    spec = spec_of(model)
    plan = () if spec is None else make_plan(model, spec).choices
    choices = {choice.name: choice.setting for choice in plan if choice.target not in CONSTANT_TARGETS}
    biases = {choice.name: choice.setting for choice in plan if choice.target == "biases"}
    stored = _Stored()
    weights = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, Weighted):
            continue
        weight, setting = layer.weight.detach(), choices.get(name)
        assert setting is None or isinstance(setting, WeightSetting)
        steps = None if setting is None else setting.time_steps
        channels = weight.shape[0 if steps is None else 1]
        weights[name] = WeightMemory(
            weights=weight.numel(),
            bits=_bits(setting),
            table_bits=0 if setting is None else FLOAT_BITS * setting.table_numbers(setting.groups(channels)),
            bias_bits=_bias_bits(biases.get(name), _own_biases(layer, stored)),
            nonzero=float((weight != 0).double().mean()),
            **stored.put(name, _held(layer, "weight"), weight.numel()),
        )
    batch_norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    norms = list(dict.fromkeys([*batch_norms, *statistics_of(model).values()]))
    others, vectors = _others(model, weights, norms, stored)
    for name, shapes in (fixed or {}).items():
        place = f"{name} (fixed)" if name in weights | others else name
        others[place] = _fixed(*map(sum, zip(*shapes.values(), strict=True)))
    found = spiking_adapters(model) if neurons else {}
    states = {
        name: StateMemory(
            neurons=count,
            bits=_bits(choices.get(name)),
            others=len(found[name][1].states(found[name][0])) - 1,
        )
        for name, count in neurons.items()
    }
    return Memory(
        weights=weights | others,
        states=states | {name: _kept(sizes) for name, sizes in (kept or {}).items()},
        norm_bits=2 * FLOAT_BITS * sum(norm.num_features for norm in norms),
        other_bits=FLOAT_BITS * vectors,
    )


def _others(
    model: nn.Module, layers: Mapping[str, WeightMemory], norms: Sequence[_NormBase], stored: _Stored
) -> tuple[dict[str, WeightMemory], int]:
    """Parameters that belong to no convolution, linear layer or batch norm: those with axes by name, and how many
    numbers the rest holds."""
    # what a subclass holds beside the weights and the bias of its kind is stored too (low-rank additions, gates)
    kinds = [*norms, *map(model.get_submodule, layers)]
    counted = {id(item) for layer in kinds for which in ("weight", "bias")
               for item in _held(layer, which, with_tables=True)}  # fmt: skip
    found, vectors = {}, 0
    for name, parameter in model.named_parameters():
        owner, _, own = name.rpartition(".")
        if id(parameter) in counted:
            continue
        if parameter.ndim < 2:
            vectors += parameter.numel() - stored.put(name, [parameter], parameter.numel())["shared"]
            continue
        place = owner if own == "weight" and owner else name
        found[place] = WeightMemory(
            weights=parameter.numel(),
            bits=FLOAT_BITS,
            table_bits=0,
            bias_bits=0,
            nonzero=float((parameter.detach() != 0).double().mean()),
            **stored.put(place, [parameter], parameter.numel()),
        )
    return found, vectors


def _fixed(count: int, nonzero: int) -> WeightMemory:
    return WeightMemory(weights=count, bits=FLOAT_BITS, table_bits=0, bias_bits=0, nonzero=nonzero / count)


def _bias_bits(setting: Setting | None, own: int) -> int:
    """Of so many biases, and what they are read by."""
    return _bits(setting) * own + (FLOAT_BITS * setting.table_numbers(1) if setting is not None and own else 0)


def _own_biases(layer: Weighted, stored: _Stored) -> int:
    """How many numbers its bias holds that no layer before it stores."""
    if layer.bias is None:
        return 0
    return layer.bias.numel() - stored.put("", _held(layer, "bias"), layer.bias.numel())["shared"]


def _held(layer: nn.Module, which: str, *, with_tables: bool = False) -> list[nn.Parameter]:
    """The parameter that the weights or biases are, or those that they are made of (parametrized, normed, pruned)."""
    inside = f"parametrizations.{which}."
    exact = {which, f"{which}_orig", f"{which}_g", f"{which}_v"} if which not in layer._parameters else {which}
    return [item for name, item in layer.named_parameters()
            if name in exact or name.startswith(inside if with_tables else f"{inside}original")]  # fmt: skip


class _Stored:
    """What parameters hold, number by number: some share a storage and no number, others are parts of one another."""

    def __init__(self) -> None:
        self._taken: dict[tuple[int, int], Tensor] = {}
        self._holders: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}

    def put(self, name: str, parts: Sequence[Tensor], count: int) -> dict[str, Any]:
        """`stored_in` and `shared` of the layer's `count` weights, which these parameters are, or are made of."""
        before = [self._holder(x) for x in parts]
        new = [self._put(name, x) for x in parts]
        if parts and None not in before:
            return {"stored_in": before[0], "shared": count}
        return {"stored_in": None, "shared": count - new[0] if [x.numel() for x in parts] == [count] else 0}

    def _holder(self, x: Tensor) -> str | None:
        """The first of those before that hold all of its numbers."""
        return next(
            (
                name
                for name, whole in self._holders.get(_memory(x), ())
                if x is whole or in_common(x, whole) == x.numel()
            ),
            None,
        )

    def _put(self, name: str, x: Tensor) -> int:
        """How many of its numbers nothing before held."""
        self._holders.setdefault(_memory(x), []).append((name, x))
        size = x.untyped_storage().nbytes() // x.element_size()
        taken = self._taken.setdefault(_memory(x), torch.zeros(size, dtype=torch.bool))
        apart = [size if stride else 1 for size, stride in zip(x.shape, x.stride(), strict=True)]
        places = taken.as_strided(apart, x.stride(), x.storage_offset())
        found = places.numel() - int(places.sum())
        places.fill_(True)
        return found


def _memory(x: Tensor) -> tuple[int, int]:
    return x.untyped_storage()._cdata, x.element_size()


def _kept(sizes: Sequence[int]) -> StateMemory:
    alike = len(set(sizes)) == 1
    return StateMemory(
        neurons=sizes[0] if alike else sum(sizes), bits=FLOAT_BITS, others=len(sizes) - 1 if alike else 0
    )


def _bits(setting: Setting | None) -> int:
    return FLOAT_BITS if setting is None else setting.stored_bits
