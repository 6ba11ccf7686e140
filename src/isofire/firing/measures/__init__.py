"""What is measured of firing: a record a measure, and the register that everything else loops over.

A measure is a function of one network's firing (the rate, the share of dead neurons) or of two (a distance). Its record
says all that the rest has to know of it: how layers are combined, in which bounds it lies, which way is worse, how
noise bends it, and how tables show it. Recordings, intervals, noise floors, rows, tables, reports and limits take their
measures from `MEASURES`; a measure that is registered goes through all of them. All files here are imported.
"""

from isofire.firing.measures.built_in import BUILT_IN, CUTS
from isofire.firing.measures.record import CHANGE, FP, RATE_UNIT, Combine, Firing, Measure, Place
from isofire.firing.measures.register import (
    MEASURES,
    Quantity,
    columns,
    quantities,
    quantity,
    register_measure,
    shown_in,
)
from isofire.registry import import_files

import_files(__path__, __name__)

__all__ = [
    "BUILT_IN",
    "CHANGE",
    "CUTS",
    "FP",
    "MEASURES",
    "RATE_UNIT",
    "Combine",
    "Firing",
    "Measure",
    "Place",
    "Quantity",
    "columns",
    "quantities",
    "quantity",
    "register_measure",
    "shown_in",
]
