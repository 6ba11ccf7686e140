"""What rates do not hold: words of spikes, first-spike times, distances of spike trains, population similarity."""

from isofire.firing.timing.compare import TimingComparison, TimingDrift, compare_timing
from isofire.firing.timing.similarity import StreamedCKA, cka, logit_kl
from isofire.firing.timing.trains import first_spikes, van_rossum, victor_purpura
from isofire.firing.timing.words import joint_words, spike_words, total_variation, word_counts

__all__ = [
    "StreamedCKA",
    "TimingComparison",
    "TimingDrift",
    "cka",
    "compare_timing",
    "first_spikes",
    "joint_words",
    "logit_kl",
    "spike_words",
    "total_variation",
    "van_rossum",
    "victor_purpura",
    "word_counts",
]
