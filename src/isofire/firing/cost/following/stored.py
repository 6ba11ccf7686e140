"""The tensors that a model holds: by name, and of which of them a view is."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from isofire.adapters import find_neurons
from isofire.firing.cost.events.events import storage_of

_OF_WEIGHT = re.compile(r"(?:(.+)\.)?(?:parametrizations\.weight\..+|weight(?:_orig|_mask|_g|_v|_u)?)")
"""A layer's weight, and what torch makes it of (parametrized, pruned, normed)."""


class Stored:
    """Of one model, as they are now; several may share a storage, each with its own part of it."""

    def __init__(self, model: nn.Module) -> None:
        self.named = named_tensors(model)
        self._sizes = {name: tensor.numel() for name, tensor in self.named}
        self._parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self._weighted = {_layer_of(name) for name, _ in self.named} - {None}
        self._by_memory: dict[int, list[tuple[str, Tensor]]] = {}
        for name, tensor in self.named:
            self._by_memory.setdefault(storage_of(tensor)._cdata, []).append((name, tensor))

    def has(self, x: Tensor) -> bool:
        """Whether it is one of them, or a view."""
        return storage_of(x)._cdata in self._by_memory

    def holders(self, x: Tensor) -> list[tuple[str, Tensor]]:
        """Those that it is a view of, by name; none of what the model does not hold."""
        sharing = self._by_memory.get(storage_of(x)._cdata, [])
        return [item for item in sharing if lies_within(x, item[1])] or sharing

    def is_part(self, x: Tensor) -> bool:
        """Whether it is some of the numbers of one of them, such as a row."""
        return any(x.numel() < whole.numel() for _, whole in self.holders(x))

    def learned(self, names: frozenset[str]) -> frozenset[str]:
        """Those that are parameters."""
        return names & self._parameters

    def place_of_made(self, names: frozenset[str], module: str) -> str:
        """Of weights that a module makes of tensors: the layer whose weight they all are, else the module; the largest
        of them where the module has a weight of its own that is none of them."""
        layers = {_layer_of(name) for name in names}
        if len(layers) == 1 and None not in layers:
            return layers.pop() or "(model)"
        if names and module in self._weighted - layers:
            return max(sorted(names), key=self._sizes.__getitem__)
        return module or "(model)"

    def names(self, x: Tensor, among: frozenset[str]) -> frozenset[str]:
        """Of tensors of which its memory was made, those of which it was."""
        return among & {name for name, _ in self.holders(x)} or among if len(among) > 1 else among


def _layer_of(name: str) -> str | None:
    found = _OF_WEIGHT.fullmatch(name)
    return None if found is None else found[1] or ""


_OF_TORCH = frozenset(vars(nn.Module()))
"""What each module holds: parameters and buffers, which are named already, hooks and flags."""


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, buffers, and tensors that modules hold as they are or in lists; one that two share under both names.

    What neurons hold that way are states.
    """
    found = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    known = {id(tensor) for _, tensor in found}
    inside = {part for neuron in find_neurons(model).values() for part in neuron[0].modules()}
    for owner, module in model.named_modules():
        for own, held in () if module in inside else vars(module).items():
            if own not in _OF_TORCH:
                name = f"{owner}.{own}" if owner else own
                found += [(name + "".join(map(str, path)), x) for path, x in tree_flatten_with_path(held)[0]
                          if isinstance(x, Tensor) and id(x) not in known]  # fmt: skip
    return [(name, tensor) for name, tensor in found if tensor.numel()]


def lies_within(x: Tensor, whole: Tensor) -> bool:
    """Whether a tensor is a view of another, or of a part of it; not where the two only share a storage."""
    if not (x.layout is whole.layout is torch.strided) or x.dtype != whole.dtype or not x.numel():
        return False
    first = int(x.storage_offset() - whole.storage_offset())
    last = first + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return storage_of(x)._cdata == storage_of(whole)._cdata and _holds(whole, first) and _holds(whole, int(last))


def _holds(whole: Tensor, place: int) -> bool:
    """Whether one of the tensor's elements is so many places behind its first."""
    for stride, size in sorted(zip(whole.stride(), whole.shape, strict=True), reverse=True):
        if stride:
            place -= stride * max(0, min(place // stride, size - 1))
    return place == 0
