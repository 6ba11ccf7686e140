"""`isofire compare`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from isofire.cli.earlier import CONFIG, Force, keep_earlier
from isofire.cli.figures import save_figure
from isofire.cli.floors import FloorChoice
from isofire.cli.named import Against, ModelChoice
from isofire.cli.options import BatchSize, DataChoice, Machine, MarginChoice, Out, Output
from isofire.cli.screen import Log, Report, open_folder
from isofire.files import write_text
from isofire.firing import Beside, Comparison, observe
from isofire.firing import compare as measure
from isofire.firing.compare import require_order
from isofire.firing.evidence.outcome import Margins
from isofire.json_text import to_json_text
from isofire.quantization import labels_of_model
from isofire.study import environment, name_of, write_rows
from isofire.study.cell import name_of_data


def compare(
    baseline: Against,
    quantized: Path | None = None,
    integers: Path | None = None,
    /,
    *,
    network: ModelChoice | None = None,
    out: Out = None,
    force: Force = False,
    batch_size: BatchSize = 128,
    choice: DataChoice | None = None,
    floor: FloorChoice | None = None,
    margin: MarginChoice | None = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Compare the firing of two networks on the same images, layer by layer, and say what of it may be noise.

    With --out it writes comparison.json, row.csv, row.json, environment.json, config.json and, where matplotlib is
    installed, figure.png; a folder with the result of another comparison is refused (--force).

    ```
    isofire compare fp.safetensors q.safetensors -c config.toml --n 2000 -o runs/q
    isofire compare fp.safetensors q.safetensors --data digits --control continued.safetensors
    isofire compare own-q.safetensors --model nets:build --weights weights.safetensors --data nets:load
    isofire compare fp.safetensors q.safetensors codes --data digits
    isofire compare fp.safetensors q.safetensors --data digits
    ```

    Of three networks one table says what each does against the first, and the third against the second.

    Parameters
    ----------
    quantized
        The network to measure; also a bundle of integers (isofire export --to bundle).
    integers
        A third network, made of the second: usually the bundle of its integers.
    """
    place = (machine or Machine()).claim()
    chosen, margins = network or ModelChoice(), (margin or MarginChoice()).over()
    command = {
        "command": "compare",
        "networks": [*map(str, (baseline, quantized, chosen.model, chosen.weights, *filter(None, [integers])))],
        **_plain("data", choice or DataChoice()), **_plain("floor", floor or FloorChoice()),
        "margins": msgspec.to_builtins(margins), "batch_size": batch_size,
    }  # fmt: skip
    if out is not None:
        keep_earlier(out, "comparison.json", command, force)
    folder = open_folder(out) if out is not None else None
    (first, _), (second, note) = chosen.open_pair("compare", baseline, quantized)
    require_order(first, second, chosen.names_of_pair(baseline, quantized))
    data = (choice or DataChoice()).load()
    show = sys.stderr.isatty()
    seen = observe(first, data, batch_size=batch_size, device=place, progress=show)
    beside = (floor or FloorChoice()).of(seen, data, batch_size, place, chosen.open)
    about = environment(place)
    if integers is not None:
        third, _ = chosen.open(integers)
        require_order(second, third, (str(quantized), str(integers)))
        others = {
            name: observe(model, data, batch_size=batch_size, device=place, progress=show)
            for name, model in (("quantized", second), ("integers", third))
        }
        together = Beside.of({"baseline": seen, **others}, floor=beside)
        files = [] if folder is None else _keep_three(folder, together, margins, about, command)
        document = {"rows": together.rows(margins), **together.to_dict(), "environment": about}
        return Report({**document, "files": [str(file) for file in files]}, together.table(margins=margins))
    found = measure(seen, second, data, batch_size=batch_size, device=place, progress=show, floor=beside)
    labels = {
        "model": chosen.model or name_of(first),
        "data": name_of_data(data),
        **labels_of_model(second),
        **_origin(note),
    }
    row = found.row(margins, **labels)
    files = [] if folder is None else keep_comparison(folder, found, row, about, Log())
    if folder is not None:
        write_text(folder / CONFIG, to_json_text({"command": command}))
    document = {"row": row, **found.to_dict(), "environment": about, "files": [str(file) for file in files]}
    written = "".join(f"\nwrote {file}" for file in files)
    return Report(document, found.table(margins=margins) + (f"\n{written}" if written else ""))


def _keep_three(
    folder: Path, found: Beside, margins: Margins, about: dict[str, Any], command: dict[str, Any]
) -> list[Path]:
    """Write a table of three networks, its rows, and the environment; returns the files."""
    files = [write_text(folder / "comparison.json", to_json_text(found.to_dict()))]
    files += write_rows(folder, found.rows(margins), about, stem="row")
    files.append(write_text(folder / "environment.json", to_json_text(about)))
    return [*files, write_text(folder / CONFIG, to_json_text({"command": command}))]


def _plain(name: str, choice: Any) -> dict[str, Any]:
    return {name: {key: str(value) for key, value in asdict(choice).items() if key not in ("root", "download")}}


def _origin(note: dict[str, Any]) -> dict[str, Any]:
    """How a file was quantized, as `isofire quantize` noted it; None where the file does not say."""
    row = note.get("row")
    return {key: row.get(key) if isinstance(row, dict) else None for key in ("mode", "seed")}


def keep_comparison(
    folder: Path, found: Comparison, row: dict[str, Any], about: dict[str, Any], log: Log
) -> list[Path]:
    """Write a comparison, its row, the environment and a figure; returns the files."""
    files = [folder / "comparison.json"]
    found.to_json(files[0])
    files += write_rows(folder, [row], about, stem="row")
    files.append(write_text(folder / "environment.json", to_json_text(about)))
    figure = save_figure(folder / "figure.png", found.figure, log)
    return files + ([figure] if figure else [])
