"""`isofire demo`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from isofire.cli.demo_cells import DemoCell, demo_cells, quick_cells
from isofire.cli.figures import save_figure
from isofire.cli.options import AllowCode, Machine, Out, Output, Seed, SetChoice, Settings, refuse_processes
from isofire.cli.progress import Jobs
from isofire.cli.screen import Log, Report, open_folder
from isofire.config import RunConfig, parse_config, read_config, require
from isofire.files import write_text
from isofire.firing import Comparison
from isofire.json_text import to_json_text
from isofire.models import save_model
from isofire.quantization import describe
from isofire.study import (
    Baseline,
    Splits,
    environment,
    load_splits,
    markdown_table,
    rates_figure,
    run_cell,
    scatter_figure,
    text_table,
    train_baseline,
    write_rows,
)

CONFIG = "digits-demo.toml"
_QUICK = ("model.width=0.25", "data.train_images=200", "data.test_images=60", "train.epochs=1", "qat.epochs=1",
          "qat.warmup_epochs=0", "calibration.images=64")  # fmt: skip
# a cell's own work beside its epochs: quantizing and comparing, in epochs
_CELL_UNITS = 0.5


def demo(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    set: Settings = (),
    allow_code: AllowCode = False,
    choice: SetChoice | None = None,
    out: Out = None,
    seed: Seed = None,
    quick: Annotated[bool, Parameter(show=False, negative=())] = False,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Train, quantize and compare a small spiking network on digits: everything once, in about a minute.

    Trains a SEW-ResNet-8, then quantizes its weights and its membranes in several ways, after training and with
    training, and measures accuracy and firing of each; on one thread unless told. Two rows quantize nothing: they show
    how much firing drifts through re-estimated batch-norm statistics, and through the extra epochs, alone.

    Writes baseline.safetensors, results.csv, results.json, table.md, environment.json and, where matplotlib is
    installed, accuracy-emd.png and rates.png.

    ```
    isofire demo
    isofire demo --out demo-output --seed 1
    isofire demo --set train.epochs=10 --set model.width=0.5
    ```

    Parameters
    ----------
    config
        TOML file to run instead of the one in the package; needs the tables [model], [data], [train] and [qat]. What is
        quantized is the demo's own list, whatever [quant] says.
    seed
        Of the network, its training, and the images that calibrate; replaces the configuration's.
    """
    refuse_processes("demo")
    settings = demo_config(seed, quick, config, set, allow_code, (choice or SetChoice()).given())
    # 8x8 images give a second thread nothing to do but to wait for, at great cost where another program has its core
    place = (machine or Machine()).claim(default_threads=1)
    folder, log = open_folder(out or settings.out or "isofire-demo"), Log()
    cells = quick_cells() if quick else demo_cells()
    assert settings.data is not None
    splits = load_splits(settings.data)
    with Jobs(_units(settings, cells)) as jobs:
        baseline = _train(settings, splits, place, jobs)
        run = _Run(settings, splits, baseline, place, jobs)
        rows, shown = run.all(cells)
    about = environment(place)
    files = [save_model(folder / "baseline.safetensors", baseline.model, {"environment": about, **baseline.to_dict()})]
    files += write_rows(folder, rows, about)
    files.append(write_text(folder / "table.md", markdown_table(rows)))
    files.append(write_text(folder / "environment.json", to_json_text(about)))
    figures = [save_figure(folder / "accuracy-emd.png", lambda: scatter_figure(rows), log)]
    figures.append(save_figure(folder / "rates.png", lambda: rates_figure(shown), log))
    files += [figure for figure in figures if figure is not None]
    document = {"rows": rows, "baseline": baseline.to_dict(), "environment": about, "files": [str(f) for f in files]}
    text = [text_table(rows), "", *_findings(rows), "", *(f"wrote {file}" for file in files)]
    return Report(document, "\n".join(text))


