"""Where the spikes of an integer network differ from the float network's, counted, with the reason."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isofire.adapters import find_neurons, heard, is_integer
from isofire.errors import ModelError
from isofire.integer.network import IntegerNetwork
from isofire.neurons import Neuron
from isofire.quantization import convert, is_converted, spec_of
from isofire.quantization.on_levels import require_levels
from isofire.running import evaluating
from isofire.text_table import TableShown, TextTable, screen_width


@dataclass
class LayerDifference:
    """Neuron-steps of a layer, and in how many of them spikes differ.

    Attributes
    ----------
    places
        Neurons times steps times images.
    differ
        The network in float32, as it is, against the integer network.
    beyond_float32
        The same network computed in float64 against the integer network: what is left without float32's rounding.
    begun
        Of those, what is there although earlier layers hand on the float64 network's spikes: the rest is inherited.
        None for a chip's network that delays spikes.
    """

    places: int = 0
    differ: int = 0
    beyond_float32: int = 0
    begun: int | None = 0

    def reason(self, notes: tuple[str, ...]) -> str:
        """Why, in words; a layer's differences come from its own rounding or from earlier layers."""
        if not self.differ and not self.beyond_float32:
            return "equal"
        if not self.beyond_float32:
            return "rounding of float32: in float64 the network gives the integers' spikes"
        if self.begun == 0:
            return "inherited: given the float64 network's spikes of earlier layers, it fires as that one"
        return "; ".join(("integers round what the float network does not, here or in earlier layers", *notes))


@dataclass(frozen=True)
class Differences(TableShown):
    """Layer -> differences, and the images they were counted on."""

    layers: dict[str, LayerDifference]
    notes: dict[str, tuple[str, ...]]
    images: int

    @property
    def total(self) -> int:
        """Differing neuron-steps of all layers."""
        return sum(layer.differ for layer in self.layers.values())

    def table(self) -> str:
        """A line a layer, then why, once for all layers of which it holds."""
        rows, why = [], {}
        for name, item in self.layers.items():
            begun = "-" if item.begun is None else f"{item.begun:,}"
            rows.append([name, f"{item.places:,}", f"{item.differ:,}", f"{item.beyond_float32:,}", begun])
            why.setdefault(item.reason(self.notes.get(name, ())), []).append(name)
        titles = ["layer", "neuron-steps", "differ", "float64", "begin here"]
        lines = [f"{', '.join(names)}: {reason}" for reason, names in why.items()]
        if len(lines) == 1:
            lines = [f"all layers: {reason}" for reason in why]
        width = screen_width()
        told = [textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines]
        return "\n".join([TextTable(titles, rows).text(), "", *told])


@torch.no_grad()
def differences(model: nn.Module, network: IntegerNetwork, batches: Iterable[Tensor]) -> Differences:
    """Count the neuron-steps in which `network`, lowered from `model`, fires otherwise.

    The float network runs twice, as it is and in float64 with the reference neurons: differences that float64 does not
    have are the rounding of float32, not of the integers.

    Parameters
    ----------
    batches
        Inputs as the model takes them.

    Raises
    ------
    ModelError
        If the two are not a float network and an integer one, in this order.
    """
    if is_integer(model) or not isinstance(network, IntegerNetwork):
        raise ModelError(
            "differences takes the float network first and the IntegerNetwork that was lowered from it second, got "
            f"{type(model).__name__} and {type(network).__name__}"
        )
    require_levels(model)
    if spec_of(model) is not None and not is_converted(model):
        model = convert(model)
    exact = copy.deepcopy(model).double()
    for module in exact.modules():
        if isinstance(module, Neuron):
            module.backend = "reference"
    layers = {name: LayerDifference() for name in network.order}
    images = 0
    for inputs in batches:
        single, double = _spikes(model, inputs), _spikes(exact, inputs.double())
        whole, begun = _whole(network, inputs, double)
        images += next(iter(whole.values())).shape[1]
        for name, layer in layers.items():
            layer.places += whole[name].numel()
            layer.differ += int((single[name] != whole[name]).sum())
            layer.beyond_float32 += int((double[name] != whole[name]).sum())
            layer.begun = None if begun is None or layer.begun is None else layer.begun + begun[name]
    return Differences(layers, network.notes, images)


def _whole(
    network: IntegerNetwork, inputs: Tensor, double: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, int] | None]:
    """The integer network's spikes, and how many of each layer differ where it gets the float64 network's."""
    codes = network.codes(inputs)
    if any(network.latency.values()):
        return network.aligned(codes).spikes, None
    handed = network.run(codes, handed=double).spikes
    begun = {name: int((double[name] != spikes).sum()) for name, spikes in handed.items()}
    # where no difference begins, the network left to itself hands on the same spikes
    return network.run(codes).spikes if any(begun.values()) else handed, begun


def _spikes(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def note(name: str, spikes: Tensor) -> None:
        kept[name] = spikes.to(torch.int64)

    with heard(find_neurons(model), note), evaluating(model):
        model(inputs)
    return kept
