"""How many synaptic operations a spike of each neuron causes, through sums, pooling and whatever else is linear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Fired, find_keepers, input_axis, refuse_integers
from isofire.errors import ModelError
from isofire.firing.cost.events.events import LEVELS, Events, Source
from isofire.firing.cost.events.forms import by_height
from isofire.firing.cost.events.spikes import spikes as spikes_of
from isofire.firing.cost.few import few_or_all
from isofire.firing.cost.following.contacts import Contact, without_sums_of_more
from isofire.firing.cost.following.inside import RECURRENCE
from isofire.firing.cost.following.trace import Trace
from isofire.firing.cost.left_out import LeftOut, left_out, strangers
from isofire.firing.record import not_called
from isofire.running import evaluating, forward


class SynopsPerSpike(Mapping[str, Tensor]):
    """Layer of neurons -> synaptic operations of one spike of each neuron, float64 [n].

    Attributes
    ----------
    left_out
        Places with weights whose operations are no such sum over spikes, and are not in it.
    driven
        Synapses that spikes come to, of the few images that were looked at.
    input_synapses
        Place to which events of the input come -> synapses that they come to there.
    own_states
        Modules whose own code keeps numbers from step to step, which are in no state memory.
    beside_spikes
        Places to which events of the input come together with spikes.
    unknown_neurons
        Modules that give spikes and are no neurons that isofire knows, so that no rate holds them.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        left_out: tuple[LeftOut, ...] = (),
        driven: float = 0.0,
        input_synapses: Mapping[str, float] | None = None,
        own_states: tuple[str, ...] = (),
        unknown_neurons: tuple[LeftOut, ...] = (),
        beside_spikes: Iterable[str] = (),
    ) -> None:
        self._weights, self.left_out, self.driven = dict(weights), left_out, driven
        self.input_synapses, self.own_states = dict(input_synapses or {}), own_states
        self.unknown_neurons, self.beside_spikes = unknown_neurons, tuple(beside_spikes)

    def with_unknown(self, unknown_neurons: tuple[LeftOut, ...]) -> SynopsPerSpike:
        """The same with other `unknown_neurons`."""
        return SynopsPerSpike(
            self._weights,
            self.left_out,
            self.driven,
            self.input_synapses,
            self.own_states,
            unknown_neurons,
            self.beside_spikes,
        )

    @property
    def by_input(self) -> tuple[LeftOut, ...]:
        """Places to which events of the input come: their operations are the same whatever fires, and not in it."""
        total = max(self.driven + sum(self.input_synapses.values()), 1)
        reason, of = "driven by the input's events, whatever fires", "the synapses that events come to"
        return (
            *(LeftOut(name=name, reason=reason, share=size / total, of=of)
              for name, size in self.input_synapses.items()),
            *(LeftOut(name=name, reason=f"{reason}, beside spikes", share=None, of=of)
              for name in self.beside_spikes),
        )  # fmt: skip

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def reach(model: nn.Module, inputs: Tensor) -> SynopsPerSpike:
    """Synaptic operations that one spike of each neuron causes in all layers it comes to as an event.

    Between neurons and weights a spike may be added to others (SEW's ADD), pooled, scaled or reshaped. As long as all
    of that is linear, the operations of a network are a weighted sum of its spikes, and the weights are their gradient:
    neurons give chance spikes in place of their own, the events that arrive at weights are followed (see
    `isofire.firing.cost.following.trace`), and the operations are differentiated by the spikes. Layers to which no
    events come but real values multiply, whatever fires, and have no part in it.

    Parameters
    ----------
    model
        Its weights do not matter, only its structure.
    inputs
        A few images as the model takes them; only their shape matters.

    Returns
    -------
    SynopsPerSpike
        Where a spike's operations depend on other spikes (SEW's AND and IAND, maximum pooling) or on the step, the
        place is not in the sum and stands in `left_out`.

    Raises
    ------
    ModelError
        If the network fails on these inputs, or a neuron's output cannot be replaced.
    """
    refuse_integers(model)
    probe = _Probe(model)
    # spikes are replaced in place, which what inference mode makes does not allow
    with torch.inference_mode(False), evaluating(model):
        return probe.run(inputs.detach().clone())


def reach_on(model: nn.Module, inputs: Tensor, images: int | None = None) -> SynopsPerSpike:
    """`reach`, on a few images of a batch, or on all of it where the network takes no fewer, where the model is.

    Parameters
    ----------
    inputs
        A batch, as the model takes it.
    images
        How many it holds, where that is known.

    Raises
    ------
    ModelError, DataError
        As `reach` and `isofire.adapters.input_axis`.
    """
    axis = input_axis(model, inputs, images)
    return few_or_all(model, inputs, inputs.shape[axis], 2, partial(reach, model))[2]


