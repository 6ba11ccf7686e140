"""The compiled code without Python: on this processor, and for ARM in an emulator.

`paths.cpp` compares every path of the look-ups with their definition, on layers, neurons and maps by chance;
`neurons.cpp` runs the neurons' kernels. Both print digests of all outputs, which are the same on every machine.
`make test-neon` runs more cases, and fails where the tools are not installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isofire.lookup import native

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
EXTENSIONS = ("neurons/_kernels.cpp", "lookup/_tables.cpp")
CASES = os.environ.get("ISOFIRE_CASES", "600")
# tools that are to be there, by name: without them tests fail
NEEDED = os.environ.get("ISOFIRE_TOOLS", "").split()
CROSS, EMULATOR, SYSROOT = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"
CHECKED = ("-O1", "-g", "-std=c++17", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
PATHS = re.compile(r"cases (\d+), .* of (\d+), paths ([a-z0-9 ]+), wrong 0\ndigest ([0-9a-f]{16})\n")
NEURONS = re.compile(r"cases (\d+)\n((?:[a-z ]+ [0-9a-f]{16}\n){8})")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source"),
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


def _made(program: str, compiler: str, folder: Path, *more: str) -> Path:
    """The program, compiled as the extensions are, or with sanitizers."""
    name, _, sanitized = compiler.partition(" ")
    tool, made = _tool(name), folder / program
    if sanitized and not Path(_run(tool, "-print-file-name=libasan.so").strip()).is_absolute():
        pytest.skip(f"{name} has no AddressSanitizer here")
    _run(tool, *(CHECKED if sanitized else _flags()), *more, HERE / f"{program}.cpp", "-o", made, "-ldl")
    return made


def _emulated(made: Path) -> str:
    return _run(_tool(EMULATOR), "-L", SYSROOT, made, CASES)


def _paths(printed: str) -> tuple[str, str]:
    """Paths and digest of a run that found nothing wrong."""
    found = PATHS.fullmatch(printed)
    assert found is not None, printed
    cases, neurons, paths, digest = found.groups()
    assert cases == CASES
    assert int(neurons) > 1000 * int(cases)
    return paths, digest


def _digests(printed: str) -> str:
    found = NEURONS.fullmatch(printed)
    assert found is not None, printed
    assert found[1] == CASES
    return found[2]


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the look-ups without any intrinsics, on this processor."""
    made = _made("paths", "g++", tmp_path_factory.mktemp("portable"), "-DISOFIRE_PORTABLE")
    paths, digest = _paths(_run(made, CASES))
    assert paths == "portable"
    return digest


@pytest.fixture(scope="module")
def neurons(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digests of the neurons' kernels on this processor, as they are installed."""
    return _digests(_run(_made("neurons", "g++", tmp_path_factory.mktemp("neurons")), CASES))


@pytest.mark.parametrize("compiler", ["g++", "clang++", "g++ sanitized"])
def test_the_paths_of_this_processor_equal_the_definition(compiler: str, portable: str, tmp_path: Path) -> None:
    paths, digest = _paths(_run(_made("paths", compiler, tmp_path), CASES))
    if native.library() is not None:
        assert paths == " ".join(native.known())
    assert digest == portable


@pytest.mark.parametrize("compiler", [CROSS, f"{CROSS} sanitized"])
def test_neon_equals_the_definition_in_an_emulator(compiler: str, portable: str, tmp_path: Path) -> None:
    paths, digest = _paths(_emulated(_made("paths", compiler, tmp_path)))
    assert paths == "portable neon"
    assert digest == portable


def test_neurons_are_the_same_on_arm_to_the_last_bit(neurons: str, tmp_path: Path) -> None:
    assert _digests(_emulated(_made("neurons", CROSS, tmp_path))) == neurons


@pytest.mark.parametrize("compiler", ["clang++", "g++ sanitized"])
def test_neurons_are_the_same_from_another_compiler(compiler: str, neurons: str, tmp_path: Path) -> None:
    assert _digests(_run(_made("neurons", compiler, tmp_path), CASES)) == neurons


@pytest.mark.parametrize("source", EXTENSIONS)
def test_the_extensions_compile_for_arm_as_they_are_built(source: str, tmp_path: Path) -> None:
    made, flags = tmp_path / "made.so", [*_flags(), "-Wall", "-Werror", "-shared", "-fPIC"]
    _run(_tool(CROSS), *flags, ROOT / "src/isofire" / source, "-o", made, "-ldl")
    assert b"isofire_" in made.read_bytes()
