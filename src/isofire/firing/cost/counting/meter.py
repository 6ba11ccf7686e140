"""Counting what an inference takes: spikes, events and operations at every place with weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Fired, Layout, batch_first, find_keepers, require_whole, states_after
from isofire.errors import ModelError
from isofire.firing.cost.counting.repeated import Repeated
from isofire.firing.cost.counting.row_sums import RowSums
from isofire.firing.cost.counting.tally import REAL, Lying, SiteCall, SiteTally, SpikeTally
from isofire.firing.cost.events.events import Events, Source, is_whole
from isofire.firing.cost.events.forms import by_height
from isofire.firing.cost.events.spikes import spikes as spikes_of
from isofire.firing.cost.following.contacts import Contact, without_sums_of_more
from isofire.firing.cost.following.made_weights import MadeWeights
from isofire.firing.cost.following.numbers import numbers_in
from isofire.firing.cost.following.trace import Trace
from isofire.firing.record import called_again, not_called
from isofire.running import OfOnePass, hooked


class CostMeter(OfOnePass):
    """Counts in the passes made by `run` inside `counting`.

    Parameters
    ----------
    model
        The network, in eval mode.
    lying
        How rows lie, where that has been found out.
    probing
        Whether it is to be found out.
    """

    def __init__(self, model: nn.Module, lying: Lying | None = None, *, probing: bool = False) -> None:
        self.model, self.lying = model, lying or Lying()
        self.repeated = Repeated()
        self.trace = Trace(model, self._contact, self._fired)
        self.spikes = {name: SpikeTally() for name in self.trace.neurons}
        self.sites: dict[str, SiteTally] = {}
        self.steps = 0
        self.stepped = False
        """Whether neurons see single steps."""
        self.images = 0
        self.kept: dict[str, list[int]] = {}
        """Layer that does not spike -> numbers in each of its states, of one image."""
        self.made = MadeWeights(self.trace)
        self.strangers: dict[str, tuple[str, float]] = {}
        """Module that isofire does not know as neurons -> how it gives spikes, and of how many neurons."""
        self.unsure: set[str] = set()
        """Places where which row belongs to which image was a guess."""
        self._batch_first = batch_first(model)
        self._together = 1
        self._calls: list[tuple[Contact, Tensor, list[int] | None, Tensor | None]] = []
        self._sums = RowSums(self.trace.is_stored, keep=probing)

    @contextmanager
    def counting(self) -> Iterator[CostMeter]:
        """Hooks on the model, and none left behind."""
        with (
            self.trace.following(),
            hooked(
                layer.register_forward_hook(partial(self._keeps, name))
                for name, layer in find_keepers(self.model).items()
            ),
        ):
            yield self

    def run(self, inputs: Tensor, images: int, forward: Any, *, alike: bool = False, wary: bool = False) -> bool:
        """One forward pass; False where it is not counted.

        Parameters
        ----------
        inputs, images
            A batch, and the images in it.
        forward
            Called with the model and the inputs.
        alike
            Whether the batch is one image, repeated; it counts as one then.
        wary
            Whether it is not to be counted where images may have decided which rows are whose.

        Raises
        ------
        ModelError
            If a layer of neurons was not called, or in an order of axes that cannot be told.
        """
        self._calls.clear()
        self._sums.begin()
        self._together = images
        for tally in self.spikes.values():
            tally.calls.clear()
        self.trace.run(inputs, forward)
        if wary and self.trace.by_data:
            return False
        layers = {contact.site for contact, *_ in self._calls if not contact.arrival.perhaps}
        contacts = without_sums_of_more([contact for contact, *_ in self._calls])
        self._calls = [(contact, *call[1:]) for contact, call in zip(contacts, self._calls, strict=True)
                       if contact.site in layers]  # fmt: skip
        for name, tally in self.spikes.items():
            total = self._settled_spikes(name, tally, images)
            tally.totals += [total[:, 0]] if alike else list(total.unbind(1))
        for name, (how, size) in self.trace.unknown_spikes.found().items():
            number = size / (self.steps * images)
            if number > self.strangers.get(name, ("", 0.0))[1]:
                self.strangers[name] = how, number
        self.made.see([(contact.site, contact.arrival.weight) for contact, *_ in self._calls])
        counted = 1 if alike else images
        seen: dict[str, list[list[SiteCall]]] = {}
        for contact, sums, keys, rows in self._calls:
            tally = self.sites.setdefault(
                contact.site, SiteTally(contact.arrival.fan_in, images=[[] for _ in range(self.images)])
            )
            tally.through |= contact.events.through
            tally.fan_in = max(tally.fan_in, contact.arrival.fan_in)
            calls = seen.setdefault(contact.site, [[] for _ in range(counted)])
            for mine, call in zip(calls, self._settled(contact, sums, keys, rows, images, alike), strict=True):
                mine.append(call)
        for name, tally in self.sites.items():
            tally.images += seen.get(name, [[] for _ in range(counted)])
        self.images += counted
        return True

    def _settled_spikes(self, name: str, tally: SpikeTally, images: int) -> Tensor:
        if not tally.calls:
            raise ModelError(
                f"{not_called(name)}; costs are of all neurons: take those that the model skips out of a copy of it"
            )
        self.stepped = self.stepped or len(tally.calls) > 1
        total = torch.cat(tally.calls)
        self.steps = self.steps or len(total)
        if self.images and len(total) != self.steps and total.shape[1] == images:
            raise ModelError(
                f"T must stay {self.steps} for all images, got T = {len(total)} (neuron {name!r}); pad or cut the "
                "recordings to one T, or measure those of each T apart; a network that decides itself how long it runs "
                "is measured with its T fixed"
            )
        if tuple(total.shape) != (self.steps, images):
            steps, seen = total.shape
            cure = "give every place its own neuron module"
            if seen == images:
                cure = (
                    "costs are of one T: a network that pools or strides over time is measured in parts, each between "
                    "two such places"
                )
            if steps == self.steps and seen > images and seen % images == 0:
                cure = (
                    f"each image is {seen // images} there: give neurons the parts of an image (patches, views) on an "
                    f"axis of their own, [T, N, {seen // images}, ...], and not folded into the batch; inputs "
                    "[N, T, ...] of a network that takes [T, N, ...] are to be turned round"
                )
            raise ModelError(
                f"neurons must see [T, N, ...] with T = {self.steps}, N = {images}, {name!r} saw "
                f"{list(total.shape)}; {cure}"
            )
        return total

    def _keeps(self, name: str, layer: nn.Module, _inputs: Any, output: Any) -> None:
        sizes = [math.ceil(numbers_in(state) / self._together) for state in states_after(layer, output) or ()]
        if sum(sizes) > sum(self.kept.get(name, ())):
            self.kept[name] = sizes

    def _fired(self, name: str, fired: Fired) -> Events:
        module, adapter, spikes = fired.module, fired.adapter, fired.spikes.detach().double()
        require_whole(name, spikes, self._together)
        tally = self.spikes[name]
        if tally.calls and adapter.layout(module) is not Layout.STEP:
            raise called_again(self.model, name)
        # of images of several sizes, a memory that holds each
        tally.neurons = max(tally.neurons, spikes[0, 0].numel())
        held = adapter.held(module)
        tally.states = max(tally.states, spikes[0, 0].numel() if held is None else held[0].numel())
        if not bool((spikes == spikes.round()).all()):
            value = float(spikes[spikes != spikes.round()][0])
            raise ModelError(
                f"a neuron must give whole numbers of spikes, those of {name!r} do not: got {value:.9g}; let its "
                "adapter's spikes() divide by a spike's height"
            )
        # one of -1 is a spike
        tally.calls.append(spikes.abs().flatten(2).sum(2, dtype=torch.float64).cpu())
        values, heights = fired.values.detach().double(), fired.heights
        whole, below = by_height(heights), bool((values < 0).any())
        count = values if whole else (values / heights).round()
        return spikes_of(name, count.abs(), heights, below=below)

    def _contact(self, contact: Contact) -> None:
        if contact.arrival.x is not None and not contact.arrival.x.numel():
            # a layer to which no part of the image was sent
            return
        self.trace.pause(True)
        self._calls.append((contact, *self._sums.of(contact)))
        self.trace.pause(False)

    def _settled(
        self,
        contact: Contact,
        sums: Tensor,
        keys: list[int] | None,
        rows: Tensor | None,
        images: int,
        alike: bool,
    ) -> list[SiteCall]:
        """Of each image: rows put together by steps where they are known to be steps, else all together."""
        again = False
        if contact.arrival.x is None:
            sums, image, step = (sums / images).expand(-1, images), torch.arange(images), None
        else:
            image, step = self._places(contact, sums.shape[1], images)
            step = None if contact.site in self.lying.parts else step
            if keys is not None and not contact.constant:
                step, again = self.repeated.see(contact.site, self.lying, keys, rows, image, step, self.steps)
        if alike:
            image, images, sums = torch.zeros_like(image), 1, sums / images
        width = 1 if step is None else self.steps
        place = image * width + (0 if step is None else step)
        summed = torch.zeros(len(sums), images * width, dtype=torch.float64).index_add(1, place, sums)
        grouped: list[list[int]] = [[] for _ in range(images * width)]
        for key, spot in zip(keys or (), place.tolist(), strict=False):
            grouped[spot].append(key)
        if keys is not None and contact.source == Source.SPIKES and step is None and len(place) > images:
            keys = None
        static = [None if keys is None else tuple(hash(tuple(group)) for group in grouped[i * width : (i + 1) * width])
                  for i in range(images)]  # fmt: skip
        x = contact.arrival.x
        counted = contact.events.count is not None or (contact.constant and x is not None and is_whole(x))
        real = not counted or bool(sums[REAL].any())
        by_value = bool(contact.events.through)
        return [
            SiteCall(
                part, counted, real, by_value, contact.neuron_calls, known, contact.constant, contact.inside, again
            )
            for part, known in zip(summed.view(len(sums), images, width).unbind(1), static, strict=True)
        ]

    def _places(self, contact: Contact, rows: int, images: int) -> tuple[Tensor, Tensor | None]:
        """Image and step of each row; no steps where they are not known, or all rows are of one."""
        steps, lead, index = self.steps, contact.lead, torch.arange(rows)
        if images == 1 and (steps == 1 or rows % steps):
            return torch.zeros_like(index), None
        both = steps * images
        if lead and not rows % both and (lead[0] == both or lead[:2] in ((steps, images), (images, steps))):
            turned = self._batch_first and (lead[0] == both or lead[:2] == (images, steps))
            unit = index // (rows // both)
            if lead[0] == both or turned or lead[:2] == (steps, images):
                return (unit // steps, unit % steps) if turned else (unit % images, unit // images)
        if lead and lead[0] == images and not rows % images:
            return index // (rows // images), None
        if lead and images == 1:
            return torch.zeros_like(index), None
        if images > 1:
            self.unsure.add(contact.site)
        if rows == both:
            return (index // steps, index % steps) if self._batch_first else (index % images, index // images)
        return index % images, None
