"""Whether a layer multiplies with its weight as it is, or with something that its forward makes of it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isofire.adapters import copy_of, find_neurons
from isofire.errors import ModelError
from isofire.quantization.operands import Operands, Seen

PLAIN: dict[type[nn.Module], str] = {
    nn.Linear: "forward",
    nn.Conv1d: "_conv_forward",
    nn.Conv2d: "_conv_forward",
    nn.Conv3d: "_conv_forward",
}
"""The kinds that can be quantized, and the method of each that multiplies."""

_LOG = logging.getLogger(__name__)


def check_uses_its_weight(name: str, layer: nn.Module) -> None:
    """Refuse a layer whose forward changes its weight before it multiplies, as weight standardisation does: the levels
    would be those of numbers that the network never uses.

    A class with a forward of its own is tried on a copy and a few zeros and ones.

    Raises
    ------
    ModelError
        If it changes its weight, never multiplies with it, or cannot be tried; or if the weight has so few digits that
        levels would be rounded.
    """
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.dtype in (torch.float16, torch.bfloat16):
        raise ModelError(
            f"the weights of {name!r} are {str(weight.dtype).removeprefix('torch.')}, which would round the levels; "
            "quantize the network in float32 (model.float())"
        )
    if is_plain(layer):
        return
    kind, cure = type(layer).__name__, f"leave it float by a rule {{match = {name!r}, weights = 'float'}}"
    try:
        twin = copy.deepcopy(layer).eval()
        seen = next(filter(None, map(lambda x: _tried(twin, x), _probes(twin))), None)
    except RuntimeError as error:
        raise ModelError(f"{name!r} ({kind}) cannot be copied to see what it does: {error}; {cure}") from error
    if seen is None:
        raise ModelError(
            f"{name!r} ({kind}) has a forward of its own that runs on none of the inputs tried, so that it cannot be "
            f"seen whether it uses its weight as it is; {cure}"
        )
    if seen.changed or not seen.used:
        how = f"changes its weight ({seen.changed}) before" if seen.changed else "is not seen to use its weight when"
        raise ModelError(
            f"{name!r} ({kind}) {how} it multiplies, so the numbers in use would not be on the levels; fold the change "
            f"into the weight and use a plain layer, or {cure}"
        )


def check_same_in_both_modes(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse layers whose weights change as the network goes between train and eval mode, as adapters do that are
    merged into them for inference: levels would be those of one mode, and what is merged be lost or counted twice.

    A network with a `train` or `eval` of its own is tried on a copy.

    Raises
    ------
    ModelError
        Names the layer.
    """
    if not any({"train", "eval"} & set(vars(part)) or _switches(type(part)) for part in model.modules()):
        return
    twin = copy_of(model)
    weights = {name: model.get_submodule(name)._parameters["weight"] for name in names}
    for mode in (False, True):
        twin.train(mode)
        for name, weight in weights.items():
            layer = twin.get_submodule(name)
            if not torch.equal(layer._parameters["weight"], weight):  # type: ignore[arg-type]
                raise ModelError(
                    f"the weight of {name!r} ({type(layer).__name__}) is another in {'train' if mode else 'eval'} mode "
                    "than it is now, as where an adapter is merged into it, so that its levels would be those of one "
                    "mode alone; make it lasting (a plain layer of the merged weight), or leave the layer float by a "
                    f"rule {{match = {name!r}, weights = 'float'}}"
                )


def _switches(kind: type[nn.Module]) -> bool:
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


