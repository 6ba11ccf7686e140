"""`python -m isofire.study GRID.toml --baseline MODEL.safetensors --out DIR [--root DATA]`: run a grid of cells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from isofire.errors import IsofireError
from isofire.files import writable_folder, write_text
from isofire.models import load_model
from isofire.study.grid import Grid, run_grid
from isofire.study.tables import text_table


def main() -> int:
    """Exit status: 0, or 2 for a mistake in the input."""
    parser = argparse.ArgumentParser(prog="python -m isofire.study", description="Run a grid of cells, resumable.")
    parser.add_argument("grid", help="TOML: [data], [qat], [[cells]]")
    parser.add_argument("--baseline", required=True, help="model.safetensors of the full-precision network")
    parser.add_argument("--out", required=True, help="folder of results; finished cells in it are kept")
    parser.add_argument("--root", help="data folder, in place of the grid's")
    arguments = parser.parse_args()
    try:
        grid = Grid.from_toml(arguments.grid, arguments.root)
        baseline, _ = load_model(arguments.baseline)
        folder = writable_folder(arguments.out)
        write_text(folder / "grid.toml", Path(arguments.grid).read_text(encoding="utf-8"))
        print(text_table(run_grid(grid, baseline, folder)))
    except IsofireError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