def demo_config(
    seed: int | None = None,
    quick: bool = False,
    path: Path | None = None,
    settings: Sequence[str] = (),
    allow_code: bool = False,
    data: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The configuration at `path`, or the one in the package; `quick` makes it tiny, `settings` come last."""
    changes = (*(_QUICK if quick else ()), *settings)
    if path is None:
        text = (resources.files("isofire.cli") / "assets" / CONFIG).read_text(encoding="utf-8")
        found = parse_config(tomllib.loads(text), CONFIG, changes, seed, data=data)
    else:
        found = read_config(path, changes, seed, allow_code, data=data)
    require(found, "model", "data", "train", "qat")
    return found


def _units(settings: RunConfig, cells: list[DemoCell]) -> float:
    assert settings.train is not None
    assert settings.qat is not None
    trained = sum(cell.mode == "qat" for cell in cells)
    return settings.train.epochs + _CELL_UNITS * len(cells) + settings.qat.epochs * trained


def _train(settings: RunConfig, splits: Splits, place: Any, jobs: Jobs) -> Baseline:
    assert settings.model is not None
    assert settings.train is not None
    jobs.start("training the baseline")
    found = train_baseline(settings.model, splits, settings.train, device=place, on_epoch=lambda _: jobs.advance(1))
    assert found is not None
    jobs.finish(f"baseline: accuracy {100 * found.test.accuracy:.2f} % (n = {found.test.n})")
    return found


@dataclass(frozen=True)
class _Run:
    """What all cells of the demo share."""

    settings: RunConfig
    splits: Splits
    baseline: Baseline
    place: Any
    jobs: Jobs

    def all(self, cells: list[DemoCell]) -> tuple[list[dict[str, Any]], dict[str, Comparison]]:
        rows, shown = [], {}
        for cell in cells:
            row, comparison = self.one(cell)
            rows.append(row)
            if cell.shown:
                shown[cell.shown] = comparison
        return rows, shown

    def one(self, cell: DemoCell) -> tuple[dict[str, Any], Comparison]:
        name = f"{cell.mode}: {_title(cell)}"
        self.jobs.start(name)
        found = run_cell(
            self.baseline.model,
            cell.spec,
            mode=cell.mode,
            train_set=self.splits.train,
            test_set=self.splits.test,
            recipe=self.settings.qat if cell.mode == "qat" else None,
            seed=self.settings.seed,
            calibration_images=self.settings.calibration.images,
            device=self.place,
            on_epoch=lambda _: self.jobs.advance(1),
        )
        self.jobs.advance(_CELL_UNITS)
        row = found.row
        self.jobs.finish(f"{name:<58} accuracy {100 * row['accuracy']:.2f} %  EMD {row['emd_layer_mean']:.5f}")
        return row, found.comparison


def _title(cell: DemoCell) -> str:
    if cell.spec is None:
        return "nothing (control)"
    target = "weights" if cell.spec.weights is not None else "membrane"
    return f"{target} {describe(cell.spec.weights or cell.spec.membrane)}"


def _findings(rows: list[dict[str, Any]]) -> list[str]:
    """What to look for, in this run's numbers."""
    floor = max(row["emd_layer_mean"] for row in rows if row["target"] == "none")
    lines = [
        f"The two controls quantize nothing and drift by up to EMD {floor:.5f}: less than that says nothing about a",
        "quantizer, wherever batch norm is re-estimated or training goes on.",
    ]
    pre, post, more, signed = (
        _find(rows, target="membrane", mode="ptq", placement=placement, bits=bits, range=span)
        for placement, bits, span in (
            ("pre_fire", 2, "[0, 1]"), ("post_reset", 2, "[0, 1]"), ("post_reset", 8, "[0, 1]"),
            ("post_reset", 8, "[-1, 1]"),
        )
    )  # fmt: skip
    if pre and post and more and signed:
        lines += [
            f"A 2-bit membrane quantized before it fires drifts by {pre['emd_layer_mean']:.5f} (rate {pre['mfr']:.4f} "
            f"against {pre['mfr_fp']:.4f}); after its reset, by {post['emd_layer_mean']:.5f}.",
            f"The range [0, 1] cuts negative membranes: with 8 bits it still drifts by {more['emd_layer_mean']:.5f}, "
            f"[-1, 1] by {signed['emd_layer_mean']:.5f}.",
        ]
    error = (rows[0]["accuracy_fp"] * (1 - rows[0]["accuracy_fp"]) / rows[0]["n_images"]) ** 0.5
    lines.append(
        f"One standard error of accuracy is {100 * error:.2f} points, and this is one seed: no ranking of methods."
    )
    return lines


def _find(rows: list[dict[str, Any]], **labels: Any) -> Mapping[str, Any] | None:
    return next((row for row in rows if all(row[key] == value for key, value in labels.items())), None)
