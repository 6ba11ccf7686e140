"""What a user may write: the files of runs and of sweeps, settings laid over them, and where each value came from."""

from isofire.config.cells import CellGroup, Mode
from isofire.config.data import DataSettings
from isofire.config.run import RunConfig, parse_config, read_config, require
from isofire.config.source import ConfigSource, parse_setting
from isofire.config.sweep import BaselineSettings, Sweep, read_sweep
from isofire.config.tables import lay_data

__all__ = [
    "BaselineSettings",
    "CellGroup",
    "ConfigSource",
    "DataSettings",
    "Mode",
    "RunConfig",
    "Sweep",
    "lay_data",
    "parse_config",
    "parse_setting",
    "read_config",
    "read_sweep",
    "require",
]
