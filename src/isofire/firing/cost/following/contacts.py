"""Operations that multiply what arrives with weights, and how many synapses each arriving element drives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from isofire.firing.cost.events.events import NONE, Events, Source
from isofire.firing.cost.events.operations import ATTENTIONS, CONVOLUTIONS, PRODUCTS, RNNS

Which = Literal["all", "nonzero"]


@dataclass(frozen=True)
class Arrival:
    """What arrives at weights in one operation.

    Parameters
    ----------
    weight
        The weights; None where two tensors that both depend on the input are multiplied.
    synapses
        Multiply-accumulates if every element of what arrives is worked on; None leaves them to be summed from `fan`.
    x
        What arrives; None where its elements are not looked at (a recurrent layer's own state).
    axis
        The axis of `x` along which images and steps lie.
    fan
        Weights of 0 and 1 -> synapses of each element, of a shape that broadcasts to `x`'s.
    options
        What beside weights and `x`'s shape the fan-outs depend on.
    fan_in
        Synapses that end in one output, away from the borders.
    perhaps
        Whether both factors are parameters: an initial state that arrives at weights, if these are weights at which
        else the input arrives, and else a weight being made.
    sparse
        Whether weights of 0 are no synapses.
    """

    weight: Tensor | None
    synapses: int | None
    x: Tensor | None = None
    axis: int = 0
    fan: Callable[[Tensor], Tensor] | None = None
    options: str = ""
    fan_in: int = 1
    perhaps: bool = False
    sparse: bool = False

    def fan_out(self, which: Which) -> Tensor:
        """Synapses of each element, float64; a complex weight is two."""
        assert self.weight is not None
        assert self.fan is not None
        weight, which = self.weight.detach().resolve_conj().resolve_neg(), "nonzero" if self.sparse else which
        if weight.is_complex() and not bool(weight.imag.any()):
            weight = weight.real
        if not weight.is_complex():
            return self.fan((torch.ones_like(weight) if which == "all" else weight != 0).double())
        parts = torch.view_as_real(weight.resolve_conj())
        return self.fan((torch.ones_like(parts) if which == "all" else parts != 0).double().sum(-1))


@dataclass(frozen=True)
class Contact:
    """What arrived at weights in one operation of the forward pass.

    Parameters
    ----------
    site
        Name of the layer: the module that holds the weights, or the parameter's own name where it is not `weight`;
        for products of activations the module in which they happen.
    arrival, events, source
        What arrived, its events, and whether it comes from the input or from spikes.
    neuron_calls
        Calls of neurons before it in this forward pass.
    lead
        First axes of what the module was given in which it happens; empty where rows are known to lie otherwise.
    constant
        Whether what arrived depends on nothing: a state at rest, a bias unit.
    inside
        Whether it happened in a neuron.
    weighed
        Whether other weights had a part in what arrived, since the last neurons.
    makers
        Whose spikes it holds, of those in `isofire.firing.cost.following.unknown_spikes`.
    """

    site: str
    arrival: Arrival
    events: Events
    source: Source
    neuron_calls: int
    lead: tuple[int, ...]
    constant: bool = False
    inside: bool = False
    weighed: bool = False
    makers: frozenset[str] = frozenset()


def without_sums_of_more(contacts: Sequence[Contact]) -> list[Contact]:
    """Contacts of one forward pass; those have no events where the same weights see ever longer sums of spikes.

    A running mean, or a state that first holds nothing but the step's spikes, brings each spike again at later steps.
    What a layer sees in another call, made of the spikes without adding to them (a softmax), changes nothing.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, contact in enumerate(contacts):
        if contact.arrival.x is not None:
            for layer, form in contact.events.forms.items():
                if form.factor is None and not form.terms:
                    continue
                groups.setdefault((contact.site, layer, contact.arrival.x.shape), []).append(place)
    real: set[int] = set()
    for (_, layer, _), places in groups.items():
        events = [contacts[place].events for place in places]
        if len({item.forms[layer].terms for item in events}) > 1 and not all(item.whole for item in events):
            real.update(places)
    return [replace(contact, events=NONE) if place in real else contact for place, contact in enumerate(contacts)]


def arrivals(name: str, args: Sequence[Any], output: Any, source: Callable[[Tensor], Source]) -> list[Arrival] | None:
    """What arrives at weights in the operation `name`; None if it multiplies with none."""
    found = _arrivals(name, args, output, source)
    if found and isinstance(output, Tensor) and output.is_complex():
        # of two complex numbers four products are taken
        return [replace(item, synapses=4 * item.synapses) if item.weight is None and item.synapses else item
                for item in found]  # fmt: skip
    return found


def _arrivals(name: str, args: Sequence[Any], output: Any, source: Callable[[Tensor], Source]) -> list[Arrival] | None:
    if name in CONVOLUTIONS:
        return _convolved(args, source)
    if name in PRODUCTS:
        return _multiplied(name, args[PRODUCTS[name] :], output, source)
    if name == "linear":
        return _multiplied("mm", (args[0].flatten(0, -2), args[1].t()), output, source)
    if name == "mul":
        return _spread(args, output, source)
    if name in ATTENTIONS and len(args) >= 3 and isinstance(args[2], Tensor):
        query, key, value = args[:3]
        products = query.shape[:-1].numel() * key.shape[-2]
        return [
            Arrival(None, products * (query.shape[-1] + value.shape[-1]), fan_in=max(query.shape[-1], key.shape[-2]))
        ]
    if name == "_trilinear":
        return [Arrival(args[1], args[0].shape[0] * args[1].numel(), fan_in=args[1][0].numel())]
    return _recurrent(name, args) if name in RNNS else None


def _convolved(args: Sequence[Any], source: Callable[[Tensor], Source]) -> list[Arrival] | None:
    x, weight, _, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    if source(x) < Source.INPUT and source(weight) != Source.WEIGHTS:
        return None
    ends = _taps(weight, stride, dilation) * (len(weight) // groups) if transposed else weight[0].numel()
    if source(weight) >= Source.INPUT:
        return [Arrival(None, _outputs(x, weight, args) * weight[0].numel(), fan_in=ends)]

    def fan(ones: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            one = torch.zeros((1, *x.shape[1:]), dtype=torch.float64, device=x.device, requires_grad=True)
            out = torch.convolution(one, ones, None, stride, padding, dilation, transposed, output_padding, groups)
            return torch.autograd.grad(out.sum(), one)[0]

    return [Arrival(weight, None, x, 0, fan, str(args[3:9]), ends, source(x) == Source.WEIGHTS)]


def _taps(weight: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> int:
    """Places of a transposed convolution's kernel that meet in one output, where most do."""
    axes = range(weight.ndim - 2)
    return math.prod(
        max(Counter(tap * dilation[axis % len(dilation)] % stride[axis % len(stride)]
                    for tap in range(weight.shape[2 + axis])).values())
        for axis in axes
    )  # fmt: skip


def _outputs(x: Tensor, weight: Tensor, args: Sequence[Any]) -> int:
    return torch.convolution(x.detach(), weight.detach(), None, *args[3:9]).numel()


def _multiplied(
    name: str, factors: Sequence[Any], output: Tensor, source: Callable[[Tensor], Source]
) -> list[Arrival] | None:
    left, right = factors[:2]
    inner = left.shape[-1]
    synapses = output.numel() * inner if name != "addbmm" else left.shape[0] * output.numel() * inner
    ends = inner if name != "addbmm" else left.shape[0] * inner
    sources = source(left), source(right)
    if sources == (Source.WEIGHTS, Source.WEIGHTS):
        both = _left(left, right, synapses, ends), _right(left, right, synapses, ends)
        return [replace(item, perhaps=True) for item in both]
    if max(sources) < Source.INPUT and sources != (Source.CONSTANT, Source.WEIGHTS):
        return None
    rests = Source.CONSTANT in sources and not bool(factors[sources.index(Source.CONSTANT)].any())
    if min(sources) >= Source.INPUT or (max(sources) >= Source.INPUT and rests):
        # what is nothing yet is a state too: weights made as the network runs
        return [Arrival(None, synapses, fan_in=ends)]
    # a state that is still at rest comes from nothing; what comes from parameters is the weights
    if sources[0] > sources[1] and sources != (Source.WEIGHTS, Source.CONSTANT):
        return [_left(left, right, synapses, ends)]
    return [_right(left, right, synapses, ends)] if sources[1] >= Source.INPUT else [_left(left, right, synapses, ends)]


def _left(x: Tensor, weight: Tensor, synapses: int, ends: int) -> Arrival:
    """x @ weight."""
    if weight.ndim == 1:
        return Arrival(weight, synapses, x, 0, lambda ones: ones, fan_in=ends)
    if weight.ndim == 3:
        return Arrival(weight, synapses, x, 0 if len(x) > 1 else 1, lambda ones: ones.sum(2).unsqueeze(1), "left", ends)
    return Arrival(weight, synapses, x, 0, lambda ones: ones.sum(1), fan_in=ends)


def _right(weight: Tensor, x: Tensor, synapses: int, ends: int) -> Arrival:
    """weight @ x."""
    if x.ndim == 1:
        return Arrival(weight, synapses, x, 0, lambda ones: ones if ones.ndim == 1 else ones.sum(0), fan_in=ends)
    if x.ndim == 3:
        return Arrival(
            weight, synapses, x, 0 if len(x) > 1 else 2, lambda ones: ones.sum(1).unsqueeze(2), "right", ends
        )
    return Arrival(weight, synapses, x, 1, lambda ones: ones.sum(0).unsqueeze(1), fan_in=ends)


def _spread(args: Sequence[Any], output: Tensor, source: Callable[[Tensor], Source]) -> list[Arrival] | None:
    """A product by elements in which one input meets several weights: a layer written out by hand."""
    a, b = args[:2]
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return None
    x, weight = (a, b) if source(a) > source(b) else (b, a)
    if source(x) < Source.INPUT or source(weight) != Source.WEIGHTS or output.numel() <= x.numel():
        return None
    # where the input is one and the weights several, these lead to several outputs
    shared = range(1, min(x.ndim, weight.ndim) + 1)
    ends = math.prod(weight.shape[-axis] for axis in shared if x.shape[-axis] > 1)
    fan = lambda ones: ones.expand(output.shape).sum_to_size(x.shape)  # noqa: E731
    return [Arrival(weight, output.numel(), x, 0, fan, str(output.shape), ends)]


def one_to_one(args: Sequence[Any], output: Tensor, is_weight: Callable[[Tensor], bool]) -> list[Arrival]:
    """A neuron's recurrent weights of which each leads from one neuron back to itself."""
    tensors = [x for x in args[:2] if isinstance(x, Tensor)]
    weights = [x for x in tensors if is_weight(x)]
    if len(tensors) != 2 or len(weights) != 1:
        return []
    x = tensors[0] if tensors[1] is weights[0] else tensors[1]
    return [Arrival(weights[0], output.numel(), x, 0, lambda ones: ones.expand(output.shape).sum_to_size(x.shape))]


def _recurrent(name: str, args: Sequence[Any]) -> list[Arrival]:
    x = args[0]
    if name == "mkldnn_rnn_layer":
        first, second = args[1], args[2]
        rows = x.flatten(0, -2)
        return [
            Arrival(first, rows.shape[0] * first.numel(), rows, 0, lambda ones: ones.sum(0), fan_in=first.shape[1]),
            Arrival(second, rows.shape[0] * second.numel(), fan_in=second.shape[1]),
        ]
    rows = x.shape[:-1].numel()
    return [Arrival(weight, rows * weight.numel(), fan_in=weight.shape[1]) for weight in args[1] if weight.ndim == 2]
