"""Copies of a network, and what the deep copies that libraries define themselves leave out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from isofire.adapters.compiled import refuse_compiled
from isofire.adapters.framework import loaded_frameworks
from isofire.adapters.registry import find_neurons, reset_
from isofire.errors import ModelError
from isofire.running import in_common, require_shapes, same_storage

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy, at rest and known to its libraries; the model is brought to rest too.

    Raises
    ------
    ModelError
        If it cannot be copied, or a part of it is compiled.
    """
    refuse_compiled(model)
    # a state from a forward pass with gradients cannot be copied
    reset_(model)
    computed, kept = _with_graphs(model)
    try:
        with torch.no_grad():
            # with gradients, torch would make parameters of a scripted part results of the original's
            made = _views(model) | _compressed(model) | {id(tensor): tensor.detach().clone() for tensor in kept}
            twin = copy.deepcopy(model, made)
    except (RuntimeError, AttributeError, ValueError) as error:
        require_shapes(model)
        if computed is not None:
            raise ModelError(
                f"cannot copy {type(model).__name__}: {computed!r} is computed from other parameters, as by pruning or "
                "the old weight norm; make that lasting first, with torch.nn.utils.prune.remove(layer, 'weight') or "
                "torch.nn.utils.remove_weight_norm(layer)"
            ) from error
        raise ModelError(
            f"cannot copy {type(model).__name__}: {error}; use the in-place verb on a fresh model"
        ) from error
    for (neuron, adapter), (copied, _) in zip(find_neurons(model).values(), find_neurons(twin).values(), strict=True):
        adapter.put_back(neuron, copied)
    parameters = dict(twin.named_parameters(remove_duplicate=False))
    for name, value in model.named_parameters(remove_duplicate=False):
        # Sinabs builds its layers anew, and so all of them are trained, and torch its scripted ones, so that none is;
        # parameters without a shape yet take no change
        if name in parameters and parameters[name].requires_grad != value.requires_grad:
            parameters[name].requires_grad_(value.requires_grad)
    for framework in loaded_frameworks():
        framework.adopt(twin)
    return twin


def _views(model: nn.Module) -> dict[int, Any]:
    """Copies of what lies in the memory of other parameters or buffers, which do so too: torch's deep copy parts them
    without a word."""
    made: dict[int, Any] = {}
    for group in same_storage(model):
        if any(in_common(a, b) for (_, a), (_, b) in combinations(group, 2)):
            storage = group[0][1].untyped_storage().clone()
            for _, tensor in group:
                view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                view.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
                own = isinstance(tensor, nn.Parameter)
                made[id(tensor)] = nn.Parameter(view, tensor.requires_grad) if own else view
    return made


def _compressed(model: nn.Module) -> dict[int, Any]:
    """Copies of the parameters and buffers in compressed sparse layouts, which torch does not copy deeply."""
    made: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if not is_lazy(tensor) and tensor.layout in _COMPRESSED:
            twin = tensor.detach().clone()
            made[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
    return made


def require_kept(models: Sequence[nn.Module]) -> None:
    """Refuse a network whose neurons have lost a constant in a deep copy that their library made: they fire otherwise
    than the first network's, whatever was quantized.

    Raises
    ------
    ModelError
        Names the neuron, the constant, both values and what to do.
    """
    first, *others = map(find_neurons, models)
    for name, (neuron, adapter) in first.items():
        for lost in adapter.lost_in_copies(neuron):
            mine = getattr(neuron, lost)
            for twin, _ in (other[name] for other in others if name in other):
                if (theirs := getattr(twin, lost, mine)) != mine:
                    raise ModelError(
                        f"{lost} of neuron {name!r} must be the same in both networks, got {mine} and {theirs}: "
                        f"copy.deepcopy of its library's {type(neuron).__name__} forgets it; copy the network by "
                        "isofire.adapters.copy_of(model) instead, and quantize that copy"
                    )


def _with_graphs(model: nn.Module) -> tuple[str | None, list[Tensor]]:
    """Tensor attributes that carry a graph, which torch does not copy: the name of the first that is computed from
    parameters, as a pruned weight is, and all that a forward pass left behind, such as a layer's last output."""
    computed, kept = None, []
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if not isinstance(value, Tensor) or value.is_leaf:
                continue
            if any(own.startswith(f"{attribute}_") for own in module._parameters):
                computed = computed or (f"{name}.{attribute}" if name else attribute)
            else:
                kept.append(value)
    return computed, kept
