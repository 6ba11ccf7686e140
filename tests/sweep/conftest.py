from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _support() -> ModuleType:
    # pytest's importlib mode leaves a test's folder off the path
    spec = importlib.util.spec_from_file_location("sweep_support", Path(__file__).with_name("support.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SUPPORT = _support()


@pytest.fixture(scope="session")
def support() -> ModuleType:
    """The tiny sweep, an executor within this process, and comparison of folders."""
    return SUPPORT


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny sweep, run once without disturbance; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    SUPPORT.run_inline(folder)
    return folder


@pytest.fixture(scope="session")
def expected(finished: Path) -> dict[str, Any]:
    """What every other way to run the tiny sweep must give."""
    return SUPPORT.contents(finished)
