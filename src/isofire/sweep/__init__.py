"""Grids of any size: planned from one file, computed anywhere, each cell once, resumable at any moment."""

from isofire.config import Sweep, read_sweep
from isofire.sweep.plan import Plan, make_plan
from isofire.sweep.results import Results, load_results
from isofire.sweep.runner import State, run_sweep

__all__ = ["Plan", "Results", "State", "Sweep", "load_results", "make_plan", "read_sweep", "run_sweep"]
