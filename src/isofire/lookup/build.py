"""`isofire.fast`: a quantized network whose layers look up."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_map

from isofire.adapters import copy_of
from isofire.convolution import unguard_
from isofire.errors import ModelError, SpecError
from isofire.lookup import native
from isofire.lookup.layers import KINDS, TableLayer
from isofire.lookup.neurons import TableNeuron
from isofire.lookup.plan import Plans
from isofire.lookup.tensors import owned
from isofire.neurons import Neuron
from isofire.neurons.fast_path import in_a_graph
from isofire.quantization import convert, is_converted, spec_of
from isofire.quantization.on_levels import require_levels
from isofire.quantization.parts import choices_of_parts
from isofire.quantization.plan import UNSUPPORTED, WEIGHTED
from isofire.quantization.temporal import TemporalLayer
from isofire.running import require_module, require_shapes
from isofire.text_table import TextTable

_LAYERS = (*WEIGHTED, *UNSUPPORTED, TemporalLayer)
Path = Literal["auto", "avx512", "avx2", "neon", "portable", "torch"]


class FastNetwork(nn.Module):
    """Mixed into the class of a network that `fast` has made: same inputs, same outputs, no gradients."""

    _plans: Plans

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """As the network's own class, by tables where there are some."""
        if self.training:
            raise ModelError("a fast network is for inference alone; train the one it is made from, or call eval()")
        with torch.no_grad():
            if in_a_graph():
                return tree_map(owned, super().forward(*inputs, **options))
            return self._plans.run(self, super().forward, inputs, options)

    def paths(self) -> list[tuple[str, str, str]]:
        """Every layer and population: name, how the last forward ran it, and why not by tables."""
        rows = []
        for name, module in self.named_modules():
            if isinstance(module, TableNeuron):
                rows.append((name, *module.said))
            elif isinstance(module, (TableLayer, *_LAYERS)):
                why = _why_not(module)
                rows.append((name, "as it was", why) if why else (name, "codes", ""))
        return rows

    def __repr__(self) -> str:
        table = TextTable(("layer", "path", "why"), self.paths(), frozenset({0, 1, 2}))
        plans = [f"{list(shape)}: {why or 'run from a plan'}" for shape, why in self._plans.said()]
        return "\n".join([f"{type(self).__name__}, fast:", table.text(), *plans])


def fast(model: nn.Module, *, path: Path = "auto", plan: bool | None = None) -> nn.Module:
    """The quantized network with the same inputs and outputs, several times faster on a CPU.

    Layers with 1- to 8-bit weights that are multiples of a step are looked up in tables, with the batch norm, neurons
    and membrane quantizer behind them in the same kernel, and spikes stay packed from layer to layer. Everything else
    runs as it did; `print(network)` says which, and why. See docs/fast.md for what its numbers equal.

    Parameters
    ----------
    model
        A network with quantized weights, prepared and calibrated or converted, or from elsewhere. It is left as it is.
    path
        "auto" takes the best that the processor knows; "avx512", "avx2", "neon", "portable" and "torch" force one.
        All give the same spikes.
    plan
        Whether forwards of a shape that has come before are run from what was written down of one of them, without the
        network's Python, which takes most of the time of a single image; the outputs are the same. None: where all
        modules are of classes whose forwards are known to do no more than their output shows. True: also where they
        are your own, of which you say so; see docs/fast.md. False: nowhere.

    Raises
    ------
    ModelError
        If no layer has quantized weights, or none is of torch's own classes, or they were changed since.
    SpecError
        If the path cannot be taken here.

    Examples
    --------
    >>> quick = isofire.fast(quantized)  # doctest: +SKIP
    >>> isofire.compare(model, quick, data)  # doctest: +SKIP
    """
    require_module(model)
    require_shapes(model)
    isa = _isa(path)
    if isinstance(model, FastNetwork):
        raise ModelError("this network is fast already")
    require_levels(model)
    made = convert(model) if spec_of(model) is not None and not is_converted(model) else copy_of(model)
    made.eval().requires_grad_(False)
    unguard_(made)
    for module in list(made.modules()):
        if isinstance(module, Neuron) and type(module).forward is Neuron.forward and "forward" not in vars(module):
            mix(module, TableNeuron)
            module.__dict__["isa"] = isa
        elif type(module) in KINDS and "forward" not in vars(module):
            mix(module, KINDS[type(module)])
    mix(made, FastNetwork)
    made.__dict__["_plans"] = Plans(plan)
    _require_codes(made)
    return made


def _require_codes(made: nn.Module) -> None:
    """Raise ModelError if no layer can be looked up."""
    layers: dict[str, list[str]] = {}
    for name, module in made.named_modules():
        if isinstance(module, (TableLayer, *_LAYERS)):
            layers.setdefault(_why_not(module), []).append(f"{name!r} ({type(module).__name__})")
    if "" in layers:
        return
    told = "; ".join(f"{', '.join(named[:8])}{', ...' * (len(named) > 8)}: {why}" for why, named in layers.items())
    quantized = {name for name, choice in choices_of_parts(made) if choice.target == "weights" and choice.setting}
    tables = [name for name, module in made.named_modules() if isinstance(module, TableLayer)]
    float_ = [name for name in tables if name not in quantized]
    other = [name for name in tables if name in quantized]
    cure = f"quantize the weights of {', '.join(map(repr, float_[:8]))} first, or " if float_ else ""
    if other:
        cure += f"take 'uniform' or 'lsq' of up to 8 bits for those of {', '.join(map(repr, other[:8]))}, or "
    raise ModelError(
        f"no layer of this network can be looked up ({told or 'it has none with weights'}); {cure}run the network as "
        "it is"
    )


def _why_not(layer: nn.Module) -> str:
    """Why a layer with weights cannot be looked up; "" if it can."""
    if isinstance(layer, TableLayer):
        found = layer.found()
        return found if isinstance(found, str) else ""
    if type(layer) in KINDS:
        return "its forward is not torch's own"
    own = next((kind.__name__ for kind in KINDS if isinstance(layer, kind)), None)
    if own is not None:
        return f"of a class derived from nn.{own}, which may do otherwise"
    return "of a kind that is not looked up, as nn.Conv2d and nn.Linear are"


def _isa(path: Path) -> str | None:
    best = native.best()
    if path == "auto":
        return best
    if path == "torch":
        return None
    if path not in native.ISAS:
        raise SpecError(f"path must be one of auto, torch, {', '.join(native.ISAS)}, got {path!r}")
    if path not in native.known():
        raise SpecError(f"path {path!r} is not to be had here ({best or 'look-ups were not compiled'}); use 'auto'")
    return path


def mix(module: nn.Module, mixin: type) -> None:
    """Give a module a subclass of its own class, under the same name."""
    own = type(module)
    module.__class__ = type(own.__name__, (mixin, own), {"__module__": own.__module__})  # pyright: ignore[reportAttributeAccessIssue]
