"""Weights that nothing quantizes although the spec quantizes weights, because of what kind they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from isofire.quantization.plan import NOT_SUPPORTED, WEIGHTED, QuantPlan, is_beside

_LOG = logging.getLogger(__name__)
_SHOWN = 8
_IN_PLAIN = " in a plain "
_PLAIN = (list, tuple, set, frozenset, dict)


class LeftOut(NamedTuple):
    """A layer, or a parameter of a module's own, of a kind that no weight quantizer takes, or a layer in a plain list
    or dict, which torch does not know for a part of the network.

    Parameters
    ----------
    name, kind
        As `explain` shows them.
    weights
        Numbers that stay in full precision; of layers that share them, with the first. What shares them and is
        quantized has its own.
    share
        Of all weights of the network, 0 to 1.
    """

    name: str
    kind: str
    weights: int
    share: float

    def __str__(self) -> str:
        return f"{self.name!r} ({self.kind}, {self.share:.1%} of the weights)"


def left_out(model: nn.Module, plan: QuantPlan) -> list[LeftOut]:
    """What a spec that quantizes weights leaves in full precision because of its kind; what a rule leaves so, is not
    among them.

    Parameters
    ----------
    model
        The network that the plan was made for, also once it is prepared or converted.
    """
    if not plan.chosen("weights"):
        return []
    counted, of_levels = set[int](), set[int]()
    choices = [choice for choice in plan.choices if choice.target == "weights"]
    sizes = [_numbers(model, choice.name, counted if choice.setting is None else of_levels) for choice in choices]
    hidden = [
        (f"{place}.{name}".rstrip("."), f"{type(layer).__name__}{_IN_PLAIN}{kind}", _numbers(layer, "", counted))
        for place, kind, held in _hidden(model)
        for name, layer in held.named_modules()
    ]
    total = max(sum(sizes) + sum(size for *_, size in hidden), 1)
    found = [
        LeftOut(choice.name, choice.kind, size, size / total)
        for choice, size in zip(choices, sizes, strict=True)
        if choice.rule == NOT_SUPPORTED and size
    ]
    return found + [LeftOut(name, kind, size, size / total) for name, kind, size in hidden if size]


def tell_left_out(model: nn.Module, plan: QuantPlan) -> None:
    """Warn of them by name."""
    found = left_out(model, plan)
    if not found:
        return
    shown = ", ".join(map(str, found[:_SHOWN])) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    plain, kinds = (
        [item for item in found if _IN_PLAIN in item.kind],
        [item for item in found if _IN_PLAIN not in item.kind],
    )
    share, cures = 100 * sum(item.share for item in found), []
    if kinds:
        cures.append(
            "no weight method takes these kinds; a rule that leaves them float says that they are to (match = "
            f"{kinds[0].name!r}, weights = 'float')"
        )
    if plain:
        cures.append(
            f"torch does not know what lies in a plain list or dict, as {plain[0].name!r}, for a part of the network; "
            "hold it in nn.ModuleList or nn.ModuleDict"
        )
    _LOG.warning(
        "not quantized: %s: %.1f %% of the network's weights stay in full precision with them. %s",
        shown,
        share,
        ". ".join(cure[0].upper() + cure[1:] for cure in cures),
    )


def _hidden(model: nn.Module) -> list[tuple[str, str, nn.Module]]:
    """Modules that a module keeps in a list, tuple, set or dict of Python's, where torch does not see them: their
    place, such as "mids[0][1]", the kind of what holds them, and they themselves."""
    known, seen, found = set(model.modules()), set[int](), []

    def look(place: str, kind: str, held: object) -> None:
        if isinstance(held, nn.Module):
            if held not in known:
                known.update(held.modules())
                found.append((place, kind, held))
        elif isinstance(held, _PLAIN) and id(held) not in seen:
            seen.add(id(held))
            items = held.items() if isinstance(held, dict) else enumerate(held)
            for key, item in items:
                look(f"{place}[{key!r}]", type(held).__name__, item)

    for name, module in list(model.named_modules()):
        for own, held in vars(module).items():
            if isinstance(held, _PLAIN) and own not in ("_parameters", "_buffers", "_modules"):
                look(f"{name}.{own}".lstrip("."), type(held).__name__, held)
    return found


def _numbers(model: nn.Module, name: str, counted: set[int]) -> int:
    """Numbers of a module's weights, or of the parameter of this name, that were not counted before."""
    owner, _, last = name.rpartition(".")
    holder = model.get_submodule(owner)
    parameter = dict(holder.named_parameters(recurse=False, remove_duplicate=False)).get(last)
    if parameter is not None:
        found = {parameter: parameter.numel()}
    elif last in _parametrizations(holder):
        found = _sizes(_parametrizations(holder)[last])
    else:
        module = model.get_submodule(name)
        beside = {p for own, p in module.named_parameters(recurse=False) if is_beside(module, own)}
        found = {p: size for p, size in _sizes(module).items() if not (isinstance(module, WEIGHTED) and p in beside)}
        for held in _parametrizations(module).values():
            found |= _sizes(held)
    fresh = {id(p): size for p, size in found.items() if id(p) not in counted}
    counted.update(fresh)
    return sum(fresh.values())


def _sizes(module: nn.Module) -> dict[nn.Parameter, int]:
    """Numbers of each parameter of a module's own; none of what only stretches another (the norms of weight norm)."""
    own = {name: p for name, p in module.named_parameters(recurse=False) if not is_lazy(p) and p.ndim > 1}
    stretch = {"original0": "original1", "weight_g": "weight_v"}
    return {p: 0 if _stretches(p, own.get(stretch.get(name, ""))) else p.numel() for name, p in own.items()}


def _stretches(norms: Tensor, directions: Tensor | None) -> bool:
    return (
        directions is not None
        and norms.ndim == directions.ndim
        and all(size in (1, whole) for size, whole in zip(norms.shape, directions.shape, strict=True))
    )


def _parametrizations(module: nn.Module) -> Mapping[str, nn.Module]:
    return dict(module.parametrizations.items()) if parametrize.is_parametrized(module) else {}  # pyright: ignore
