"""`isofire demo`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from isofire.cli.figures import save_figure
from isofire.cli.options import AllowCode, Machine, Output, SetChoice, Settings, refuse_processes
from isofire.cli.report import report
from isofire.cli.screen import Log, Report
from isofire.cli.sweep import Place, sweep
from isofire.cli.whole import WHOLE
from isofire.config.packaged import FOLDER
from isofire.report import scatter_figure

_FOLDER = Path("isofire-demo")
_CONFIG = FOLDER / "demo" / "digits.toml"
_OTHER = "A sweep's file to run instead of the one in the package."
_SEED = "Of the network, its training, and the images that calibrate; replaces the file's."


def demo(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"], help=_OTHER)] = None,
    set: Settings = (),
    allow_code: AllowCode = False,
    choice: SetChoice | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Folder for results.")] = _FOLDER,
    seed: Annotated[int | None, WHOLE, Parameter(help=_SEED)] = None,
    workers: Annotated[
        int | None, WHOLE, Parameter(help="Cells at once; by default as many as there are cores.")
    ] = None,
    machine: Machine | None = None,
    output: Output | None = None,
) -> Report:
    """Train, quantize and compare a small spiking network on digits: a sweep and its report, in a minute or two.

    Trains a SEW-ResNet-8, then quantizes its weights and its membranes in several ways, after training and with
    training, and measures accuracy and firing of each. Two rows quantize nothing: they show how much firing drifts
    through re-estimated batch-norm statistics, and through the extra epochs, alone.

    Writes what `sweep` and `report` write, report.html foremost, and accuracy-emd.png. Given again, it goes on where
    it was cut off.

    ```
    isofire demo --set qat.epochs=4 --set baselines.0.model.width=0.5
    isofire demo --out demo-output --seed 1
    ```
    """
    refuse_processes("demo")
    changes = (*set, *([] if seed is None else [f"seeds=[{seed}]"]))
    swept = sweep(
        config or _CONFIG,
        out=out,
        set=changes,
        allow_code=allow_code,
        choice=choice,
        place=Place(workers=workers),
        machine=machine,
    )
    log = Log()
    figure = save_figure(out / "accuracy-emd.png", lambda: scatter_figure(swept.document["rows"]), log)
    files = [] if figure is None else [str(figure)]
    if find_spec("jinja2") is None:
        log("no report.html: a report needs jinja2; pip install 'isofire[report]'")
        return Report({**swept.document, "files": files}, swept.text, swept.code)
    told = report(out)
    files += told.document["files"]
    text = [swept.text, "", told.text, *([] if figure is None else [f"wrote {figure}"])]
    return Report({**told.document, **swept.document, "files": files}, "\n".join(text), swept.code)
