"""Settings in one short line, for tables."""

from __future__ import annotations

from isofire.quantizers import Setting


def describe(setting: Setting | None) -> str:
    """Such as "uniform 4 bit endpoint [-1, 1] per channel"; "float" for None."""
    return "float" if setting is None else setting.describe()
