"""`python -m scripts.keep_firing`: write the page of the stored study.

`--check` writes nothing and says whether the page is what the study gives.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.keep_firing.goals import GOALS, Groups
from scripts.keep_firing.run import FOLDER, Group, commits, stored
from scripts.page import keep


def page(groups: Groups) -> str:
    """The study's README."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    rows = [row for group in groups.values() for row in group.rows]
    return environment.get_template("page.md.j2").render(
        first=rows[0],
        seeds={row["seed"] for row in rows},
        goals=[(goal, goal.best(groups)) for goal in GOALS],
        groups=groups,
        named=named,
        commits=commits(),
    )


def named(group: Group) -> str:
    """A setting in a few words."""
    row = group.rows[0]
    if row["target"] == "none":
        return str(row["method"])
    bits = row["bits"] if isinstance(row["bits"], str) else f"{row['bits']:g}"
    parts = [row["target"], row["method"], f"{bits} bits", row["range"], row["granularity"], row["placement"]]
    return " ".join(str(part) for part in [*parts, row["options"]] if part).replace("|", "/")


if __name__ == "__main__":
    raise SystemExit(keep(FOLDER / "README.md", page(stored()), "python -m scripts.keep_firing"))
