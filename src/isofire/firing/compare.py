"""Running a baseline and its quantized version on the same images, and measuring how the firing changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from isofire.adapters import axis_by, of_one_number, read_logits, require_kept
from isofire.batches import Data, count_images, read_batches
from isofire.errors import DataError, ModelError
from isofire.firing.comparison import Comparison
from isofire.firing.evidence.noise_floor import NoiseFloor
from isofire.firing.observation import Observation, fingerprints
from isofire.firing.record import DEFAULT_BLOCKS, DEFAULT_RUN, FiringRecorder, run_for
from isofire.firing.repeat import tell_unlike
from isofire.firing.ways import Ways
from isofire.quantization import is_quantized
from isofire.quantization.on_levels import require_levels
from isofire.running import device_of, drawing, evaluating, forward, placed, require_module, require_numbers
from isofire.telling import Most


def compare(
    baseline: nn.Module | Observation,
    quantized: nn.Module,
    data: Data,
    *,
    max_images: int | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = False,
    blocks: int | None = None,
    run: int | None = None,
    layers: Sequence[str] | str | None = None,
    floor: NoiseFloor | None = None,
) -> Comparison:
    """Measure accuracy and firing of two versions of a network on the same images.

    Each batch goes through both models before the next is read, in eval and inference mode; afterwards every module
    has its own mode back. Both may be the same object, or share layers.

    Parameters
    ----------
    baseline, quantized
        Models from inputs [N, ...], or frames [T, N, ...], to logits [T, N, classes], averaged over T, or
        [N, classes], with the same neurons under the same names; `isofire.adapters.read_logits` says how tuples and
        lists are read, and `isofire.adapters.LogitsOf` which logits are meant. For the baseline, what `observe` saw of
        it on the same images in the same order does as well, and saves running it again.
    data
        An image set with `.batches(batch_size)`, a pair of tensors (inputs, labels), or an iterable of such pairs.
    max_images
        Stop after this many images; None takes all.
    batch_size
        Images per batch, unless `data` comes in batches. The result does not depend on it: networks whose numbers do,
        as with norms by the batch, are refused.
    device
        Where to run; both models go there and come back. None leaves each model where it is.
    progress
        Show a progress bar on stderr.
    blocks, run
        How images are split into blocks, see `FiringRecorder`; None takes those of an observed baseline, else 40
        blocks, and as long a run as lets all of them hold images where `data` tells how many there are (25 otherwise).
        Intervals need images in at least 5 blocks.
    layers
        Names of the layers of neurons to compare, such as all but those that the network skips in eval mode; None takes
        all. SynOps are then left out, which are those of the whole network.
    floor
        What drift is shown beside, see `isofire.firing.evidence.noise_floor`; None takes the baseline on other images.

    Raises
    ------
    ModelError
        If a model has no spiking neurons, the two do not match, or logits are NaN or of another shape.
    DataError
        If there is no image, labels do not fit the inputs or the classes, or the observed baseline saw other labels.
    SpecError
        If a number is below 1.

    Notes
    -----
    A network that draws random numbers (Poisson encoding) draws the same in every pass, from torch's seed and the
    batch's place, so that it agrees with itself.

    Examples
    --------
    >>> result = compare(model, quantized, test_set)  # doctest: +SKIP
    >>> result.overall["emd_layer_mean"], result.accuracy  # doctest: +SKIP
    """
    if isinstance(baseline, Observation):
        models = (quantized,)
        # recordings from before it was stored were all cut alike
        run = baseline.counts.run or DEFAULT_RUN if run is None else run
        blocks = baseline.counts.blocks if blocks is None else blocks
    else:
        require_order(baseline, quantized)
        models = baseline, quantized
    seen = observe_together(
        models, data, max_images=max_images, batch_size=batch_size, device=device, progress=progress, blocks=blocks,
        run=run, layers=layers, probe=layers is None,
    )  # fmt: skip
    before = baseline if isinstance(baseline, Observation) else seen[0]
    return Comparison.observed(before, seen[-1], floor=floor)


def require_order(
    baseline: nn.Module, quantized: nn.Module, names: tuple[str, str] = ("baseline", "quantized")
) -> None:
    """Refuse two networks given in the wrong order: everything measured would have the wrong sign.

    Both may be quantized, or neither: two settings beside each other, a network beside its integers, or a control.

    Raises
    ------
    ModelError
        If the first network is quantized, or one of whole numbers, and the second is not, or one is none.
    """
    require_module(baseline)
    require_module(quantized)
    if is_quantized(baseline) and not is_quantized(quantized):
        raise ModelError(
            f"the baseline must not be the only quantized network, but {names[0]} is quantized and {names[1]} is in "
            "full precision; swap the two"
        )


def observe(
    model: nn.Module,
    data: Data,
    *,
    max_images: int | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = False,
    blocks: int | None = None,
    run: int | None = None,
    layers: Sequence[str] | str | None = None,
) -> Observation:
    """Run one network over images, and keep its spike counts and predictions, and what a spike costs in it; for
    `compare`, which takes the same.

    Raises
    ------
    ModelError, DataError, SpecError
        As `compare`.
    """
    return observe_together(
        (model,), data, max_images=max_images, batch_size=batch_size, device=device, progress=progress, blocks=blocks,
        run=run, layers=layers, probe=layers is None,
    )[0]  # fmt: skip


def observe_together(
    models: Sequence[nn.Module],
    data: Data,
    *,
    max_images: int | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = False,
    blocks: int | None = None,
    run: int | None = None,
    layers: Sequence[str] | str | None = None,
    probe: bool = False,
) -> list[Observation]:
    """`observe` for several networks in one pass over the data; without `probe` not what a spike costs."""
    for model in models:
        require_numbers(model)
        require_levels(model, but_changed=True)
    require_kept(models)
    axis = axis_by(models[0])
    batches = read_batches(data, batch_size, max_images, axis)
    if run is None:
        images = count_images(data, max_images)
        run = DEFAULT_RUN if images is None else run_for(images)
    blocks = DEFAULT_BLOCKS if blocks is None else blocks
    recorders = [FiringRecorder(model, blocks, run, layers) for model in models]
    seen: list[Tensor] = []
    prints: list[Tensor] = []
    votes: list[list[Tensor]] = [[] for _ in models]
    most = Most()
    with evaluating(*models), placed(*models, device=device):
        ways = [Ways(model) if probe else None for model in models]
        for inputs, labels in _shown(batches) if progress else batches:
            if most.grows(inputs, axis(inputs, labels)):
                for model in models:
                    tell_unlike(model, inputs, len(labels))
                for way in ways:
                    if way is not None:
                        way.ask(inputs, len(labels))
            for model, recorder, said, way in zip(models, recorders, votes, ways, strict=True):
                place = device_of(model, inputs.device)
                with drawing(len(seen), place):
                    said.append(_predict(model, recorder, inputs, labels, way))
                if way is not None:
                    with drawing(len(seen), place):
                        way.look(inputs, len(labels))
            seen.append(labels.cpu())
            prints.append(fingerprints(inputs, axis(inputs, labels)))
    labels = torch.cat(seen).long()
    counted = recorders[0].counts.n_images
    if counted != len(labels):
        raise ModelError(
            f"neurons must see [T, N, ...] with the batch's N: {len(labels)} images went in, the neurons of the "
            f"baseline saw {counted}"
        )
    images = torch.cat(prints)
    return [
        Observation(recorder.counts, torch.cat(said), labels, images, None if way is None else way.reached)
        for recorder, said, way in zip(recorders, votes, ways, strict=True)
    ]


def _predict(model: nn.Module, recorder: FiringRecorder, inputs: Tensor, labels: Tensor, way: Ways | None) -> Tensor:
    """Predicted class of each image, int64 [N] on the CPU; the spikes go to the recorder."""
    # recording one model at a time keeps the counts apart where the two share modules
    with recorder, torch.inference_mode():
        given = inputs.to(device_of(model, inputs.device), non_blocking=True)
        with nullcontext() if way is None else way.watching(len(labels)):
            output = forward(model, given)
    logits = read_logits(model, output, len(labels), given)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    mean = logits.mean(0) if logits.ndim == 3 else logits
    if bool(mean.isnan().any()):
        raise ModelError(f"logits must not be NaN, those of {type(model).__name__} are; look for NaN weights")
    low, high, top = int(labels.min()), int(labels.max()), mean.shape[1] - 1
    if low >= 0 == top < high:
        raise ModelError(f"labels reach {high}: {of_one_number(model)}")
    if low < 0 or high > top:
        raise DataError(f"labels must lie in 0..{top}, the model's classes, got {low}..{high}")
    return mean.argmax(1).cpu()


def _shown(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("comparing, images"), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing", total=None)
        for inputs, labels in batches:
            yield inputs, labels
            bar.advance(task, len(labels))
