"""How many synaptic operations a spike of each neuron causes, through residual sums and pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import Adapter, from_rest
from isofire.errors import ModelError
from isofire.firing.cost.synapses import Weighted, fan_out, is_whole, sample_dims, weighted_layers
from isofire.firing.record import spiking_adapters
from isofire.quantization.temporal import TemporalLayer
from isofire.running import evaluating

SynopsPerSpike = Mapping[str, Tensor]
"""Layer of neurons -> synaptic operations of one spike of each neuron, float64 [n]."""


def reach(model: nn.Module, inputs: Tensor) -> SynopsPerSpike:
    """Synaptic operations that one spike of each neuron causes in all event-driven layers it comes to.

    Between neurons and weights a spike may be added to others (SEW's ADD), pooled or reshaped. As long as all of that
    is linear, the operations of a network are a weighted sum of its spikes, and the weights are their gradient: neurons
    give chance spikes in place of their own, which are cut out of the graph, and the operations are differentiated by
    them. Layers that multiply averages instead of adding up spikes are left out, as they are in `synops`.

    Parameters
    ----------
    model
        Its weights do not matter, only its structure.
    inputs
        A few images as the model takes them, two or more; only their shape matters.

    Raises
    ------
    ModelError
        If a spike's operations depend on other spikes (SEW's AND and IAND, maximum pooling), or a neuron's output
        cannot be cut out of the graph.
    """
    probe = _Probe(model)
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        return probe.run(inputs.detach().clone())


class _Probe:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.neurons = spiking_adapters(model)
        self.leaves: dict[str, list[Tensor]] = {name: [] for name in self.neurons}
        self.total = torch.zeros((), dtype=torch.float64)
        self.fans: dict[nn.Module, Tensor] = {}
        self.chance = torch.Generator().manual_seed(0)

    def run(self, inputs: Tensor) -> SynopsPerSpike:
        handles = [
            item.register_forward_hook(self._cut(name, adapter)) for name, (item, adapter) in self.neurons.items()
        ]
        handles += [layer.register_forward_pre_hook(self._add) for layer in weighted_layers(self.model).values()]
        try:
            with from_rest(self.model):
                self.model(inputs)
        finally:
            for handle in handles:
                handle.remove()
        leaves = [leaf for kept in self.leaves.values() for leaf in kept]
        if not self.total.requires_grad:
            grads: Sequence[Tensor | None] = [None] * len(leaves)
        else:
            grads = torch.autograd.grad(self.total, leaves, allow_unused=True)
        rows = iter(zip(leaves, grads, strict=True))
        return {name: self._common(name, [next(rows) for _ in kept]) for name, kept in self.leaves.items()}

    def _cut(self, name: str, adapter: Adapter) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            spikes = output[0] if isinstance(output, tuple) else output
            if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
                raise ModelError(
                    f"neuron {name!r} gives {type(spikes).__name__}, where floating-point spikes are needed"
                )
            fires = torch.rand(spikes.shape, generator=self.chance) < 0.5
            leaf = fires.to(spikes).requires_grad_()
            self.leaves[name].append(leaf)
            return (leaf, *output[1:]) if isinstance(output, tuple) else leaf

        return hook

    def _add(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        assert isinstance(layer, Weighted)
        if not x.requires_grad or not is_whole(x.detach()):
            return
        if layer not in self.fans:
            fans = fan_out(layer, tuple(x.shape[x.ndim - sample_dims(layer) :])).to(x.device)
            self.fans[layer] = fans[0] if isinstance(layer, TemporalLayer) else fans
        self.total = self.total.to(x.device) + (x.double() * self.fans[layer]).sum()

    def _common(self, name: str, found: list[tuple[Tensor, Tensor | None]]) -> Tensor:
        """The gradient that all images and steps share, [n]."""
        module, adapter = self.neurons[name]
        shaped = [adapter.spikes(module, torch.zeros_like(leaf) if grad is None else grad) for leaf, grad in found]
        rows = torch.cat([steps.flatten(0, 1).flatten(1) for steps in shaped]).double().cpu()
        if not bool((rows == rows[:1]).all()):
            raise ModelError(
                f"what a spike of {name!r} costs depends on other spikes (a product, or maximum pooling, on its way to "
                "the next weights), so the cost is no sum over spikes; measure it with isofire.firing.cost.measure_cost"
            )
        return rows[0]
