"""Recording how often every spiking neuron of a model fires, without keeping a single spike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import (
    Adapter,
    Layout,
    OverTime,
    at_one_place,
    check_batches,
    find_neurons,
    no_neurons,
    of_other_images,
    original,
    original_name,
    require_plain,
    reset_,
    uncompiled,
)
from isofire.adapters.own import only_looks
from isofire.batches import require_count
from isofire.errors import DataError, ModelError, SpecError
from isofire.firing.as_given import require_images
from isofire.firing.counts import SpikeCounts, no_counts
from isofire.neurons.counting import add_counts, add_image_counts, zero_counts
from isofire.running import refuse_statistics_of_the_batch, require_module, tensors_in

DEFAULT_BLOCKS = 40
DEFAULT_RUN = 25
ROOT_NAME = "model"
"""Layer name of a model that is itself a single neuron layer."""
_PARTS = "; where parts of an image are folded into the batch, give those an axis of their own, [T, N, parts, ...]"
_APART = (
    "; or leave these layers out: name those that see all images in `layers`, of the recorder or of isofire.compare"
)


def not_called(name: str) -> str:
    """What is wrong where nothing was heard of a neuron."""
    return (
        f"every neuron must be called in each forward, as a module (`neuron(x)`, not `neuron.forward(x)`), {name!r} "
        "was not"
    )


def called_again(model: nn.Module, name: str) -> ModelError:
    """Of a neuron that sees all steps in a call, and is called several times."""
    looped = any(isinstance(module, OverTime) for module in model.modules())
    cure = "it sees all steps in one call: take isofire.adapters.OverTime away, which calls a network at each step"
    return ModelError(
        f"neuron {name!r} was called more than once in one forward, so its layers cannot be told apart; "
        f"{cure if looped else 'give each place its own neuron module'}"
    )


def no_spikes(name: str, given: Any) -> ModelError:
    """Of a neuron that gives something else, such as a batch of one that was squeezed."""
    shape = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
    squeezed = (
        "; an axis is missing, as where squeeze() takes away that of a batch of one image, such as the last one: name "
        "the axes, squeeze(-1) or flatten(1)"
    )
    about = squeezed if isinstance(given, Tensor) and given.ndim == 2 else ""
    return ModelError(f"a neuron must give spikes [T, N, ...], got {shape} (neuron {name!r}){about}")


def require_spikes(name: str, spikes: Any, batch: str = "", cure: str = "") -> None:
    """Refuse what a neuron gives if it is none of one step and one image at least, or is inside of `torch.func.vmap`.

    Parameters
    ----------
    batch, cure
        Of a neuron without images, which batch it sees none of, and what else can be done than to give it all.

    Raises
    ------
    ModelError
        If it is not.
    """
    require_plain(name, spikes)
    if isinstance(spikes, Tensor) and spikes.ndim > 2 and spikes.shape[1] == 0:
        raise of_other_images(f"{name!r} saw N = 0{batch}", cure)
    if not isinstance(spikes, Tensor) or spikes.ndim < 3 or spikes.numel() == 0:
        raise no_spikes(name, spikes)


def run_for(images: int) -> int:
    """`FiringRecorder.run` for so many images: 25, or as few as let all 40 blocks hold images, for better intervals."""
    return max(1, min(DEFAULT_RUN, images // DEFAULT_BLOCKS))


def spiking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The spiking neurons of a model by module name, in the model's order; a neuron under two names has the first.

    isofire's own, those of the libraries that `isofire.adapters` knows, and registered classes. In a compiled model
    they have the names that they have in the original.

    Raises
    ------
    ModelError
        If there is none.
    """
    return {name: neuron for name, (neuron, _) in spiking_adapters(model).items()}


def spiking_adapters(model: nn.Module) -> dict[str, tuple[nn.Module, Adapter]]:
    """`spiking_layers`, each with its adapter."""
    require_module(model)
    found = find_neurons(model)
    if not found:
        raise no_neurons(model)
    return {original_name(name) or ROOT_NAME: neuron for name, neuron in found.items()}


@dataclass
class _Layer:
    """What is known of one recorded layer; the tensors exist once it has been called."""

    calls: int = 0
    steps: int = 0
    shape: tuple[int, ...] = ()
    counts: Tensor | None = None
    exact: Tensor = field(default_factory=lambda: torch.tensor(True))
    wrong: str = ""


