"""`python -m scripts.keep_firing`: write the pages of the stored studies.

`--check` writes nothing and says whether the pages are what the studies give.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scripts.keep_firing.losses import by_loss
from scripts.keep_firing.run import IDENTITY, Group, commits, stored
from scripts.keep_firing.studies import STUDIES, Study
from scripts.page import keep


def page(study: Study) -> str:
    """A study's README."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    groups = stored(study.folder)
    earlier = {} if study.before is None else stored(study.before)
    rows = [row for group in groups.values() for row in group.rows]
    return environment.get_template(f"{study.config}.md.j2").render(
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
    raise SystemExit(
        max(keep(study.folder / "README.md", page(study), "python -m scripts.keep_firing") for study in STUDIES)
    )
