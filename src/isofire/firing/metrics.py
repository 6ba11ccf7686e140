"""Measures of firing for a loop of one's own, as metrics of torchmetrics: for MetricCollection, Lightning, processes.

All of them keep whole numbers that add up, so that batches, processes and merged metrics give what all spikes at once
would. Needs torchmetrics (`pip install 'isofire[metrics]'`).
"""

from __future__ import annotations

from typing import Any

from isofire.errors import SpecError
from isofire.firing.counts import SpikeCounts, Spikes
from isofire.firing.drift import check_match
from isofire.firing.evidence.outcome import HEADLINE
from isofire.firing.measures import Firing, quantity
from isofire.firing.metric import FiringMetric, named
from isofire.firing.rates import PAPER_CUT, dead_share, require_cut


class OneNetworkMetric(FiringMetric):
    """A measure of one network's firing."""

    def update(self, quantized: Spikes | None = None, *others: Spikes) -> None:
        """Count a batch.

        Parameters
        ----------
        quantized
            The network's spikes, see `isofire.firing.Spikes`. It has this name so that a MetricCollection hands on
            `baseline=` and `quantized=` to metrics of one and of two networks alike.

        Raises
        ------
        SpecError
            If there are none, or those of further networks (`others`), which are not looked at.
        DataError, ModelError
            If they are no spikes, or of other neurons than before.
        """
        if quantized is None or others:
            raise _misfit(self, "one network's spikes, quantized=")
        self._count(quantized=quantized)


def _misfit(metric: FiringMetric, what: str) -> SpecError:
    return SpecError(
        f"update of {type(metric).__name__} takes {what}; a MetricCollection of metrics of one network and "
        "of two is given both by name, update(baseline=..., quantized=...)"
    )


class TwoNetworksMetric(FiringMetric):
    """A measure of two networks' firing on the same images."""

    _networks = ("baseline", "quantized")

    def update(self, baseline: Spikes | None = None, quantized: Spikes | None = None, *others: Spikes) -> None:
        """Count a batch that both networks saw.

        Parameters
        ----------
        baseline, quantized
            Each network's spikes, see `isofire.firing.Spikes`.

        Raises
        ------
        SpecError
            If one of them is not given, or further ones (`others`) are.
        DataError, ModelError
            If they are no spikes, or the two are not of the same neurons and images.
        """
        if baseline is None or quantized is None or others:
            raise _misfit(self, "two networks' spikes, baseline= and quantized=")
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
    name, asked = quantity(column)
    return named(OneNetworkMetric if asked.measure.networks == 1 else TwoNetworksMetric, name)(name, **options)


class _OfOneColumn(FiringMetric):
    """Has a name for what `metric_of` gives."""

    _column: str

    def __init__(self, **options: Any) -> None:
        super().__init__(self._column, **options)

    def _arguments(self) -> str:
        return ""


class MeanFiringRate(_OfOneColumn, OneNetworkMetric):
    """Mean firing rate over all neurons, in spikes per neuron per step; see `isofire.mean_firing_rate`.

    Examples
    --------
    >>> metric = MeanFiringRate()
    >>> metric.update(torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]))  # T = 2, one image, two neurons
    >>> float(metric.compute())
    0.5
    """

    _column = "mfr"


class DeadShare(OneNetworkMetric):
    """Share of neurons with a rate below `cut`; see `isofire.dead_share`. It falls with the number of images.

    At another cut than 0.05 its class, and so its name in a collection, has it too: `DeadShare_0_01`.

    Raises
    ------
    SpecError
        If `cut` is no rate.
    """

    def __init__(self, cut: float = PAPER_CUT, **options: Any) -> None:
        require_cut(cut)
        super().__init__("dead_05", **options)
        self.cut = float(cut)
        if type(self) is DeadShare and self.cut != PAPER_CUT:
            self.__class__ = named(DeadShare, f"DeadShare_{self.cut:g}".replace(".", "_"))

    def _value(self, *firing: Firing) -> float:
        return dead_share(firing[0].rates, self.cut)

    def _about(self) -> str:
        return f"dead share at {self.cut:g}"

    def _arguments(self) -> str:
        return f"cut={self.cut:g}"


class RateEMD(_OfOneColumn, TwoNetworksMetric):
    """Earth mover's distance between the two networks' rates, weighted by neurons; see `isofire.emd`."""

    _column = HEADLINE


class PairedDrift(_OfOneColumn, TwoNetworksMetric):
    """Mean absolute rate change of a neuron, over all neurons; see `isofire.firing.paired_mae`."""

    _column = "paired_mae"


class RankCorrelation(_OfOneColumn, TwoNetworksMetric):
    """Spearman's correlation of the neurons' rates within layers; see `isofire.firing.spearman`."""

    _column = "spearman"
