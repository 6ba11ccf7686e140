"""A list of cells from a few lines of TOML, run one after the other; a finished cell is never run again."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from torch import nn

from isofire.errors import CheckpointError, OutputError, SpecError
from isofire.files import writable_folder, write_atomic, write_text
from isofire.spec import QuantSpec, read_toml
from isofire.study.cell import Mode, run_cell
from isofire.study.environment import environment, version
from isofire.study.figures import scatter_figure
from isofire.study.rows import Row, plain, write_rows
from isofire.study.splits import DataSettings, Splits, load_splits
from isofire.study.tables import markdown_table
from isofire.training import Recipe


class CellGroup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that differ in bits and mode.

    `weights` and `membrane` are settings of a `QuantSpec` without their bits, which come from `bits`; a group with
    neither is a control.
    """

    mode: tuple[Mode, ...] = ("ptq", "qat")
    bits: tuple[int, ...] = ()
    weights: dict[str, Any] | None = None
    membrane: dict[str, Any] | None = None
    spec: dict[str, Any] = {}


class Grid(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run: data, the recipe of every quantization-aware cell, seeds, and groups of cells.

    `test_split` chooses the images that cells are compared on: "test", or "valid" while choices are being made.
    """

    data: DataSettings
    qat: Recipe
    cells: tuple[CellGroup, ...]
    seeds: tuple[int, ...] = (0,)
    calibration_images: int = 1024
    test_split: Literal["test", "valid"] = "test"

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], root: str | None = None) -> Grid:
        """Read a grid; `root` replaces the data folder.

        Raises
        ------
        SpecError
            If a key is unknown or a value out of range; says where.
        """
        content = read_toml(Path(path))
        if root is not None:
            content.setdefault("data", {})["root"] = root
        try:
            grid = msgspec.convert(content, cls)
        except msgspec.ValidationError as error:
            raise SpecError(f"{error} in {path}") from error
        list(grid.settings())
        return grid

    def settings(self) -> Iterator[tuple[Mode, QuantSpec | None, int]]:
        """(mode, spec, seed) of every cell, in order; None is a control."""
        for seed, group in itertools.product(self.seeds, self.cells):
            for mode, bits in itertools.product(group.mode, group.bits or (None,)):
                yield mode, _spec(group, bits), seed


def run_grid(grid: Grid, baseline: nn.Module, out: str | os.PathLike[str], *, progress: bool = True) -> list[Row]:
    """Run every cell that `out` does not hold yet and write `results.csv`, `results.json` and `table.md` there.

    A cell's row is stored as soon as it is there, in `cells/`, under a hash of everything that decides it; a cell in
    training keeps its state in `training/`.

    Raises
    ------
    OutputError
        If `out` cannot be written.
    """
    folder = writable_folder(out)
    splits = load_splits(grid.data)
    cells = list(grid.settings())
    rows = []
    for number, (mode, spec, seed) in enumerate(cells, 1):
        key = cell_key(grid, baseline, splits, mode, spec, seed)
        path = folder / "cells" / f"{key}.json"
        if not path.exists():
            row = _run_one(grid, baseline, splits, mode, spec, seed, folder / "training" / key)
            write_text(path, msgspec.json.encode(plain(row)).decode() + "\n")
        rows.append(_stored(path))
        if progress:
            print(f"[{number}/{len(cells)}] {line_of(rows[-1])}", file=sys.stderr, flush=True)
    write_rows(folder, rows, environment() | {"data": splits.fingerprints()})
    write_text(folder / "table.md", markdown_table(rows))
    _write_figure(rows, folder / "accuracy-emd.png")
    return rows


def cell_key(grid: Grid, baseline: nn.Module, splits: Splits, mode: Mode, spec: QuantSpec | None, seed: int) -> str:
    """Hash of what decides a cell's row: network, version, spec, mode, seed, data, and the recipe if it trains."""
    digest = hashlib.sha256()
    for name, tensor in baseline.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    settings = [
        # equal weights do not make equal networks: T, thresholds and how blocks are joined are in the config
        baseline.__dict__.get("config") or repr(baseline),
        version("isofire"),
        None if spec is None else spec.to_dict(),
        mode,
        seed,
        splits.train.fingerprint,
        msgspec.to_builtins(grid.data) | {"root": None, "download": False},
        grid.test_split,
        grid.calibration_images,
        msgspec.to_builtins(grid.qat) if mode == "qat" else None,
    ]
    digest.update(msgspec.json.encode(settings, order="deterministic"))
    return digest.hexdigest()[:16]


def line_of(row: Row) -> str:
    """A finished cell in one line."""
    what = " ".join(
        str(row[key]) for key in ("method", "bits", "range", "placement", "mode") if row.get(key) is not None
    )
    return (
        f"{what}: accuracy {row['accuracy']:.4f} (fp {row['accuracy_fp']:.4f}), EMD {row['emd_layer_mean']:.5f}, "
        f"rate {row['mfr']:.4f} (fp {row['mfr_fp']:.4f}), {row['seconds']:.0f} s"
    )


def _run_one(
    grid: Grid,
    baseline: nn.Module,
    splits: Splits,
    mode: Mode,
    spec: QuantSpec | None,
    seed: int,
    training: Path,
) -> Row:
    images = splits.test if grid.test_split == "test" else splits.valid
    if images is None:
        raise SpecError("test_split = 'valid' needs images held out; set data.valid to a number of images")
    return run_cell(
        baseline,
        spec,
        mode=mode,
        train_set=splits.train,
        test_set=images,
        recipe=grid.qat if mode == "qat" else None,
        seed=seed,
        calibration_images=grid.calibration_images,
        folder=training if mode == "qat" else None,
    ).row


def _spec(group: CellGroup, bits: int | None) -> QuantSpec | None:
    targets = {
        name: setting if bits is None else {**setting, "bits": bits}
        for name, setting in (("weights", group.weights), ("membrane", group.membrane))
        if setting is not None
    }
    if not targets:
        return None
    return QuantSpec.from_dict({**targets, **group.spec})


def _write_figure(rows: list[Row], path: Path) -> None:
    try:
        figure = scatter_figure(rows)
    except OutputError as error:
        print(error, file=sys.stderr)
        return
    write_atomic(path, lambda part: figure.savefig(part, dpi=160, format="png"))


def _stored(path: Path) -> Row:
    try:
        row = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"cannot read the finished cell {path}: {error}; remove it to run it again") from error
    return row
