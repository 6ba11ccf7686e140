"""Metrics for a training loop: `update` with spikes, `compute`, `reset`, as torchmetrics has them, without needing it.

All of them keep whole numbers that add up: two metrics merge by adding, and processes by an all-reduce in `compute`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from isofire.errors import DataError, ModelError, SpecError
from isofire.firing.aggregate import layer_mean, neuron_weighted
from isofire.firing.distance import emd_from_counts
from isofire.firing.rates import PAPER_CUT, dead_share, require_cut

Spikes = Tensor | Mapping[str, Tensor]
"""[T, N, *neuron_shape] of one layer, or of several by name."""

_Key = tuple[str, str]


class FiringMetric(ABC):
    """Spike counts per neuron, added up over updates.

    `compute` adds those of all processes first where `torch.distributed` is initialised (every process must call it),
    and leaves the process's own as they were, so it may be called after every batch.
    """

    def __init__(self) -> None:
        self._counts: dict[_Key, Tensor] = {}
        self._denominators: dict[str, int] = {}

    def reset(self) -> None:
        """Forget everything."""
        self._counts.clear()
        self._denominators.clear()

    def merge(self, other: Self) -> Self:
        """Take over what another metric of the same networks counted; returns itself.

        Raises
        ------
        SpecError
            If it is another measure, or has another cut.
        ModelError
            If it counted other neurons.
        """
        if type(other) is not type(self) or self._settings() != other._settings():
            raise SpecError(
                f"only metrics of one kind and setting can be merged, got {type(self).__name__}{self._settings()} and "
                f"{type(other).__name__}{other._settings()}"
            )
        self._add(other._counts, other._denominators)
        return self

    def _settings(self) -> tuple[float, ...]:
        return ()

    def compute(self) -> Tensor:
        """The value over all updates and processes, 0-d float64.

        Raises
        ------
        DataError
            If there was no update.
        ModelError
            If processes counted other neurons.
        """
        counts, denominators = self._synchronised()
        if not counts:
            raise DataError(f"{type(self).__name__} has counted nothing yet; call update first")
        return torch.tensor(self._value(counts, denominators), dtype=torch.float64)

    @abstractmethod
    def _value(self, counts: Mapping[_Key, Tensor], denominators: Mapping[str, int]) -> float:
        """From counts [n] by layer and network, and T * images by layer."""

    def _count(self, network: str, spikes: Spikes) -> None:
        layers = {"": spikes} if isinstance(spikes, Tensor) else spikes
        found, steps = {}, {}
        for name, tensor in layers.items():
            if tensor.ndim < 3 or tensor.numel() == 0:
                raise DataError(f"spikes must be [T, N, ...], got {list(tensor.shape)} (layer {name!r})")
            total = tensor.detach().flatten(2).sum((0, 1), dtype=torch.float64)
            whole = total.round().long().cpu()
            if not bool((whole == total.cpu()).all()) or int(whole.min()) < 0:
                raise DataError(f"spikes must be whole numbers >= 0, those of layer {name!r} are not")
            found[name, network] = whole
            steps[name] = tensor.shape[0] * tensor.shape[1]
        # both networks see the same images: those of the first are counted
        self._add(found, steps if network == "first" else {})

    def _add(self, counts: Mapping[_Key, Tensor], denominators: Mapping[str, int]) -> None:
        for key, value in counts.items():
            old = self._counts.get(key)
            if old is not None and old.shape != value.shape:
                raise ModelError(f"layer {key[0]!r} must keep its {len(old)} neurons, got {len(value)}")
            self._counts[key] = value.clone() if old is None else old + value
        for name, value in denominators.items():
            self._denominators[name] = self._denominators.get(name, 0) + value

    def _synchronised(self) -> tuple[dict[_Key, Tensor], dict[str, int]]:
        if not (dist.is_available() and dist.is_initialized()):
            return self._counts, self._denominators
        # a process without a batch knows no layer: all learn the shapes first
        shapes: list[dict[_Key, int]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(shapes, {key: len(value) for key, value in self._counts.items()})
        known: dict[_Key, int] = {}
        for other in shapes:
            for key, size in other.items():
                if known.setdefault(key, size) != size:
                    raise ModelError(f"layer {key[0]!r} has {known[key]} neurons in one process, {size} in another")
        device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
        counts, denominators = {}, {}
        for key in sorted(known):
            total = self._counts.get(key, torch.zeros(known[key], dtype=torch.int64)).to(device, copy=True)
            dist.all_reduce(total)
            counts[key] = total.cpu()
        for name in sorted({name for name, _ in known}):
            steps = torch.tensor(self._denominators.get(name, 0), device=device)
            dist.all_reduce(steps)
            denominators[name] = int(steps)
        return counts, denominators


class _OneNetwork(FiringMetric):
    def update(self, spikes: Spikes) -> None:
        """Count a batch.

        Parameters
        ----------
        spikes
            [T, N, ...], of one layer or of several by name.

        Raises
        ------
        DataError, ModelError
            If they are no spikes, or of other neurons than before.
        """
        self._count("first", spikes)


class _TwoNetworks(FiringMetric):
    def update(self, baseline: Spikes, quantized: Spikes) -> None:
        """Count a batch that both networks saw.

        Parameters
        ----------
        baseline, quantized
            [T, N, ...], of one layer or of several by name.

        Raises
        ------
        DataError, ModelError
            If they are no spikes, or the two are not of the same neurons and images.
        """
        first, second = ({"": x} if isinstance(x, Tensor) else x for x in (baseline, quantized))
        shapes = [{name: tuple(tensor.shape) for name, tensor in x.items()} for x in (first, second)]
        if shapes[0] != shapes[1]:
            raise ModelError(f"both networks need spikes of the same shapes, got {shapes[0]} and {shapes[1]}")
        self._count("first", first)
        self._count("second", second)


class MeanFiringRate(_OneNetwork):
    """Mean firing rate over all neurons, in spikes per neuron per step; see `isofire.mean_firing_rate`.

    Examples
    --------
    >>> metric = MeanFiringRate()
    >>> metric.update(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]))  # T = 2, one image, two neurons
    >>> float(metric.compute())
    0.5
    """

    def _value(self, counts: Mapping[_Key, Tensor], denominators: Mapping[str, int]) -> float:
        spikes = sum(int(value.sum()) / denominators[name] for (name, _), value in counts.items())
        return spikes / sum(len(value) for value in counts.values())


class DeadShare(_OneNetwork):
    """Share of neurons with a rate below `cut`; see `isofire.dead_share`. It falls with the number of images."""

    def __init__(self, cut: float = PAPER_CUT) -> None:
        super().__init__()
        require_cut(cut)
        self.cut = cut

    def _settings(self) -> tuple[float, ...]:
        return (self.cut,)

    def _value(self, counts: Mapping[_Key, Tensor], denominators: Mapping[str, int]) -> float:
        shares = [dead_share(value.double() / denominators[name], self.cut) for (name, _), value in counts.items()]
        return neuron_weighted(shares, [len(value) for value in counts.values()])


class RateEMD(_TwoNetworks):
    """Earth mover's distance between the two networks' rates, mean over layers; see `isofire.emd`."""

    def _value(self, counts: Mapping[_Key, Tensor], denominators: Mapping[str, int]) -> float:
        pairs = [(counts[name, "first"], counts[name, "second"], steps) for name, steps in denominators.items()]
        return layer_mean([emd_from_counts(first, second, steps) for first, second, steps in pairs])


class PairedDrift(_TwoNetworks):
    """Mean absolute rate change of a neuron, over all neurons."""

    def _value(self, counts: Mapping[_Key, Tensor], denominators: Mapping[str, int]) -> float:
        changes = [
            float((counts[name, "second"] - counts[name, "first"]).abs().sum()) / steps
            for name, steps in denominators.items()
        ]
        return sum(changes) / sum(len(counts[name, "first"]) for name in denominators)
