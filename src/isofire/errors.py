"""Errors that a user can act on: each says the rule, the value, the place and the cure."""

from __future__ import annotations


class IsofireError(Exception):
    """Base of every error that isofire raises on purpose; the command line prints it without a traceback."""


class SpecError(IsofireError, ValueError):
    """A setting is out of its range, unknown, contradictory, or matches nothing."""


class ModelError(IsofireError, ValueError):
    """A model cannot be used as asked: no spiking neuron, NaN weights, an unsupported layer."""


class DataError(IsofireError, ValueError):
    """A data file is missing, truncated, altered, or not of the stated format."""


class CheckpointError(IsofireError, ValueError):
    """A checkpoint or record cannot be read, or belongs to another architecture."""


class OutputError(IsofireError, OSError):
    """An output folder or file cannot be written: read-only, full, or already in use."""


class WorkerError(IsofireError, RuntimeError):
    """Processes that should run cells die or cannot be started."""
