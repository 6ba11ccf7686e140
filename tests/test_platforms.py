"""The package elsewhere: on systems that lack modules, and from a wheel, with all its files."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CODE = """
import importlib, pkgutil, sys

hidden = sys.argv[1].split(",")

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in hidden:
            raise ModuleNotFoundError(name)

for name in hidden:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hide())
import isofire

skipped = (
    "isofire.__main__", "isofire.adapters.neurobench", "isofire.neurons._kernels", "isofire.lookup._tables",
    "isofire.neurons.triton_kernels",
)
for module in pkgutil.walk_packages(isofire.__path__, "isofire."):
    if module.name not in skipped:
        importlib.import_module(module.name)
from isofire.cli import main
sys.exit(main(["--version"]))
"""


@pytest.mark.parametrize("modules", ["fcntl,resource,termios,tty,pwd,grp", "msvcrt,winreg,_winapi"])
def test_no_module_needs_what_one_system_alone_has(modules: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, modules], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_every_file_of_the_package_goes_into_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    package = ROOT / "src" / "isofire"
    packed = {path for pattern in patterns["package-data"]["isofire"] for path in package.glob(pattern)}
    built = (".py", ".pyc", ".so", ".pyd")
    missing = [path for path in package.rglob("*") if path.is_file() and path.suffix not in built]
    missing = [str(path.relative_to(package)) for path in missing if path not in packed]
    assert missing == [], "name them in [tool.setuptools.package-data]"
    assert package / "configs" / "digits-demo.toml" in packed
    # examples: the three ways in, which other tests run
    with_it = {path for pattern in patterns["data-files"]["share/doc/isofire"] for path in ROOT.glob(pattern)}
    assert with_it == {ROOT / "README.md", *(ROOT / "docs" / "tutorials").glob("*.md")}
