"""The compiled paths beside their definition, without Python: on this processor, and for ARM in an emulator.

The program `compiled/paths.cpp` makes layers, neurons and maps by chance, the same on every machine, and prints a
digest of all spikes. `make test-neon` runs more of them, and fails where the tools are not installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from isofire.lookup import native

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("compiled") / "paths.cpp"
EXTENSIONS = ("neurons/_kernels.cpp", "lookup/_tables.cpp")
CASES = os.environ.get("ISOFIRE_CASES", "600")
# tools that are to be there, by name: without them tests fail
NEEDED = os.environ.get("ISOFIRE_TOOLS", "").split()
CROSS, EMULATOR, SYSROOT = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"
CHECKED = ("-O1", "-g", "-std=c++17", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FOUND = re.compile(r"cases (\d+), .* of (\d+), paths ([a-z0-9 ]+), wrong 0\ndigest ([0-9a-f]{16})\n")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
    pytest.mark.skipif(not PROGRAM.exists() or not (ROOT / "setup.py").exists(), reason="needs the source"),
]


def _flags() -> list[str]:
    """What the extensions are compiled with outside of Windows."""
    flags = re.findall(r'"(-[^"]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert "-ffp-contract=off" in flags
    return flags


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        assert name not in NEEDED, f"{name} is not installed"
        pytest.skip(f"needs {name}")
    return found


def _run(*command: object) -> str:
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def _compile(compiler: str, made: Path) -> None:
    """The program as the extensions are built, or with sanitizers."""
    name, _, sanitized = compiler.partition(" ")
    tool = _tool(name)
    if sanitized and not Path(_run(tool, "-print-file-name=libasan.so").strip()).is_absolute():
        pytest.skip(f"{name} has no AddressSanitizer here")
    _run(tool, *(CHECKED if sanitized else _flags()), PROGRAM, "-o", made, "-ldl")


def _ran(printed: str) -> tuple[str, str]:
    """Paths and digest of a run that found nothing wrong."""
    found = FOUND.fullmatch(printed)
    assert found is not None, printed
    cases, neurons, paths, digest = found.groups()
    assert cases == CASES
    assert int(neurons) > 1000 * int(cases)
    return paths, digest


@cache
def _portable_digest() -> str:
    """Of the same cases without any intrinsics, on this processor."""
    made = ROOT / "build" / f"paths-portable-{os.getpid()}"
    made.parent.mkdir(exist_ok=True)
    try:
        _run(_tool("g++"), *_flags(), "-DISOFIRE_PORTABLE", PROGRAM, "-o", made, "-ldl")
        paths, digest = _ran(_run(made, CASES))
    finally:
        made.unlink(missing_ok=True)
    assert paths == "portable"
    return digest


@pytest.mark.parametrize("compiler", ["g++", "clang++", "g++ sanitized"])
def test_the_paths_of_this_processor_equal_the_definition(compiler: str, tmp_path: Path) -> None:
    made = tmp_path / "paths"
    _compile(compiler, made)
    paths, digest = _ran(_run(made, CASES))
    if native.library() is not None:
        assert paths == " ".join(native.known())
    assert digest == _portable_digest()


@pytest.mark.parametrize("compiler", [CROSS, f"{CROSS} sanitized"])
def test_neon_equals_the_definition_in_an_emulator(compiler: str, tmp_path: Path) -> None:
    emulator, made = _tool(EMULATOR), tmp_path / "paths"
    _compile(compiler, made)
    paths, digest = _ran(_run(emulator, "-L", SYSROOT, made, CASES))
    assert paths == "portable neon"
    assert digest == _portable_digest()


@pytest.mark.parametrize("source", EXTENSIONS)
def test_the_extensions_compile_for_arm_as_they_are_built(source: str, tmp_path: Path) -> None:
    made = tmp_path / "made.so"
    _run(
        _tool(CROSS),
        *_flags(),
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        ROOT / "src/isofire" / source,
        "-o",
        made,
        "-ldl",
    )
    assert b"isofire_" in made.read_bytes()
