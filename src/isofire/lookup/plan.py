"""What a fast network keeps of a forward, and when that is run again in place of the network's own Python."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._pytree import tree_map

from isofire.lookup.tape import Recorder, Unrepeatable
from isofire.lookup.tensors import owned
from isofire.models.sew_resnet import SEWBlock, SEWResNet
from isofire.neurons import IF, LIF, MembraneQuantizer, Neuron, ParametricLIF, PerStep, Repeat
from isofire.quantizers import LSQ, Levels, StateLSQ, Uniform
from isofire.quantizers.counter import Counter

MOST_PLANS = 8
MOST_BYTES = 2**25
"""Memory of the maps that all plans of a network keep; beyond, the time of a forward is not Python's."""

_KNOWN: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward
    for kind in (
        SEWResNet, SEWBlock, nn.Sequential, nn.ModuleList, PerStep, Repeat, IF, LIF, ParametricLIF, MembraneQuantizer,
        Uniform, LSQ, Levels, StateLSQ, Counter, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d,
        nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout2d, nn.Identity,
    )
}  # fmt: skip
"""Classes whose forward in eval mode follows from input, parameters and attributes alone, and leaves nothing behind."""
_CALLED = nn.Module.__call__
_UNCHANGING = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, FunctionType, type)
_EMPTY = frozenset(vars(nn.Module())) | {"_plans"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Still:
    """Whether a network is the same, attribute by attribute, as when this was made: no more than its inputs can then
    make a forward another one."""

    def __init__(self, network: nn.Module) -> None:
        modules = list(network.modules())
        self.network = network
        self._modules = [(m, type(m), dict(vars(m)), m._modules, dict(m._modules)) for m in modules]
        self._forwards = [(kind, kind.forward) for kind in {type(m) for m in modules}]
        self._hooks = [vars(m)[name] for m in modules for name in _HOOKS]
        holders = [holder for m in modules for holder in (m._parameters, m._buffers)]
        self._tensors = [(holder, name, x, _facts(x)) for holder in holders for name, x in holder.items()]

    def holds(self) -> bool:
        """Whether it is."""
        if any(self._hooks) or nn.Module.__call__ is not _CALLED or any(k.forward is not f for k, f in self._forwards):
            return False
        try:
            for module, kind, attributes, holder, children in self._modules:
                if type(module) is not kind or module.__dict__ != attributes or holder != children:
                    return False
            for holder, name, x, facts in self._tensors:
                if holder[name] is not x or _facts(x) != facts:
                    return False
        except Exception:
            # attributes that cannot be compared are others
            return False
        return True


def _facts(x: Tensor | None) -> tuple[Any, ...]:
    return () if x is None else (x._version, x.data_ptr(), x.stride())


class _Plan(NamedTuple):
    """A tape, and how long it may be run; or why there is none. Without `still`, the next forward may have one."""

    tape: Callable[[Tensor], Tensor] | None = None
    still: _Still | None = None
    bytes: int = 0
    reason: str = "its shape came once"


class Plans:
    """The plans of one network, by the shape of the input and what else decides how it runs.

    The second forward of a shape is written down, later ones are run from that. No copy of the network has them.

    Parameters
    ----------
    wanted
        As `plan` of `isofire.fast`.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._wanted = wanted
        self._found: OrderedDict[Any, _Plan] = OrderedDict()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Plans:
        return Plans(self._wanted)

    def __reduce__(self) -> Any:
        return Plans, (self._wanted,)

    def run(self, network: nn.Module, forward: Callable[..., Any], inputs: Any, options: Any) -> Any:
        """The forward of a network, from a plan where nothing can differ."""
        # while another thread has the plans' memory, this one does without
        if self._wanted is False or not _may_plan(inputs, options) or not self._lock.acquire(blocking=False):
            return tree_map(owned, forward(*inputs, **options))
        try:
            return self._run(network, forward, inputs[0])
        finally:
            self._lock.release()

    def said(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape of the input, and why it is not run from a plan; "" if it is."""
        return [(key[0], plan.reason) for key, plan in self._found.items()]

    def _run(self, network: nn.Module, forward: Callable[..., Any], x: Tensor) -> Any:
        key = tuple(x.shape), x.stride(), x.dtype, torch.get_num_threads(), torch.is_inference_mode_enabled()
        plan = self._found.get(key)
        if plan is None or (plan.still is not None and not (plan.still.network is network and plan.still.holds())):
            self._keep(key, _Plan())
        elif plan.still is None:
            plan, output = self._recorded(network, forward, x)
            self._keep(key, plan)
            return output
        elif plan.tape is not None:
            self._found.move_to_end(key)
            try:
                return plan.tape(x)
            except Unrepeatable:
                pass
        return tree_map(owned, forward(x))

    def _keep(self, key: Any, plan: _Plan) -> None:
        self._found[key] = plan
        self._found.move_to_end(key)
        while len(self._found) > MOST_PLANS or sum(each.bytes for each in self._found.values()) > MOST_BYTES:
            self._found.popitem(last=False)

    def _recorded(self, network: nn.Module, forward: Callable[..., Any], x: Tensor) -> tuple[_Plan, Any]:
        """The plan of a forward, and what it gave."""
        reason = _unfit(network, trusted=bool(self._wanted))
        if reason is not None:
            return _Plan(reason=reason), tree_map(owned, forward(x))
        still = _Still(network)
        recorder = Recorder(x, (*network.parameters(), *network.buffers()), MOST_BYTES)
        with recorder:
            output = tree_map(owned, forward(x))
        tape, output = recorder.tape(output)
        if not still.holds():
            return _Plan(reason="a forward changes its modules"), output
        return _Plan(tape, still, recorder.bytes if tape else 0, recorder.refused or ""), output


def _may_plan(inputs: Any, options: Any) -> bool:
    """Whether the call is one of an ordinary tensor, and nobody follows what is done to it."""
    if len(inputs) != 1 or options or type(inputs[0]) is not Tensor:
        return False
    followed = torch._C._len_torch_dispatch_stack() or torch._C._is_torch_function_mode_enabled()
    altered = torch.is_autocast_enabled("cpu") or _has_any_global_hook()
    return not (followed or altered) and inputs[0].device.type == "cpu" and inputs[0].layout is torch.strided


def _unfit(network: nn.Module, trusted: bool) -> str | None:
    """Why no forward of a network can be written down; None if nothing is against it."""
    for name, module in network.named_modules():
        reason = _alien(module, trusted)
        if module.training or any(vars(module)[hooks] for hooks in _HOOKS):
            reason = "has hooks, or is in training mode"
        elif "forward" in vars(module) or vars(module).get("_compiled_call_impl") is not None:
            reason = "has a forward of its own"
        elif isinstance(module, Neuron) and module.counting:
            reason = "counts its spikes"
        elif any(x.is_inference() for x in (*module.parameters(False), *module.buffers(False))):
            reason = "was made in inference mode, where changes of tensors are not counted"
        if reason is not None:
            return f"{name or 'the network'} {reason}"
    return None


def _alien(module: nn.Module, trusted: bool) -> str | None:
    """Why the forward of a module's class is not known to give the same again; None if it is."""
    kind = _own(type(module))
    if kind in _KNOWN:
        return None if kind.forward is _KNOWN[kind] else f"is {kind.__name__}, whose forward was replaced"
    if not trusted:
        return f"is {kind.__name__}, a class that may do more than a plan shows (see plan in docs/fast.md)"
    own = {name: value for name, value in vars(module).items() if name not in _EMPTY}
    changing = next((name for name, value in own.items() if not isinstance(value, _UNCHANGING)), None)
    return None if changing is None else f"has {changing!r}, which can change without being seen"


def _own(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that look-ups were mixed into."""
    mixed = len(kind.__bases__) == 2 and kind.__bases__[0].__module__.startswith("isofire.lookup.")
    # by `mix`, which adds nothing of its own
    return _own(kind.__bases__[1]) if mixed and not any(map(callable, vars(kind).values())) else kind
