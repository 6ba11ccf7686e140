"""What a membrane method may know of the neurons whose potential it quantizes: plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isofire.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class NeuronFacts:
    """One layer of neurons, as far as its levels depend on it.

    Parameters
    ----------
    kind
        Name of the neuron's class, such as "LIF".
    thresholds
        Its distinct firing thresholds, ascending, in the units of the membrane; one in most layers.
    v_reset
        Value of a hard reset; None for a soft one, which subtracts the threshold.
    fires_at_threshold
        Whether a membrane that equals the threshold fires.
    several
        Whether a neuron may fire several spikes in a step.

    Examples
    --------
    >>> NeuronFacts(thresholds=(0.5,)).fire_edge < 0.5 <= NeuronFacts(thresholds=(0.5,)).lowest_firing
    True
    """

    kind: str = "LIF"
    thresholds: tuple[float, ...] = (1.0,)
    v_reset: float | None = 0.0
    fires_at_threshold: bool = True
    several: bool = False

    @property
    def rest(self) -> float:
        """The potential before the first step, and after a hard reset."""
        return 0.0 if self.v_reset is None else self.v_reset

    @property
    def threshold(self) -> float:
        """The one threshold of the layer; see `require_one_threshold`."""
        self.require_one_threshold()
        return self.thresholds[0]

    @property
    def reach(self) -> float:
        """How far the threshold lies above the rest."""
        return self.threshold - self.rest

    @property
    def fire_edge(self) -> float:
        """The largest float32 potential that does not fire.

        As a bin's edge it makes decisions exact: what lies on an edge belongs to the bin below.
        """
        value = np.float32(self.threshold)
        return float(np.nextafter(value, np.float32(-np.inf)) if self.fires_at_threshold else value)

    @property
    def lowest_firing(self) -> float:
        """The smallest float32 potential that fires."""
        return float(np.nextafter(np.float32(self.fire_edge), np.float32(np.inf)))

    def require_one_threshold(self) -> None:
        """Raise SpecError if the neurons of the layer have several thresholds, or one that is not above the rest."""
        if len(self.thresholds) != 1:
            raise SpecError(
                f"levels that are placed by the threshold need one for the layer, this {self.kind} has "
                f"{len(self.thresholds)}, from {self.thresholds[0]:g} to {self.thresholds[-1]:g}; take method "
                "'uniform' or 'levels', or leave the layer float by a rule"
            )
        if not self.thresholds[0] > self.rest:
            raise SpecError(
                f"levels that are placed by the threshold need one above the rest, this {self.kind} fires at "
                f"{self.thresholds[0]:g} and rests at {self.rest:g}; take method 'uniform' or 'levels'"
            )

    def require_one_spike(self, method: str) -> None:
        """Raise SpecError if one code cannot stand for "fires", as neurons may fire several spikes in a step."""
        if self.several:
            raise SpecError(
                f"at pre_fire one code of {method} means 'fires', but this {self.kind} may fire several spikes in a "
                "step; use placement 'post_reset', or method 'uniform' with a range of several thresholds"
            )


STANDARD = NeuronFacts()
"""Threshold 1, hard reset to 0: what a setting is checked against before it meets a network."""