class _Probe:
    def __init__(self, model: nn.Module) -> None:
        self.trace = Trace(model, self._contact, self._fired)
        self.model = model
        self.leaves: dict[str, list[tuple[Tensor, Fired]]] = {name: [] for name in self.trace.neurons}
        self.totals: dict[str, Tensor] = {}
        self.synapses: dict[str, float] = {}
        self.input_synapses: dict[str, float] = {}
        self.beside_spikes: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.chance = torch.Generator().manual_seed(0)
        self.contacts: list[tuple[Contact, float, Tensor | None]] = []
        """Of each contact, the synapses that events come to, and the operations."""

    def run(self, inputs: Tensor) -> SynopsPerSpike:
        with self.trace.following():
            self.trace.run(inputs, forward)
        with torch.enable_grad():
            self._add_up()
        found = {name: self._nothing(name) for name in self.leaves}
        for site, total in self.totals.items():
            alone = {} if site in self.reasons else self._differentiate(site, total)
            # all of a place, or none of it
            for name, each in alone.items() if site not in self.reasons else ():
                found[name] = found[name] + each
        driven = sum(self.synapses.values())
        missing = [
            LeftOut(name=site, reason=reason, share=self.synapses[site] / driven, of="the synapses that spikes come to")
            for site, reason in self.reasons.items()
        ]
        others = left_out(self.model, self.trace, self._steps(), find_keepers(self.model))
        unknown = [item for item in others if item.of != "states"]
        states = tuple(item.name for item in others if item.of == "states")
        calls = sum(steps * images for steps, images in self._sizes())
        given = {name: (how, size / calls) for name, (how, size) in self.trace.unknown_spikes.found().items()}
        others = strangers(self.model, given, sum(map(len, found.values())), "rate")
        return SynopsPerSpike(
            found, (*missing, *unknown), driven, self.input_synapses, states, others, sorted(self.beside_spikes)
        )

    def _steps(self) -> int:
        return sum(steps for steps, _ in self._sizes())

    def _sizes(self) -> list[tuple[int, int]]:
        """Steps and images of each call of the first neuron."""
        calls = [fired.spikes.shape for _, fired in next(iter(self.leaves.values()))]
        return [(shape[0], shape[1]) for shape in calls]

    def _differentiate(self, site: str, total: Tensor) -> dict[str, Tensor]:
        """What a spike of each layer that comes to a place costs there, [n], where that hangs on no step."""
        found = {}
        flat = [(name, leaf, fired) for name, kept in self.leaves.items() for leaf, fired in kept]
        grads = torch.autograd.grad(total, [leaf for _, leaf, _ in flat], allow_unused=True, retain_graph=True)
        for name in self.leaves:
            found_by = zip(flat, grads, strict=True)
            rows = [(fired, leaf, grad) for (owner, leaf, fired), grad in found_by if owner == name]
            if any(grad is not None for *_, grad in rows):
                found |= self._shared(name, site, rows)
        return found

    def _shared(self, name: str, site: str, parts: list[Any]) -> dict[str, Tensor]:
        """The gradient that all images and steps share, [n], by the layer's name."""
        shaped = [fired.in_order(torch.zeros_like(leaf) if grad is None else grad) for fired, leaf, grad in parts]
        # [T, N] of a single neuron has no axis of neurons
        rows = torch.cat([steps.flatten(0, 1).reshape(steps.shape[0] * steps.shape[1], -1) for steps in shaped])
        rows = rows.double().cpu()
        # sums of fractions in another order
        rows = torch.where((rows - rows.round()).abs() < 1e-9 * rows.abs().clamp(min=1), rows.round(), rows)
        if bool((rows == rows[:1]).all()):
            return {name: rows[0]}
        self.reasons[site] = "what a spike costs there depends on its step"
        return {}

    def _nothing(self, name: str) -> Tensor:
        if not self.leaves[name]:
            raise ModelError(not_called(name))
        return torch.zeros(self.leaves[name][0][1].spikes[0, 0].numel(), dtype=torch.float64)

    def _fired(self, name: str, fired: Fired) -> Events:
        values, heights = fired.values, fired.heights
        fires = torch.rand(values.shape, generator=self.chance) < 0.5
        try:
            with torch.no_grad():
                # in place, so that a neuron that feeds its spikes back to itself feeds back these
                values.copy_(fires.to(values.device) * heights)
        except RuntimeError as error:
            raise ModelError(f"the spikes of neuron {name!r} cannot be replaced: {error}") from error
        leaf = fires.to(values.device, torch.float64).requires_grad_()
        self.leaves[name].append((leaf, fired))
        # a spike of -1 is a spike
        count = leaf * (heights.abs() if by_height(heights) else 1)
        return spikes_of(name, count, heights, below=bool((heights < 0).any()))

    def _contact(self, contact: Contact) -> None:
        count, x = contact.events.count, contact.arrival.x
        if x is None or (count is None and not contact.makers):
            self.contacts.append((contact, 0.0, None))
            return
        self.trace.pause(True)
        fan = contact.arrival.fan_out("all").to(x.device)
        if count is None:
            total, size = None, float(fan.sum())
        else:
            total = (torch.nan_to_num(count, posinf=0) * fan).sum() if count.requires_grad else None
            size = float((fan * count.detach().isfinite()).sum())
        self.contacts.append((contact, size, total))
        self.trace.pause(False)

    def _add_up(self) -> None:
        """By place, what events come to."""
        settled = without_sums_of_more([contact for contact, _, _ in self.contacts])
        for contact, (_, size, total) in zip(settled, self.contacts, strict=True):
            site, through = contact.site, sorted(contact.events.through)
            unknown = self.trace.unknown_spikes.modules(contact.makers)
            if contact.arrival.x is None or (contact.events.count is None and not unknown):
                continue
            spiking = contact.source == Source.SPIKES or bool(unknown) or contact.weighed
            sizes = self.synapses if spiking else self.input_synapses
            sizes[site] = sizes.get(site, 0) + size
            if not spiking:
                continue
            if unknown:
                self.reasons[site] = f"driven by spikes of {', '.join(sorted(unknown))}, which are in no rate"
                continue
            if contact.source != Source.SPIKES:
                self.reasons[site] = f"driven by whole numbers made of what weights give ({', '.join(through)})"
                continue
            if through:
                inside = through == [RECURRENCE]
                self.reasons[site] = RECURRENCE if inside else f"behind {', '.join(through)}, which is not linear"
            elif total is not None:
                if LEVELS in contact.events.forms:
                    self.beside_spikes.add(site)
                self.totals[site] = total + self.totals.get(site, 0)
