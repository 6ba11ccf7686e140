"""`python -m scripts.evidence.example ROOT`: docs/evidence.md's worked example, run on CIFAR-10 in the folder ROOT.

The example's screen is kept in the stored run; without ROOT the page is only written from it.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

from scripts.evidence.run import BASELINE, FOLDER, ROOT
from scripts.page import keep
from scripts.readme import section

from isofire.cli.app import main as isofire
from isofire.files import write_text

SCREEN = FOLDER / "example.txt"
PAGE = ROOT / "docs" / "evidence.md"
IMAGES = 500
CONTROLS = 3
WEIGHTS = 'quant={weights={method="lsq",bits=4}}'


def screen(root: Path) -> str:
    """What `isofire compare` prints for weights of 4 bits beside three controls."""
    with tempfile.TemporaryDirectory() as place:
        config = ["-c", "configs/cifar10-sew8.toml", "--set", f"data.root={root}"]
        config += ["--set", f"data.test_images={IMAGES}"]
        quantized = Path(place) / "w4"
        run(["quantize", BASELINE, *config, "--set", WEIGHTS, "--out", str(quantized)])
        controls: list[str] = []
        for seed in range(CONTROLS):
            out = Path(place) / f"control{seed}"
            run(["quantize", BASELINE, *config, "--control", "--seed", str(seed), "--out", str(out)])
            controls += ["--control", str(out / "model.safetensors")]
        data = ["--data", "cifar10", "--root", str(root), "--n", str(IMAGES)]
        return run(["compare", BASELINE, str(quantized / "model.safetensors"), *data, *controls])


def run(words: list[str]) -> str:
    """What a command prints; stops if it fails."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        code = isofire(words)
    if code:
        raise SystemExit(f"isofire {' '.join(words)} ended with {code}")
    return stream.getvalue()


def page() -> str:
    """docs/evidence.md with the stored screen in it."""
    text = f"```text\n{SCREEN.read_text(encoding='utf-8').rstrip()}\n```"
    return section("example", text, PAGE.read_text(encoding="utf-8"))


def main(arguments: list[str]) -> int:
    """0 if the page is (now) what the stored screen gives, 1 if `--check` finds it is not."""
    folders = [word for word in arguments if not word.startswith("--")]
    if folders:
        write_text(SCREEN, screen(Path(folders[0])))
    return keep(PAGE, page(), "python -m scripts.evidence.example")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