class FiringRecorder:
    """Counts the spikes of every neuron in the forward passes made inside its context.

    Image `i`, counted over all forward passes, goes to block `(i // run) % blocks`: memory does not grow with the
    number of images (4 bytes a neuron and block), the batch size does not matter, and two recordings of the same
    images in the same order agree on who is in which block. The context may be entered again to count more.

    Every recorded forward call of the model is one batch of images, run from rest: neurons that keep a state between
    calls (SpikingJelly's, snnTorch's with init_hidden, Sinabs') are reset before it, and at the end of the context.
    A neuron that sees one step a call has T = the number of its calls in a forward; where the loop over time is written
    around the model, put `isofire.adapters.OverTime` around it and record that.

    What `torch.compile` has made of the model, or of parts of it, runs uncompiled inside of the context: compiled code
    passes hooks by. The weights are the same; the arithmetic may round otherwise.

    Parameters
    ----------
    model
        Called as `model(...)` inside the context; must hold at least one spiking neuron, see `spiking_layers`.
    blocks
        Number of image blocks, >= 1.
    run
        Images that go to a block one after the other, >= 1.
    layers
        Names of the neuron layers to count, or one name; None counts all.

    Raises
    ------
    ModelError
        At once if the model has no spiking neuron; at the context's beginning if, in eval mode, a batch norm takes the
        statistics of the batch; in a forward pass if a neuron is not called, is called more than
        once a step (a shared neuron's layers could not be told apart), changes its shape or T, gives no [T, N, ...],
        sees another N than the model is given (parts of images folded into the batch), or is called outside of the
        model's own forward; after it if a value is no spike count.
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
        layers: Sequence[str] | str | None = None,
    ) -> None:
        for name, value in (("blocks", blocks), ("run", run)):
            require_count(name, value)
        self._neurons = _choose(spiking_adapters(model), layers)
        self._model = original(model)
        self._run = run
        self._layers = {name: _Layer() for name in self._neurons}
        self._images_per_block = torch.zeros(blocks, dtype=torch.int64)
        self._steps = 0
        self._open: ExitStack | None = None
        self._block_ids: Tensor | None = None
        self._first = self._batch = ""
        self._given: list[tuple[int, ...]] = []
        self._in_forward = False

    def __enter__(self) -> FiringRecorder:
        if self._open is not None:
            raise ModelError("this recorder is already recording; leave its context first or make a second one")
        if not self._model.training:
            refuse_statistics_of_the_batch(self._model)
        with ExitStack() as stack:
            stack.enter_context(uncompiled())
            stack.callback(reset_, self._model)
            for handle in check_batches(self._model):
                stack.callback(handle.remove)
            for name, (neuron, adapter) in self._neurons.items():
                stack.callback(neuron.register_forward_hook(self._neuron_hook(name, adapter)).remove)
                adapter.begin_counting(neuron)
                stack.callback(adapter.end_counting, neuron)
            # copies of the model take their hooks along; a function stays itself
            stack.callback(
                self._model.register_forward_pre_hook(
                    lambda module, *given: self._begin_forward(module, given), with_kwargs=True
                ).remove
            )
            stack.enter_context(at_one_place(self._model, self._neurons))
            stack.callback(self._model.register_forward_hook(lambda module, *_: self._end_forward(module)).remove)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._open is not None
        self._open.close()
        self._open = None

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
        return SpikeCounts(counts, self._images_per_block.clone(), self._steps, self._run)

    def _is_off(self, module: nn.Module) -> bool:
        return self._open is None or module is not self._model

    def _begin_forward(self, module: nn.Module, given: Any) -> None:
        if self._is_off(module):
            return
        self._check_complete()
        self._given = [tuple(x.shape) for x in tensors_in(given)]
        self._batch = f" of a batch {' and '.join(str(list(shape)) for shape in self._given)}" if self._given else ""
        for name, layer in self._layers.items():
            _check_exact(name, layer)
            layer.calls = layer.steps = 0
            layer.exact = torch.tensor(True)
        self._block_ids = None
        self._in_forward = True
        reset_(self._model)

    def _end_forward(self, module: nn.Module) -> None:
        if self._is_off(module):
            return
        if silent := [name for name, layer in self._layers.items() if layer.calls == 0]:
            raise ModelError(
                f"{not_called(silent[0])}; if the model skips it (a head for training alone), name the others in "
                "`layers`, of the recorder or of isofire.compare; if a scripted model bypasses hooks, record the one "
                "it was made from"
            )
        for name, layer in self._layers.items():
            self._steps = self._steps or layer.steps
            if layer.steps != self._steps:
                raise ModelError(
                    f"T must stay {self._steps} in all of this forward, got T = {layer.steps} (neuron {name!r}); a "
                    "neuron that sees single steps must be called once a step"
                )
        self._check_loop()
        require_images(self._given, 0 if self._block_ids is None else self._block_ids.numel(), self._steps)
        if self._block_ids is not None:
            self._images_per_block += torch.bincount(self._block_ids, minlength=self._images_per_block.numel())
        self._in_forward = False

    def _check_loop(self) -> None:
        """One step in all, seen by neurons that keep their state, is a loop over time outside of the model."""
        stepped = [name for name, (neuron, adapter) in self._neurons.items() if adapter.layout(neuron) is Layout.STEP]
        inside = any(isinstance(module, OverTime) for module in self._model.modules())
        if stepped and self._steps == 1 and not inside:
            raise ModelError(
                f"neuron {stepped[0]!r} saw one step in this forward, so the loop over time seems to be outside of the "
                "model, which starts at rest each time; record isofire.adapters.OverTime(model, steps) instead, with "
                "steps = 1 if that is all it runs"
            )

    def _neuron_hook(self, name: str, adapter: Adapter) -> Any:
        def hook(module: Any, _inputs: Any, output: Any) -> None:
            # a copy that the forward makes of a neuron is that neuron, one in a copy of the model is none of its
            if self._open is None or not (self._in_forward or module is self._neurons[name][0]):
                return
            # outside of inference mode, so that counts can be added to in any mode later
            with torch.inference_mode(False), torch.no_grad():
                stepped = adapter.layout(module) is Layout.STEP
                spikes = adapter.spikes(module, output)
                self._count(name, self._layers[name], spikes, adapter.summed(module), stepped)

        return only_looks(hook)

    def _count(self, name: str, layer: _Layer, spikes: Any, summed: Tensor | None, stepped: bool) -> None:
        if not self._in_forward:
            raise ModelError(
                f"neuron {name!r} was called outside of the recorded model's forward; record the module you call"
            )
        require_spikes(name, spikes, self._batch, _APART)
        layer.calls += 1
        if layer.calls > 1 and not stepped:
            raise called_again(self._model, name)
        self._check_shape(name, layer, spikes, stepped)
        layer.steps += spikes.shape[0]
        assert self._block_ids is not None
        if layer.counts is None:
            layer.counts = zero_counts(self._images_per_block.numel(), spikes)
        if summed is not None:
            add_image_counts(layer.counts, summed, self._block_ids)
        else:
            exact = add_counts(layer.counts, spikes, self._block_ids)
            layer.exact = layer.exact & exact
            # a GPU is not made to wait for the value
            if spikes.device.type == "cpu" and not bool(exact):
                layer.wrong = layer.wrong or no_counts(spikes) or ""

    def _check_shape(self, name: str, layer: _Layer, spikes: Tensor, stepped: bool) -> None:
        steps, images, *shape = spikes.shape
        # how many steps there are of single ones is known at the end
        steps = self._steps if stepped else steps
        self._steps = self._steps or steps
        if self._block_ids is None:
            self._first = name
            first = int(self._images_per_block.sum())
            self._block_ids = torch.arange(first, first + images) // self._run % self._images_per_block.numel()
        if steps != self._steps and layer.steps == 0 and int(self._images_per_block.sum()):
            raise ModelError(
                f"T must stay {self._steps} in all batches, got T = {steps} (neuron {name!r}); pad or cut the "
                "recordings to one T, or record batches of each T apart"
            )
        if images != self._block_ids.numel():
            first = self._block_ids.numel()
            parts = images > first and images % first == 0
            raise of_other_images(
                f"{self._first!r} saw N = {first} and {name!r} N = {images}{self._batch}",
                f"{_PARTS if parts else ''}{_APART}",
            )
        if steps != self._steps:
            raise ModelError(
                f"T must stay {self._steps} in all of this forward, got T = {steps}, N = {images} (neuron {name!r}); "
                "rates are of one T: of a network that pools or strides over time record the layers of one T (`layers`)"
            )
        layer.shape = layer.shape or tuple(shape)
        if tuple(shape) != layer.shape:
            raise ModelError(
                f"neuron {name!r} must keep its shape {layer.shape}, got {tuple(shape)}; use one input size"
            )

    def _check_complete(self) -> None:
        if self._in_forward:
            raise ModelError("a recorded forward pass broke off, so the counts are incomplete; start a new recorder")


def _choose(
    found: dict[str, tuple[nn.Module, Adapter]], layers: Sequence[str] | str | None
) -> dict[str, tuple[nn.Module, Adapter]]:
    if layers is None:
        return found
    layers = [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in layers if name not in found]
    if unknown or not layers:
        wrong = f"got {unknown[0]!r}" if unknown else "got none"
        raise SpecError(f"layers must name spiking neurons of the model, {wrong}; it has {', '.join(found)}")
    return {name: neuron for name, neuron in found.items() if name in layers}


def _check_exact(name: str, layer: _Layer) -> None:
    if not bool(layer.exact):
        wrong = layer.wrong or "look for NaN, negative or fractional spikes"
        raise ModelError(
            "a neuron must give whole numbers >= 0 that add up to less than 2**24 in a batch, those of "
            f"{name!r} do not: {wrong}; or use smaller batches"
        )


def _on_cpu(counts: Tensor) -> Tensor:
    return counts.detach().to("cpu", copy=True).contiguous()
