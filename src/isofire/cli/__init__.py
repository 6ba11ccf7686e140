"""The command line: `isofire --help`."""

from isofire.cli.app import main

__all__ = ["main"]
