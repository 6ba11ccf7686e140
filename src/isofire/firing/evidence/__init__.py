"""What the images allow to say: intervals for every measure, noise floors, and how many images would be enough."""

from isofire.firing.evidence.interval import DriftIntervals, Interval, drift_intervals
from isofire.firing.evidence.sample_size import images_enough
from isofire.firing.evidence.seeds import over_seeds

__all__ = ["DriftIntervals", "Interval", "drift_intervals", "images_enough", "over_seeds"]
