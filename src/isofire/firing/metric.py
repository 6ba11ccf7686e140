"""What every metric of firing does: count spikes by layer, add counts over batches and processes, take the measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from isofire.errors import DataError, ModelError, OutputError, SpecError
from isofire.firing.aggregate import combined
from isofire.firing.counts import Spikes, counts_by_layer
from isofire.firing.measures import Combine, Firing, Measure, quantity

try:
    from torchmetrics import Metric
except ImportError as error:
    raise OutputError(
        "isofire.firing.metrics needs torchmetrics, which is not installed; pip install 'isofire[metrics]'"
    ) from error


class FiringMetric(Metric):
    """One measure of firing, added up over updates; see `metric_of`.

    Spikes come as `Spikes`: a tensor [T, N, ...], several by layer, or what a `FiringRecorder` counted. The class of
    what `metric_of` makes has the name of its column: MetricCollections of a list, and logs, go by it.

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
        self.combine: Combine = asked.combine
        # a default without a dimension takes the shape of what is added to it
        for network in self._networks:
            self.add_state(network, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("steps", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("sizes", torch.tensor(0), dist_reduce_fx="max")
        self._names: tuple[tuple[str, int], ...] = ()

    @property
    def measure(self) -> Measure:
        """What it is a metric of; looked up, because functions of measures cannot be pickled."""
        return quantity(self.column)[1].measure

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
        return self.measure.value(*firing)

    def __repr__(self) -> str:
        base = _BASES.get(type(self), (type(self), ""))[0]
        return f"{base.__name__}({self._arguments()})"

    def __reduce__(self) -> Any:
        # a class that was made for a column is found by none but this module
        return _blank, _BASES.get(type(self), (type(self), "")), self.__getstate__()

    def _arguments(self) -> str:
        return repr(self.column)

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
        shapes = {name: layer.told() for name, layer in first.items()}
        for other in others:
            if (told := {name: layer.told() for name, layer in other.items()}) != shapes:
                raise ModelError(
                    "both networks need spikes of the same neurons, steps and images, layer by layer: the baseline's "
                    f"are {_shapes(shapes)}; the quantized network's {_shapes(told)}"
                )
        sizes = torch.tensor([len(layer.counts) for layer in first.values()])
        steps = torch.tensor([layer.steps * layer.images for layer in first.values()])
        counts = {network: torch.cat([layer.counts for layer in layers.values()]) for network, layers in found.items()}
        self._add(tuple((name, layer.steps) for name, layer in first.items()), sizes, steps, counts)

    def _add(
        self, names: tuple[tuple[str, int], ...], sizes: Tensor, steps: Tensor, counts: Mapping[str, Tensor]
    ) -> None:
        """Add counts of layers, each with its name and T."""
        place = self.sizes.device
        if self.sizes.ndim:
            old, new = self.sizes.tolist(), sizes.tolist()
            # members of a MetricCollection share states, not names
            if (self._names and names and self._names != names) or old != new:
                raise ModelError(
                    f"every update must be of the same layers of neurons and T: there were {_told(self._names, old)}, "
                    f"now there are {_told(names, new)}; reset the metric for another network or T"
                )
        self._names, self.sizes = names or self._names, sizes.to(place)
        self.steps = self.steps + steps.to(place)
        for network in self._networks:
            setattr(self, network, getattr(self, network) + counts[network].to(place))


_KINDS: dict[tuple[type[FiringMetric], str], type[FiringMetric]] = {}
_BASES: dict[type[FiringMetric], tuple[type[FiringMetric], str]] = {}


def named(base: type[FiringMetric], name: str) -> type[Any]:
    """The subclass of that name, always the same one; MetricCollections call metrics by their class."""
    if (base, name) not in _KINDS:
        kind = type(name, (base,), {"__module__": base.__module__, "__doc__": base.__doc__})
        _KINDS[base, name], _BASES[kind] = kind, (base, name)
    return _KINDS[base, name]


def _blank(base: type[FiringMetric], name: str) -> FiringMetric:
    """A metric without its state; for copies and pickles."""
    kind: Any = named(base, name) if name else base
    return kind.__new__(kind)


def _firing(counts: Tensor, steps: int) -> Firing:
    return Firing(counts.numpy(), steps)


def _told(names: tuple[tuple[str, int], ...], sizes: list[int]) -> str:
    if len(names) != len(sizes):
        return f"{len(sizes)} of {', '.join(map(str, sizes))}"
    found = zip(names, sizes, strict=True)
    return ", ".join(f"{f'{name!r} of ' if name else ''}{size} with T = {steps}" for (name, steps), size in found)


def _shapes(told: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r}: {shape}" if name else shape for name, shape in told.items())
