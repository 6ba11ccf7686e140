"""Two networks on the same images, spike by spike: what changed beyond the rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isofire.adapters import at_one_place, axis_by, from_rest, heard, read_logits, require_whole
from isofire.batches import Data, read_batches
from isofire.errors import ModelError
from isofire.firing.record import not_called, spiking_adapters
from isofire.firing.repeat import tell_unlike
from isofire.firing.timing.similarity import StreamedCKA, logit_kl
from isofire.firing.timing.trains import first_spikes, flips, mean_over_pairs, table_of
from isofire.firing.timing.words import joint_words, spike_words, total_variation, trains, word_counts
from isofire.running import device_of, drawing, evaluating, forward, require_numbers
from isofire.telling import Most
from isofire.text_table import TableShown, TextTable

COSTS = (0.0, 0.5, 1.0, 2.0)
"""Victor-Purpura's cost of moving a spike by a step."""
TAUS = (1.0, 2.0)
"""Time constants of van Rossum's distance, in steps."""


@dataclass(frozen=True, kw_only=True)
class TimingDrift:
    """One layer, spike by spike.

    Parameters
    ----------
    layer, neurons
        The layer and its size.
    step_rates_fp, step_rates
        MFR(t): mean rate at each step, in spikes per neuron. EMD knows the mean over steps only.
    words_tv
        Mean over neurons of the total variation between their 2^T-word distributions.
    words_tv_layer
        Total variation between the word distributions of the layer as a whole.
    first_spike_emd
        Earth mover's distance between the distributions of first-spike times, in steps; T for silence.
    first_spike_change
        Mean absolute change of the first-spike time of a neuron on an image, in steps.
    flips_per_image
        Steps and neurons of an image at which one network fires and the other does not.
    flip_share
        That as a share of all spikes of both networks: 0 equal, 1 no spike in common. NaN if there is no spike.
    victor_purpura, van_rossum
        Mean distance of a neuron's trains on an image, by q and by tau.
    cka
        Similarity of the population's spike counts, image by image.
    """

    layer: str
    neurons: int
    step_rates_fp: tuple[float, ...]
    step_rates: tuple[float, ...]
    words_tv: float
    words_tv_layer: float
    first_spike_emd: float
    first_spike_change: float
    flips_per_image: float
    flip_share: float
    victor_purpura: Mapping[float, float]
    van_rossum: Mapping[float, float]
    cka: float


@dataclass(frozen=True, kw_only=True)
class TimingComparison(TableShown):
    """All layers, and the outputs.

    Parameters
    ----------
    layers
        In the model's order.
    logit_kl
        Mean over images, in nats.
    n_images, T
        Behind all of it.
    """

    layers: tuple[TimingDrift, ...]
    logit_kl: float
    n_images: int
    T: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def table(self) -> str:
        """Plain text."""
        titles = ["layer", "word TV", "1st spike", "flips/img", "flip %", *(f"VP {q:g}" for q in COSTS), "CKA"]
        rows = [
            [
                item.layer,
                f"{item.words_tv:.4f}",
                f"{item.first_spike_change:.4f}",
                f"{item.flips_per_image:,.1f}",
                f"{100 * item.flip_share:.1f}",
                *(f"{value:.4f}" for value in item.victor_purpura.values()),
                f"{item.cka:.3f}",
            ]
            for item in self.layers
        ]
        head = f"spike by spike, n = {self.n_images:,} images, T = {self.T}"
        return "\n".join([head, "", TextTable(titles, rows).text(), "", f"logits: KL {self.logit_kl:.5f} nats"])


@dataclass
class _Tally:
    joint: Tensor | None = None
    words: list[Tensor] = field(default_factory=list)
    cka: StreamedCKA = field(default_factory=StreamedCKA)


