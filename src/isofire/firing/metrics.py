"""Measures of firing for a loop of one's own, as metrics of torchmetrics: for MetricCollection, Lightning, processes.

All of them keep whole numbers that add up, so that batches, processes and merged metrics give what all spikes at once
would. Needs torchmetrics (`pip install 'isofire[metrics]'`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from isofire.errors import DataError, ModelError, OutputError, SpecError
from isofire.firing.aggregate import combined
from isofire.firing.counts import SpikeCounts, Spikes, counts_by_layer
from isofire.firing.drift import check_match
from isofire.firing.evidence.outcome import HEADLINE
from isofire.firing.measures import Combine, Firing, Measure, quantity
from isofire.firing.rates import PAPER_CUT, dead_share, require_cut

try:
    from torchmetrics import Metric
except ImportError as error:
    raise OutputError(
        "isofire.firing.metrics needs torchmetrics, which is not installed; pip install 'isofire[metrics]'"
    ) from error


class FiringMetric(Metric):
    """One measure of firing, added up over updates; see `metric_of`.

    `compute` gives a 0-d float64. Where `torch.distributed` is initialised it is that of all processes, one without a
    batch among them, and every process must call it.

    Parameters
    ----------
    column
        What to compute: a column of a registered measure, such as "emd_max", or a measure, for its first column.
    options
        Those of `torchmetrics.Metric`.

    Raises
    ------
    SpecError
        If no measure has such a column, or the measure is of another number of networks.
    """

    is_differentiable = False
    full_state_update = False
    _networks: tuple[str, ...] = ("quantized",)

    def __init__(self, column: str, **options: Any) -> None:
        super().__init__(**options)
        self.column, asked = quantity(column)
        if asked.part != "value" or asked.measure.networks != len(self._networks):
            raise SpecError(
                f"{type(self).__name__} computes a measure of {len(self._networks)} network(s), {column!r} is none; "
                "isofire.firing.metrics.metric_of finds the class"
            )
        assert asked.combine is not None
        self.measure: Measure = asked.measure
        self.combine: Combine = asked.combine
        # a default without a dimension takes the shape of what is added to it
        for network in self._networks:
            self.add_state(network, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("steps", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("sizes", torch.tensor(0), dist_reduce_fx="max")
        self._names: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """False for a distance; None where neither way is worse."""
        worse = self.measure.worse
        return None if worse is None else worse == "lower"

    def compute(self) -> Tensor:
        """The value over all updates and processes, 0-d float64.

        Raises
        ------
        DataError
            If there was no update.
        """
        if not self.sizes.ndim:
            raise DataError(f"{type(self).__name__} has counted nothing yet; call update first")
        sizes, steps = self.sizes.tolist(), self.steps.tolist()
        layers = [getattr(self, network).cpu().split(sizes) for network in self._networks]
        firing = [tuple(map(_firing, pair, [n] * len(pair))) for *pair, n in zip(*layers, steps, strict=True)]
        if self.combine == "pooled":
            if len(set(steps)) > 1:
                raise ModelError(f"layers pooled by {self.column} must have one T, got T * images of {set(steps)}")
            value = self._value(*(_firing(torch.cat(parts), steps[0]) for parts in layers))
        else:
            value = combined(self.combine, [self._value(*pair) for pair in firing], sizes)
        return torch.tensor(value, dtype=torch.float64, device=self.sizes.device)

    def _value(self, *firing: Firing) -> float:
        return float(self.measure.of(*firing))

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._names = ()

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Take over what another metric of the same networks counted.

        Raises
        ------
        SpecError
            If it is no metric of the same measure and options.
        ModelError
            If it counted other neurons.
        """
        other = incoming_state
        if not isinstance(other, FiringMetric) or (type(other), other._about()) != (type(self), self._about()):
            told = other._about() if isinstance(other, FiringMetric) else type(other).__name__
            raise SpecError(f"only metrics of one measure and setting can be merged, got {self._about()} and {told}")
        if other.sizes.ndim:
            counts = {network: getattr(other, network) for network in self._networks}
            self._add(other._names, other.sizes, other.steps, counts)
            self._update_count += other._update_count
            self._computed = None

    def merge(self, other: Self) -> Self:
        """`merge_state`, and the metric itself."""
        self.merge_state(other)
        return self

    def sync(
        self,
        dist_sync_fn: Callable | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable | None = None,
    ) -> None:
        """As `torchmetrics.Metric.sync`; a process without a batch first learns the layers of the others.

        Raises
        ------
        ModelError
            If processes counted other neurons.
        """
        if should_sync and dist.is_available() and dist.is_initialized():
            self._agree(process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _about(self) -> str:
        return self.column

    def _agree(self, group: Any) -> None:
        own = (self._names, self.sizes.tolist()) if self.sizes.ndim else None
        found: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(found, own, group=group)
        known = [layers for layers in found if layers is not None]
        if any(layers != known[0] for layers in known):
            raise ModelError(f"every process must count the same layers of neurons, got {known}")
        if own is None and known:
            names, sizes = known[0]
            nothing = torch.zeros(sum(sizes), dtype=torch.int64)
            layers = torch.tensor(sizes)
            self._add(names, layers, torch.zeros_like(layers), dict.fromkeys(self._networks, nothing))

    def _count(self, **networks: Spikes) -> None:
        """Add a batch that all of these networks saw."""
        found = {network: counts_by_layer(spikes, network) for network, spikes in networks.items()}
        first, *others = found.values()
        shapes = {name: (steps, len(counts)) for name, (steps, counts) in first.items()}
        for other in others:
            if (told := {name: (steps, len(counts)) for name, (steps, counts) in other.items()}) != shapes:
                raise ModelError(
                    "both networks need spikes of the same shapes: (T * images, neurons) of their layers are "
                    f"{shapes} and {told}"
                )
        sizes = torch.tensor([size for _, size in shapes.values()])
        steps = torch.tensor([steps for steps, _ in shapes.values()])
        counts = {network: torch.cat([counts for _, counts in layers.values()]) for network, layers in found.items()}
        self._add(tuple(shapes), sizes, steps, counts)

    def _add(self, names: tuple[str, ...], sizes: Tensor, steps: Tensor, counts: Mapping[str, Tensor]) -> None:
        place = self.sizes.device
        if self.sizes.ndim:
            old, new = self.sizes.tolist(), sizes.tolist()
            # members of a MetricCollection share states, not names
            if (self._names or names) != names or old != new:
                raise ModelError(
                    f"every update must be of the same layers of neurons: there were {_told(self._names, old)}, now "
                    f"there are {_told(names, new)}; reset the metric for another network"
                )
        self._names, self.sizes = names, sizes.to(place)
        self.steps = self.steps + steps.to(place)
        for network in self._networks:
            setattr(self, network, getattr(self, network) + counts[network].to(place))


class OneNetworkMetric(FiringMetric):
    """A measure of one network's firing."""

    def update(self, quantized: Spikes) -> None:
        """Count a batch.

        Parameters
        ----------
        quantized
            The network's spikes, see `Spikes`. It has this name so that a MetricCollection hands on `baseline=` and
            `quantized=` to metrics of one and of two networks alike.

        Raises
        ------
        DataError, ModelError
            If they are no spikes, or of other neurons than before.
        """
        self._count(quantized=quantized)


class TwoNetworksMetric(FiringMetric):
    """A measure of two networks' firing on the same images."""

    _networks = ("baseline", "quantized")

    def update(self, baseline: Spikes, quantized: Spikes) -> None:
        """Count a batch that both networks saw.

        Parameters
        ----------
        baseline, quantized
            Each network's spikes, see `Spikes`.

        Raises
        ------
        DataError, ModelError
            If they are no spikes, or the two are not of the same neurons and images.
        """
        if isinstance(baseline, SpikeCounts) and isinstance(quantized, SpikeCounts):
            check_match(baseline, quantized)
        self._count(baseline=baseline, quantized=quantized)


def metric_of(column: str, **options: Any) -> FiringMetric:
    """The metric of any registered measure, by the name of a column or of the measure.

    Raises
    ------
    SpecError
        If no measure has such a column.

    Examples
    --------
    >>> metric = metric_of("dead_00")
    >>> metric.update(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]))  # T = 2, one image, two neurons
    >>> float(metric.compute())
    0.5
    """
    _, asked = quantity(column)
    return (OneNetworkMetric if asked.measure.networks == 1 else TwoNetworksMetric)(column, **options)


class MeanFiringRate(OneNetworkMetric):
    """Mean firing rate over all neurons, in spikes per neuron per step; see `isofire.mean_firing_rate`.

    Examples
    --------
    >>> metric = MeanFiringRate()
    >>> metric.update(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]))  # T = 2, one image, two neurons
    >>> float(metric.compute())
    0.5
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("mfr", **options)


class DeadShare(OneNetworkMetric):
    """Share of neurons with a rate below `cut`; see `isofire.dead_share`. It falls with the number of images.

    Raises
    ------
    SpecError
        If `cut` is no rate.
    """

    def __init__(self, cut: float = PAPER_CUT, **options: Any) -> None:
        require_cut(cut)
        super().__init__("dead_05", **options)
        self.cut = float(cut)

    def _value(self, *firing: Firing) -> float:
        return dead_share(firing[0].rates, self.cut)

    def _about(self) -> str:
        return f"dead share at {self.cut:g}"


class RateEMD(TwoNetworksMetric):
    """Earth mover's distance between the two networks' rates, weighted by neurons; see `isofire.emd`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(HEADLINE, **options)


class PairedDrift(TwoNetworksMetric):
    """Mean absolute rate change of a neuron, over all neurons; see `isofire.firing.paired_mae`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("paired_mae", **options)


class RankCorrelation(TwoNetworksMetric):
    """Spearman's correlation of the neurons' rates within layers; see `isofire.firing.spearman`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("spearman", **options)


def _firing(counts: Tensor, steps: int) -> Firing:
    return Firing(counts.numpy(), steps)


def _told(names: tuple[str, ...], sizes: list[int]) -> str:
    if len(names) != len(sizes):
        return f"{len(sizes)} of {', '.join(map(str, sizes))}"
    return ", ".join(f"{name!r} of {size}" for name, size in zip(names, sizes, strict=True))
