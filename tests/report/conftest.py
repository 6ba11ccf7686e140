from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _folders() -> ModuleType:
    # pytest's importlib mode leaves a test's folder off the path
    spec = importlib.util.spec_from_file_location("report_folders", Path(__file__).with_name("folders.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FOLDERS = _folders()


@pytest.fixture(scope="session")
def folders() -> ModuleType:
    """Helpers that make sweep folders and views."""
    return FOLDERS


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep of digits with two seeds."""
    return FOLDERS.write_sweep(tmp_path_factory.mktemp("sweep"), FOLDERS.CELLS)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that shares the first cells of seed 0 with `sweep`."""
    return FOLDERS.write_sweep(tmp_path_factory.mktemp("other"), FOLDERS.CELLS[:4], seeds=(0,), name="digits, again")