def compare_timing(
    baseline: nn.Module, quantized: nn.Module, data: Data, *, max_images: int | None = None, batch_size: int = 32
) -> TimingComparison:
    """Compare two networks spike by spike on the same images; no spike is kept beyond its batch.

    Its own pass, about as slow as running both networks a few times; for `compare`'s measures it is not needed.

    Parameters
    ----------
    baseline, quantized, data, max_images, batch_size
        As in `isofire.compare`. `cka` is a mean over batches, so it depends on the batch size a little.

    Raises
    ------
    ModelError
        If the networks do not have the same neurons.
    DataError
        If a neuron fires several times a step, or there are more than 10 steps.

    Examples
    --------
    >>> print(compare_timing(model, quantized, test_set, max_images=500).table())  # doctest: +SKIP
    """
    models = baseline, quantized
    for model in models:
        require_numbers(model)
    tallies = {name: _Tally() for name in spiking_adapters(baseline)}
    divergence, images, steps = 0.0, 0, 0
    axis, most = axis_by(baseline), Most()
    with evaluating(*models), torch.no_grad():
        for inputs, labels in read_batches(data, batch_size, max_images, axis):
            if most.grows(inputs, axis(inputs, labels)):
                for model in models:
                    tell_unlike(model, inputs, len(labels))
            runs = []
            for model in models:
                with drawing(images, device_of(model, inputs.device)):
                    runs.append(_run(model, inputs, len(labels)))
            (first, logits_fp), (second, logits) = runs
            steps = _check(first, second)
            for name, tally in tallies.items():
                _add(tally, first[name], second[name], steps)
            divergence += float(logit_kl(logits_fp, logits).sum())
            images += len(labels)
    layers = tuple(_drift(name, tally, steps, images) for name, tally in tallies.items())
    return TimingComparison(layers=layers, logit_kl=divergence / images, n_images=images, T=steps)


def _run(model: nn.Module, inputs: Tensor, images: int) -> tuple[dict[str, Tensor], Tensor]:
    """Spikes [T, N, ...] of every layer of neurons, and mean logits [N, classes]."""
    found = spiking_adapters(model)
    kept: dict[str, list[Tensor]] = {name: [] for name in found}

    def keep(name: str, spikes: Tensor) -> None:
        require_whole(name, spikes, images)
        kept[name].append(spikes.cpu())

    listening = heard(found, keep)
    with listening, from_rest(model), at_one_place(model, found):
        output = forward(model, inputs.to(device_of(model, inputs.device)))
    if silent := [name for name, parts in kept.items() if not parts]:
        raise ModelError(not_called(silent[0]))
    logits = read_logits(model, output, images, inputs).float().cpu()
    mean = logits.mean(0) if logits.ndim == 3 else logits
    return {name: torch.cat(parts) for name, parts in kept.items()}, mean


def _check(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> int:
    if list(first) != list(second):
        raise ModelError("baseline and quantized model must have the same layers of neurons under the same names")
    for name in first:
        if first[name].shape != second[name].shape:
            raise ModelError(f"neuron {name!r} gives {list(first[name].shape)} against {list(second[name].shape)}")
    return len(next(iter(first.values())))


def _add(tally: _Tally, first: Tensor, second: Tensor, steps: int) -> None:
    words = spike_words(first), spike_words(second)
    joint = joint_words(*words, steps)
    tally.joint = joint if tally.joint is None else tally.joint + joint
    counts = [word_counts(item, steps) for item in words]
    tally.words = [a + b for a, b in zip(tally.words, counts, strict=True)] if tally.words else counts
    tally.cka.add(first.sum(0), second.sum(0))


def _drift(name: str, tally: _Tally, steps: int, images: int) -> TimingDrift:
    assert tally.joint is not None
    joint, neurons = tally.joint, tally.words[0].shape[1]
    fp, after = joint.sum(1), joint.sum(0)
    every = trains(steps)
    total = float(joint.sum())
    first = first_spikes(every).double()
    spikes = float((every.sum(0) * (fp + after)).sum())
    flipped = float((joint * flips(steps)).sum())
    return TimingDrift(
        layer=name,
        neurons=neurons,
        step_rates_fp=tuple((every.double() @ fp.double() / total).tolist()),
        step_rates=tuple((every.double() @ after.double() / total).tolist()),
        words_tv=float(total_variation(*tally.words).mean()),
        words_tv_layer=float(total_variation(fp[:, None], after[:, None])),
        first_spike_emd=_first_spike_emd(first, fp, after, steps),
        first_spike_change=mean_over_pairs(joint, (first[:, None] - first).abs()),
        flips_per_image=flipped / images,
        flip_share=flipped / spikes if spikes else float("nan"),
        victor_purpura={q: mean_over_pairs(joint, table_of("victor_purpura", steps, q)) for q in COSTS},
        van_rossum={tau: mean_over_pairs(joint, table_of("van_rossum", steps, tau)) for tau in TAUS},
        cka=tally.cka.value,
    )


def _first_spike_emd(first: Tensor, fp: Tensor, after: Tensor, steps: int) -> float:
    times = first.long()
    before, later = (torch.bincount(times, weights.double(), steps + 1) for weights in (fp, after))
    return float(((before - later).cumsum(0).abs().sum()) / fp.sum())
