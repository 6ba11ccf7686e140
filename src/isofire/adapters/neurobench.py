"""Running isofire's networks, and others that it knows, under NeuroBench's harness. Imports NeuroBench."""

from __future__ import annotations

from typing import Any

from neurobench.models import NeuroBenchModel  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

from isofire.adapters.output import read_logits
from isofire.adapters.registry import find_neurons, reset_
from isofire.running import forward


class BenchModel(NeuroBenchModel):
    """A network as `neurobench.benchmarks.Benchmark` takes it, quantized or not.

    Every kind of spiking neuron in the model is measured as an activation; each batch runs from rest. NeuroBench's
    footprint counts the bytes of the tensors as they are, floats, quantized or not.

    Parameters
    ----------
    model
        From images [N, ...] or frames [T, N, ...] to logits.
    frames
        Whether NeuroBench's batches are frames [N, T, ...], which a time-first model takes as [T, N, ...].

    Examples
    --------
    >>> model = BenchModel(quantized)  # doctest: +SKIP
    >>> Benchmark(model, loader, [], [ChooseMaxCount()], [[], [ClassificationAccuracy]])  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module, *, frames: bool = False) -> None:
        super().__init__()
        self.model, self.frames = model.eval(), frames
        for kind in dict.fromkeys(type(neuron) for neuron, _ in find_neurons(model).values()):
            self.add_activation_module(kind)

    def __call__(self, batch: Tensor) -> Tensor:
        """Logits [N, T, classes], or [N, classes] of a model that gives no time."""
        reset_(self.model)
        inputs = batch.transpose(0, 1) if self.frames else batch
        logits = read_logits(self.model, forward(self.model, inputs), len(batch), inputs)
        return logits.transpose(0, 1) if logits.ndim == 3 else logits

    def __net__(self) -> Any:
        return self.model
