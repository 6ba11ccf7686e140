"""Write README's table and figure from a stored run; `--check` only says whether they are what the run gives."""

from __future__ import annotations

import sys
from pathlib import Path

from isofire.study import read_rows
from isofire.study.tables import markdown_table

ROOT = Path(__file__).parents[1]
RUN = "results/2026-11-23_cifar10-road-test"


def section(name: str, body: str, text: str) -> str:
    """`text` with what stands between the markers of `name` replaced by `body`."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = text.partition(start)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"README.md has no markers {start.strip()} and {end}")
    return f"{head}{start}{body}\n{end}{tail}"


def readme() -> str:
    """README.md as the stored run says."""
    table = markdown_table(read_rows(ROOT / RUN / "results.json"))
    about = (ROOT / RUN / "README.md").read_text(encoding="utf-8").split("\n\n")[1].strip()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = section("table", f"{about}\n\n{table}\nStored run: [{RUN}]({RUN}).", text)
    return section("figure", f"![Accuracy against EMD, one mark a cell]({RUN}/accuracy-emd.png)", text)


def main() -> int:
    """0 if README.md is (now) what the run gives, 1 if `--check` finds it is not."""
    wanted = readme()
    if "--check" in sys.argv:
        same = (ROOT / "README.md").read_text(encoding="utf-8") == wanted
        print("README.md is up to date" if same else "README.md differs: run `python scripts/readme.py`")
        return 0 if same else 1
    (ROOT / "README.md").write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
