"""Bits for each layer: chosen exactly from what each layer's bits do alone, then measured together.

`budget.py` says what must be kept to, `solve.py` chooses, `measure.py` makes and measures the networks, `ptq4snn.py` is
another rule to stand beside, `allocate.py` does all, `record.py` shows it.
"""

from isofire.study.allocation.allocate import allocate
from isofire.study.allocation.budget import Budget, Tolerance
from isofire.study.allocation.measure import Option
from isofire.study.allocation.record import Allocation
from isofire.study.allocation.solve import solve

__all__ = ["Allocation", "Budget", "Option", "Tolerance", "allocate", "solve"]
