"""`python -m scripts.keep_firing`: write the pages of the stored studies, and that of all goals.

`--check` writes nothing and says whether the pages are what the studies give.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.keep_firing.losses import by_loss
from scripts.keep_firing.run import IDENTITY, Group, commits, stored
from scripts.keep_firing.studies import RESULTS, STUDIES, Study
from scripts.keep_firing.table import FOLDERS, LINES, drop, losses, over_control, over_images, seconds
from scripts.page import keep

GOALS = RESULTS.parent / "docs" / "goals.md"
_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
)


def goals() -> str:
    """The page of all goals."""
    return _environment.get_template("goals.md.j2").render(
        lines=LINES,
        folders=FOLDERS,
        losses=losses(),
        seconds=seconds(),
        named=named,
        drop=drop,
        over_images=over_images,
        over_control=over_control,
    )


def page(study: Study) -> str:
    """A study's README."""
    groups = stored(study.folder)
    earlier = {} if study.before is None else stored(study.before)
    rows = [row for group in groups.values() for row in group.rows]
    return _environment.get_template(f"{study.config}.md.j2").render(
        first=rows[0],
        seeds={row["seed"] for row in rows},
        goals=[(goal, goal.best(groups)) for goal in study.goals],
        groups=groups,
        beside=[(group, earlier.get(_as_before(key))) for key, group in groups.items()],
        losses=by_loss(groups),
        named=named,
        commits=commits(study.folder),
    )


def _as_before(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A setting as an earlier study has it, which knew no reconstruction."""
    place = IDENTITY.index("options")
    options = re.sub(r" ?reconstruct=\d+", "", key[place] or "").strip() or None
    return (*key[:place], options, *key[place + 1 :])


def named(group: Group) -> str:
    """A setting in a few words."""
    row = group.rows[0]
    if row["target"] == "none":
        return " ".join(filter(None, (row["method"], row["options"])))
    bits = row["bits"] if isinstance(row["bits"], str) else f"{row['bits']:g}"
    parts = [row["target"], row["method"], f"{bits} bits", row["range"], row["granularity"], row["placement"]]
    return " ".join(str(part) for part in [*parts, row["options"]] if part).replace("|", "/")


if __name__ == "__main__":
    pages = {study.folder / "README.md": page(study) for study in STUDIES} | {GOALS: goals()}
    raise SystemExit(max(keep(path, text, "python -m scripts.keep_firing") for path, text in pages.items()))
