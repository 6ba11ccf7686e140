"""Recording how often every spiking neuron of a model fires, without keeping a single spike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from isofire.errors import DataError, ModelError, SpecError
from isofire.firing.counting import add_counts, add_image_counts, zero_counts
from isofire.firing.counts import SpikeCounts

if TYPE_CHECKING:
    from isofire.neurons import Neuron

DEFAULT_BLOCKS = 40
DEFAULT_RUN = 25
ROOT_NAME = "model"
"""Layer name of a model that is itself a single neuron layer."""


def spiking_layers(model: nn.Module) -> dict[str, Neuron]:
    """The spiking neurons of a model by module name, in the model's order; a neuron under two names has the first.

    Raises
    ------
    ModelError
        If there is none.
    """
    from isofire.neurons import Neuron

    if not isinstance(model, nn.Module):
        raise ModelError(f"a model must be a torch.nn.Module, got {type(model).__name__}")
    found: dict[str, Neuron] = {
        name or ROOT_NAME: module for name, module in model.named_modules() if isinstance(module, Neuron)
    }
    if not found:
        raise ModelError(
            f"a model to record needs spiking neurons, got {type(model).__name__} without any isofire.neurons.Neuron; "
            "build it with isofire's neurons or adapt it first"
        )
    return found


@dataclass
class _Layer:
    """What is known of one recorded layer; the tensors exist once it has been called."""

    calls: int = 0
    shape: tuple[int, ...] = ()
    counts: Tensor | None = None
    exact: Tensor = field(default_factory=lambda: torch.tensor(True))


class FiringRecorder:
    """Counts the spikes of every neuron in the forward passes made inside its context.

    Image `i`, counted over all forward passes, goes to block `(i // run) % blocks`: memory does not grow with the
    number of images (4 bytes a neuron and block), the batch size does not matter, and two recordings of the same
    images in the same order agree on who is in which block. The context may be entered again to count more.

    Parameters
    ----------
    model
        Called as `model(...)` inside the context; must hold at least one `isofire.neurons.Neuron`.
    blocks
        Number of image blocks, >= 1.
    run
        Images that go to a block one after the other, >= 1.
    layers
        Names of the neuron layers to count; None counts all.

    Raises
    ------
    ModelError
        At once if the model has no spiking neuron; in a forward pass if a neuron is not called, is called more than
        once (a shared neuron's layers could not be told apart), changes its shape or T, gives no [T, N, ...], or is
        called outside of the model's own forward; after it if a value is no spike count.
    SpecError
        If `blocks` or `run` is below 1 or a layer is unknown.

    Examples
    --------
    >>> with FiringRecorder(model) as recorder:  # doctest: +SKIP
    ...     for images, _ in data.batches(64):
    ...         model(images)
    >>> recorder.counts.rates("layer1.0.sn1")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: int = DEFAULT_BLOCKS,
        run: int = DEFAULT_RUN,
        layers: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("blocks", blocks), ("run", run)):
            if value < 1:
                raise SpecError(f"{name} must be at least 1, got {value}")
        self._model = model
        self._modules = _choose(spiking_layers(model), layers)
        self._run = run
        self._layers = {name: _Layer() for name in self._modules}
        self._images_per_block = torch.zeros(blocks, dtype=torch.int64)
        self._steps = 0
        self._handles: list[RemovableHandle] = []
        self._block_ids: Tensor | None = None
        self._in_forward = False

    def __enter__(self) -> FiringRecorder:
        if self._handles:
            raise ModelError("this recorder is already recording; leave its context first or make a second one")
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._neuron_hook(name)))
            module.counting = True
        self._handles.append(self._model.register_forward_pre_hook(self._begin_forward))
        self._handles.append(self._model.register_forward_hook(self._end_forward))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for module in self._modules.values():
            module.counting, module.spike_counts, module._counts = False, None, None

    @property
    def counts(self) -> SpikeCounts:
        """What has been counted so far, on the CPU and apart from the recorder.

        Raises
        ------
        DataError
            If no image has been counted.
        ModelError
            If a forward pass broke off, so that some layers counted a batch that others did not, or if a neuron gave
            values that are no spike counts.
        """
        self._check_complete()
        if not bool(self._images_per_block.any()):
            raise DataError("no image has been counted; call the model inside the recorder's context")
        for name, layer in self._layers.items():
            _check_exact(name, layer)
        counts = {name: _on_cpu(layer.counts) for name, layer in self._layers.items() if layer.counts is not None}
        return SpikeCounts(counts, self._images_per_block.clone(), self._steps)

    def _begin_forward(self, *_: Any) -> None:
        self._check_complete()
        for name, layer in self._layers.items():
            _check_exact(name, layer)
            layer.calls = 0
        self._block_ids = None
        self._in_forward = True

    def _end_forward(self, *_: Any) -> None:
        if silent := [name for name, layer in self._layers.items() if layer.calls == 0]:
            raise ModelError(
                f"every recorded neuron must be called in each forward, {silent[0]!r} was not; if the model skips it, "
                "name the others in `layers`; if a compiled model bypasses hooks, record the uncompiled one"
            )
        if self._block_ids is not None:
            self._images_per_block += torch.bincount(self._block_ids, minlength=self._images_per_block.numel())
        self._in_forward = False

    def _neuron_hook(self, name: str) -> Any:
        from isofire.neurons import Neuron

        def hook(module: Any, _inputs: Any, output: Any) -> None:
            # outside of inference mode, so that counts can be added to in any mode later
            with torch.inference_mode(False), torch.no_grad():
                # the neuron's own counts are those of its output only if nothing comes between the two
                own = len(module._forward_hooks) == 1 and type(module).forward is Neuron.forward
                self._count(name, self._layers[name], output, module.spike_counts if own else None)

        return hook

    def _count(self, name: str, layer: _Layer, spikes: Any, summed: Tensor | None) -> None:
        if not self._in_forward:
            raise ModelError(
                f"neuron {name!r} was called outside of the recorded model's forward; record the module you call"
            )
        if not isinstance(spikes, Tensor) or spikes.ndim < 3 or spikes.numel() == 0:
            given = list(spikes.shape) if isinstance(spikes, Tensor) else type(spikes).__name__
            raise ModelError(f"a neuron must give spikes [T, N, ...], got {given} (neuron {name!r})")
        layer.calls += 1
        if layer.calls > 1:
            raise ModelError(
                f"neuron {name!r} was called more than once in one forward, so its layers cannot be told apart; "
                "give each place its own neuron module"
            )
        self._check_shape(name, layer, spikes)
        assert self._block_ids is not None
        if layer.counts is None:
            layer.counts = zero_counts(self._images_per_block.numel(), spikes)
        if summed is not None:
            add_image_counts(layer.counts, summed, self._block_ids)
        else:
            layer.exact = add_counts(layer.counts, spikes, self._block_ids)

    def _check_shape(self, name: str, layer: _Layer, spikes: Tensor) -> None:
        steps, images, *shape = spikes.shape
        self._steps = self._steps or steps
        if self._block_ids is None:
            first = int(self._images_per_block.sum())
            self._block_ids = torch.arange(first, first + images) // self._run % self._images_per_block.numel()
        if (steps, images) != (self._steps, self._block_ids.numel()):
            raise ModelError(
                f"T must stay {self._steps} and N be {self._block_ids.numel()} in all of this forward, "
                f"got T = {steps}, N = {images} (neuron {name!r})"
            )
        layer.shape = layer.shape or tuple(shape)
        if tuple(shape) != layer.shape:
            raise ModelError(
                f"neuron {name!r} must keep its shape {layer.shape}, got {tuple(shape)}; use one input size"
            )

    def _check_complete(self) -> None:
        if self._in_forward:
            raise ModelError("a recorded forward pass broke off, so the counts are incomplete; start a new recorder")


def _choose(found: dict[str, Neuron], layers: Sequence[str] | None) -> dict[str, Neuron]:
    if layers is None:
        return found
    unknown = [name for name in layers if name not in found]
    if unknown or not layers:
        wrong = f"got {unknown[0]!r}" if unknown else "got none"
        raise SpecError(f"layers must name spiking neurons of the model, {wrong}; it has {', '.join(found)}")
    return {name: module for name, module in found.items() if name in layers}


def _check_exact(name: str, layer: _Layer) -> None:
    if not bool(layer.exact):
        raise ModelError(
            f"a neuron must give whole numbers >= 0 that add up to less than 2**24 in a batch, {name!r} did not; "
            "look for NaN, negative or fractional spikes, or use smaller batches"
        )


def _on_cpu(counts: Tensor) -> Tensor:
    return counts.detach().to("cpu", copy=True).contiguous()
