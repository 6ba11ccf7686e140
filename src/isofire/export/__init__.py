"""Networks taken away: a bundle of integers that numpy reads, and a C program. NIR is in `isofire.nir`."""

from isofire.export.bundle import read_bundle, write_bundle
from isofire.export.c import write_c

__all__ = ["read_bundle", "write_bundle", "write_c"]