@contextmanager
def weights_used_as_they_are(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Raises, from any forward pass inside, if it gave a product other numbers than the layers' weights.

    That is a matter of the whole network: a module around the layer, or a hook, may change them; and of every pass: a
    branch may be taken by some images only.

    Parameters
    ----------
    model
        Prepared, its weights' quantizers calibrated.
    names
        Its quantized layers.

    Raises
    ------
    ModelError
        Names the layer and the operation.
    """
    layers = {name: model.get_submodule(name) for name in names}
    made: dict[str, nn.Module | Tensor] = {}
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            # a network that is being calibrated makes the weights that it uses anew in every forward
            made[name] = layer.parametrizations["weight"]  # type: ignore[index]
    neurons = [neuron for neuron, _ in find_neurons(model).values()]
    # a spec that quantizes no weights leaves none out
    fixed = _fixed_numbers(model, neurons) if names else {}
    versions = {name: _version(x) for name, x in fixed.items()}
    operands = Operands(made, (*model.parameters(), *model.buffers()), neurons, fixed)
    passes: list[ExitStack] = []
    with ExitStack() as hooks:

        def begin(module: nn.Module, inputs: Any) -> None:
            if last.id not in module._forward_hooks:
                # a probe that nobody hears of, whose end would not be told either
                return
            passes.append(ExitStack())
            if len(passes) == 1:
                # not once more for a network that calls itself
                passes[0].enter_context(operands.following(inputs))

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            passes.pop().close()
            # after a failure there is no output, and the failure is what is told
            for name, seen in operands.seen.items() if output is not None else ():
                if seen.changed is not None:
                    raise _changed(name, layers[name], seen.changed)

        def close() -> None:
            # of a forward that was interrupted, at which torch calls no hook
            while passes:
                passes.pop().close()

        hooks.callback(close)
        last = model.register_forward_hook(end, always_call=True)
        hooks.callback(last.remove)
        hooks.callback(model.register_forward_pre_hook(begin, prepend=True).remove)
        yield
    for name, seen in operands.seen.items():
        if seen.read and seen.replaced and not seen.multiplied:
            raise _changed(name, layers[name], "in a way that is not seen; it is in no product itself")
    idle = [name for name, seen in operands.seen.items() if not seen.multiplied]
    if idle:
        _LOG.warning(
            "no image is seen to multiply with the quantized weights of %s; if the network uses other numbers in their "
            "place (a buffer, a copy), those are not quantized",
            ", ".join(idle),
        )
    now = _fixed_numbers(model, neurons)
    # what the network writes itself is a memory
    met = [
        name for name in sorted(operands.met) if now.get(name) is fixed[name] and _version(now[name]) == versions[name]
    ]
    if met:
        _LOG.warning(
            "not quantized: %s: multiplied like weights, but by no layer that a spec can reach; hold them as weights "
            "of a layer (a torch.nn.Linear that is not trained), or multiply by the layer whose weights they are",
            ", ".join(f"{name!r} ({fixed[name].numel():,} numbers)" for name in met),
        )


def _version(x: Tensor) -> int:
    """How often its values were written; 0 where torch does not count that."""
    return 0 if x.is_inference() else x._version


def _fixed_numbers(model: nn.Module, neurons: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Buffers and tensors that modules hold as they are, of the network's own: a reservoir's weights may be there."""
    states = {part for neuron in neurons for part in neuron.modules()}
    return {
        f"{name}.{own}".lstrip("."): held
        for name, module in model.named_modules()
        if module not in states
        for own, held in (*vars(module).items(), *module.named_buffers(recurse=False, remove_duplicate=False))
        if isinstance(held, Tensor) and held.ndim > 1
    }


def _changed(name: str, layer: nn.Module, how: str) -> ModelError:
    kind = type(layer).__name__.removeprefix("Parametrized")
    return ModelError(
        f"the weight of {name!r} ({kind}) is changed ({how}) before it is multiplied with, by a module "
        "around it or a hook, so the numbers in use would not be on the levels; fold the change into the weight, "
        f"or leave the layer float by a rule {{match = {name!r}, weights = 'float'}}"
    )


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer's arithmetic is torch's own for its kind."""
    base = next((kind for kind in PLAIN if isinstance(layer, kind)), None)
    if base is None or {"forward", "_conv_forward"} & set(vars(layer)):
        return False
    return all(getattr(type(layer), name) is getattr(base, name) for name in {"forward", PLAIN[base]})


def _tried(layer: nn.Module, x: Tensor) -> Seen | None:
    """What the forward did with the weight; None if it does not take such inputs."""
    weight = layer._parameters["weight"]
    assert weight is not None
    others = [item for item in (*layer.parameters(), *layer.buffers()) if item is not weight]
    operands = Operands({"weight": weight}, others)
    try:
        with torch.no_grad(), operands.following(x):
            layer(x)
    except Exception:
        # any error of a stranger's forward says the same: not these inputs
        return None
    return operands.seen["weight"]


def _probes(layer: nn.Module) -> Iterator[Tensor]:
    """Inputs [N, ...] and, for layers that take all steps at once, [T, N, ...]."""
    weight = layer._parameters["weight"]
    assert weight is not None
    if isinstance(layer, nn.Linear):
        shape: tuple[int, ...] = (layer.in_features,)
    else:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        spread = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        shape = (layer.in_channels, *(max(8, 2 * side) for side in spread))
    for lead in ((2,), (2, 2), (4, 2, 2)):
        yield torch.ones(*lead, *shape, dtype=weight.dtype, device=weight.device)
