"""Weights and membrane states in the bits that they take on a chip, not in those of the tensors that simulate them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from isofire.adapters import refuse_integers
from isofire.firing.cost.following.numbers import Numbers, numbers_in, once, share_not_zero
from isofire.firing.cost.following.stored import named_tensors
from isofire.firing.record import spiking_adapters
from isofire.quantization.on_levels import require_levels
from isofire.quantization.parts import choices_of_parts, refuse_part
from isofire.quantization.temporal import TemporalLayer
from isofire.quantizers import Setting, WeightSetting
from isofire.running import statistics_of, stored_values
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
    made_of: Collection[frozenset[str]] = (),
) -> Memory:
    """Memory of a full-precision, prepared or quantized model, for one image at a time.

    Parameters
    ----------
    neurons
        Layer of neurons -> how many states it keeps of one kind, as a rule one a neuron; depends on the size of the
        images.
    kept
        Layer that keeps states but does not spike -> numbers in each; see `isofire.adapters.find_keepers`.
    fixed
        Place with weights that are none of the model's tensors, nor made of them -> shape -> their number, and that of
        those that are not 0.
    made_of
        Names of the tensors that each of the weights is, or is made of, which only a forward pass tells from other
        buffers and tensors of the model's own.

    Raises
    ------
    ModelError
        If its weights or biases were changed since they were quantized: they take more bits than its spec says.
    """
    refuse_integers(model)
    require_levels(model)
    plan = list(choices_of_parts(model))
    if not plan:
        refuse_part(model)
    choices = {name: choice.setting for name, choice in plan if choice.target not in CONSTANT_TARGETS}
    biases = {name: choice.setting for name, choice in plan if choice.target == "biases"}
    stored = Numbers()
    weights = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, Weighted):
            continue
        weight, setting = layer.weight.detach(), choices.get(name)
        assert setting is None or isinstance(setting, WeightSetting)
        steps = None if setting is None else setting.time_steps
        channels = weight.shape[0 if steps is None else 1]
        weights[name] = WeightMemory(
            weights=numbers_in(weight),
            bits=_bits(setting),
            table_bits=0 if setting is None else FLOAT_BITS * setting.table_numbers(setting.groups(channels)),
            bias_bits=_bias_bits(biases.get(name), _own_biases(layer, stored)),
            nonzero=share_not_zero(weight),
            **stored.put(name, _held(layer, "weight"), numbers_in(weight)),
        )
    batch_norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    norms = list(dict.fromkeys([*batch_norms, *statistics_of(model).values()]))
    others, vectors = _others(model, weights, norms, stored)
    others |= _beside(model, made_of, {*weights, *others}, norms, stored)
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
    model: nn.Module, layers: Mapping[str, WeightMemory], norms: Sequence[_NormBase], stored: Numbers
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
            vectors += numbers_in(parameter) - stored.put(name, [parameter], numbers_in(parameter))["shared"]
            continue
        place = owner if own == "weight" and owner else name
        found[place] = WeightMemory(
            weights=numbers_in(parameter),
            bits=FLOAT_BITS,
            table_bits=0,
            bias_bits=0,
            nonzero=share_not_zero(parameter),
            **stored.put(place, [parameter], numbers_in(parameter)),
        )
    return found, vectors


def _beside(
    model: nn.Module,
    made_of: Collection[frozenset[str]],
    places: Collection[str],
    norms: Sequence[_NormBase],
    stored: Numbers,
) -> dict[str, WeightMemory]:
    """Tensors that weights are made of and that are no parameters, nor folded into what is stored already."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors, in_norms = dict(named_tensors(model)), {id(item) for norm in norms for item in norm.buffers()}
    found = {}
    for name in [name for name in tensors if any(name in names for names in made_of) and name not in parameters]:
        owner, _, own = name.rpartition(".")
        held = once(tensors[name].detach())
        # what torch makes a layer's weight of is in that weight
        within = ".parametrizations." in f".{name}" or f"{name.rpartition('_')[0]}_orig" in parameters
        if within or id(tensors[name]) in in_norms or not stored_values(held).any() or _is_mask(name, made_of, tensors):
            continue
        place = owner if own == "weight" and owner else name
        found[f"{place} (fixed)" if place in places else place] = WeightMemory(
            weights=numbers_in(held),
            bits=FLOAT_BITS,
            table_bits=0,
            bias_bits=0,
            nonzero=share_not_zero(held),
            **stored.put(place, [stored_values(held)], numbers_in(held)),
        )
    return found


def _is_mask(name: str, made_of: Collection[frozenset[str]], tensors: Mapping[str, Tensor]) -> bool:
    """Whether it holds 0 and 1 alone, which weights as many as they are tell by being 0."""
    mask = tensors[name]
    groups = [names - {name} for names in made_of if name in names]
    beside = all(any(tensors[other].numel() >= mask.numel() for other in group) for group in groups)
    values = stored_values(mask)
    return beside and bool(((values == 0) | (values == 1)).all())


def _fixed(count: int, nonzero: int) -> WeightMemory:
    return WeightMemory(weights=count, bits=FLOAT_BITS, table_bits=0, bias_bits=0, nonzero=nonzero / count)


def _bias_bits(setting: Setting | None, own: int) -> int:
    """Of so many biases, and what they are read by."""
    return _bits(setting) * own + (FLOAT_BITS * setting.table_numbers(1) if setting is not None and own else 0)


def _own_biases(layer: Weighted, stored: Numbers) -> int:
    """How many numbers its bias holds that no layer before it stores."""
    if layer.bias is None:
        return 0
    return numbers_in(layer.bias) - stored.put("", _held(layer, "bias"), numbers_in(layer.bias))["shared"]


def _held(layer: nn.Module, which: str, *, with_tables: bool = False) -> list[nn.Parameter]:
    """The parameter that the weights or biases are, or those that they are made of (parametrized, normed, pruned)."""
    inside = f"parametrizations.{which}."
    exact = {which, f"{which}_orig", f"{which}_g", f"{which}_v"} if which not in layer._parameters else {which}
    return [item for name, item in layer.named_parameters()
            if name in exact or name.startswith(inside if with_tables else f"{inside}original")]  # fmt: skip


def _kept(sizes: Sequence[int]) -> StateMemory:
    alike = len(set(sizes)) == 1
    return StateMemory(
        neurons=sizes[0] if alike else sum(sizes), bits=FLOAT_BITS, others=len(sizes) - 1 if alike else 0
    )


def _bits(setting: Setting | None) -> int:
    return FLOAT_BITS if setting is None else setting.stored_bits
