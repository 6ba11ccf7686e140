"""In which form the spikes of each layer are in a tensor: by what factor, and in sums of how many.

A factor folds into the weights that spikes come to, if all spikes of a layer come by the same. Where a tensor adds up
spikes of one layer by two factors (a leaky integrator, `x - x.mean()`), or where the same weights see ever longer sums
of them (a running mean), what arrives is a real number like any other: each spike would arrive again and again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

SIGN = "sign"
"""Factor of spikes of both signs, each of which is one event."""


class Form(NamedTuple):
    """Of one layer's spikes.

    Parameters
    ----------
    factor
        What one spike is in the values: a number, or what stands for a tensor of factors; None for no one factor.
    terms
        How many of the layer's outputs are added up in an element; 0 where not in each as many, and in real numbers;
        -k in those for which spikes of the layer were added to its spikes k times.
    """

    factor: Hashable = 1.0
    terms: float = 1.0


class Sized(NamedTuple):
    """Factor of spikes of both signs and of one size, neuron by neuron."""

    size: float
    signs: Hashable


Forms = Mapping[str, Form]
"""Layer of neurons, or other maker of events -> form."""


def key_of(factor: Tensor) -> Hashable:
    """A number, or what stands for a tensor of different numbers."""
    factor = factor.detach()
    first = float(factor.flatten()[0])
    if factor.numel() == 1 or bool((factor == first).all()):
        return _short(first)
    values = factor.double()
    return tuple(factor.shape), float(values.sum()), float(values.square().sum())


def by_height(heights: Tensor) -> bool:
    """Whether spikes count by their heights: whole ones, of one size where some are below 0; else each is one event."""
    size = heights.abs()
    same = bool((heights > 0).all()) or bool((size == size.flatten()[0]).all())
    return same and bool((size == size.round()).all())


def factor_of(heights: Tensor) -> Hashable:
    """A layer's heights as its factor."""
    size = abs(float(heights.flatten()[0]))
    below, above = bool((heights < 0).any()), bool((heights > 0).any())
    return Sized(size, key_of(heights)) if below and above and size != 1 and by_height(heights) else key_of(heights)


def scaled(forms: Forms, factor: Hashable, terms: float = 1.0) -> Forms:
    """Times a factor, and `terms` of them added up."""
    return {layer: Form(_product(form.factor, factor), form.terms * terms) for layer, form in forms.items()}


def added(parts: Iterable[Forms], whole: bool = False) -> Forms | None:
    """Of a sum of tensors; None if it holds spikes of one layer by two factors and is not of whole numbers."""
    found: dict[str, Form] = {}
    for forms in parts:
        for layer, form in forms.items():
            before = found.get(layer, Form(form.factor, 0.0))
            if before.factor != form.factor and not whole:
                return None
            found[layer] = Form(_either(before.factor, form.factor), before.terms + form.terms)
    return found


def beside(parts: Iterable[Forms], rows: bool = False) -> Forms:
    """Of tensors put beside each other, so that each has weights of its own; as rows they meet the same weights."""
    found: dict[str, Form] = {}
    for forms in parts:
        for layer, form in forms.items():
            before = found.setdefault(layer, form)
            terms = 0.0 if rows and before.terms != form.terms else max(before.terms, form.terms)
            found[layer] = Form(_either(before.factor, form.factor), terms)
    return found


def mixed(parts: Iterable[Forms]) -> Forms:
    """Of real numbers made of the layers' spikes, or of such numbers and further spikes."""
    given = [(layer, form) for forms in parts for layer, form in forms.items()]
    found: dict[str, Form] = {}
    for name in dict.fromkeys(layer for layer, _ in given):
        real = [form.terms for layer, form in given if layer == name and form.factor is None]
        total = sum(layer == name for layer, _ in given)
        # two tensors of a layer's spikes, or such numbers and further spikes
        grown = len(real) < total if real else total > 1
        found[name] = Form(None, min(real, default=0.0) - grown)
    return found


def uneven(forms: Forms) -> bool:
    """Whether elements hold sums of different lengths."""
    return any(form.terms <= 0 for form in forms.values())


def height_of(forms: Forms) -> float | None:
    """What each spike is in whole numbers; None if layers' spikes differ."""
    heights = {form.factor for form in forms.values()}
    only = heights.pop() if len(heights) == 1 else None if heights else 1.0
    return _size_of(only)


def _size_of(factor: Hashable) -> float | None:
    if isinstance(factor, float):
        return abs(factor) or None
    if isinstance(factor, Sized):
        return factor.size
    if isinstance(factor, tuple) and len(factor) == 2 and isinstance(factor[0], tuple):
        # by a number, or in another order
        size = _size_of(factor[0])
        return None if size is None else size * abs(factor[1]) if isinstance(factor[1], float) else size
    return None


def sign_scale(factor: Hashable) -> float | None:
    """By what spikes of both signs were multiplied; None for others."""
    if factor == SIGN:
        return 1.0
    if isinstance(factor, tuple) and len(factor) == 2 and isinstance(factor[1], float):
        inner = sign_scale(factor[0])
        return None if inner is None else inner * factor[1]
    return None


def _either(one: Hashable, other: Hashable) -> Hashable:
    return one if one == other else frozenset((one, other))


def _product(one: Hashable, other: Hashable) -> Hashable:
    if isinstance(one, float) and isinstance(other, float):
        return _short(one * other)
    if one == 1 or other == 1:
        return other if one == 1 else one
    return one, other


def _short(value: float) -> float:
    """As products of the same numbers in another order agree."""
    return float(f"{value:.6g}")
