"""Quantized networks by look-up: partial sums of low-bit weights in tables, spikes packed, neurons in the epilogue."""

from isofire.lookup.adapter import FastAdapter
from isofire.lookup.build import FastNetwork, fast

__all__ = ["FastAdapter", "FastNetwork", "fast"]
