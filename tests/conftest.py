"""The same random numbers in every run, and where real data may lie: tests skip where it does not."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.pairs import thinned

# workers share the cores: in tests, and in what they run, more threads would wait for each other
torch.set_num_threads(1)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    import hypothesis
except ModuleNotFoundError:
    # the environments of other spiking libraries have no property tests to run
    hypothesis = None


class _TorchRandom:
    """torch's global generator as hypothesis manages generators: seeded for each example, put back afterwards."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.random.get_rng_state)
    setstate = staticmethod(torch.random.set_rng_state)


_TORCH_RANDOM = _TorchRandom()
if hypothesis is not None:
    # the verdict of `make test` depends on the code alone; `make search` draws fresh examples
    hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None, print_blob=True)
    hypothesis.settings.register_profile("search", derandomize=False, deadline=None, print_blob=True)
    hypothesis.settings.load_profile("fixed")
    hypothesis.register_random(_TORCH_RANDOM)  # kept by a weak reference


_LIBRARY = re.compile(r"spikingjelly|snntorch|norse|sinabs|neurobench|\bcase\b")
"""In tests that another spiking library, or each in turn, takes part in."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """In the environments of other libraries those that need none, which `make test` ran."""
    if "ISOFIRE_LIBRARIES" not in os.environ or not collection_path.match("test_*.py"):
        return None
    return None if _LIBRARY.search(collection_path.read_text(encoding="utf-8")) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a product of options, every pair; all of it with ISOFIRE_ALL=1."""
    if os.environ.get("ISOFIRE_ALL") == "1":
        return
    kept = thinned(items)
    left = set(map(id, kept))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in left])
    items[:] = kept


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Global generators start alike in every test, whatever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, which may not exist."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("ISOFIRE_TEST_DATA", default))


@pytest.fixture(scope="session")
def cifar10_root(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the real CIFAR-10 in its binary layout, unpacked from lossless sheets if need be."""
    if (shared_data / "cifar-10-batches-bin").is_dir():
        return shared_data
    script = shared_data / "unpack-cifar10"
    if not script.is_file():
        pytest.skip(f"no real CIFAR-10: neither cifar-10-batches-bin nor unpack-cifar10 in {shared_data}")
    if importlib.util.find_spec("PIL") is None:
        pytest.skip("the sheets of CIFAR-10 need Pillow to unpack")
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, script, root], check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def fashion_mnist_root(shared_data: Path) -> Path:
    """A data root with the real Fashion-MNIST, e.g. from Debian's dataset-fashion-mnist."""
    for root in (shared_data, Path("/usr/share/datasets")):
        if (root / "fashion-mnist" / "train-images-idx3-ubyte.gz").is_file():
            return root
    pytest.skip(f"no real Fashion-MNIST in {shared_data} or from the Debian package dataset-fashion-mnist")


@pytest.fixture(scope="session")
def nmnist_root(shared_data: Path) -> Path:
    """A data root with the real extract of N-MNIST."""
    if not (shared_data / "n-mnist" / "nmnist-small.tar").is_file():
        pytest.skip(f"no real N-MNIST: n-mnist/nmnist-small.tar is not in {shared_data}")
    return shared_data


def installed(project: Path, folder: Path) -> str:
    """A PYTHONPATH on which the package of a folder with pyproject.toml and src/ is found as if it were installed.

    Parameters
    ----------
    folder
        An empty one, for what an installation writes.
    """
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = folder / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    points = about.get("entry-points", {})
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in found.items()) for group, found in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    package = Path(importlib.util.find_spec("isofire").origin).parents[1]  # type: ignore[union-attr, arg-type]
    return os.pathsep.join(map(str, (folder, project / "src", package)))


@pytest.fixture(scope="session")
def install() -> Callable[[Path, Path], str]:
    """`installed`, for tests that write a package."""
    return installed


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the package of `tests/plugin` is found, entry points and all."""
    return installed(Path(__file__).parent / "plugin", tmp_path_factory.mktemp("installed"))


@pytest.fixture
def ks() -> Iterator[Any]:
    """The measure of the package in `tests/plugin`, registered."""
    from isofire.firing import MEASURES, register_measure

    sys.path.insert(0, str(Path(__file__).parent / "plugin" / "src"))
    try:
        measure = importlib.import_module("isofire_plugin.measure").kolmogorov_smirnov
    finally:
        del sys.path[0]
    register_measure(measure)
    yield measure
    MEASURES.unregister("ks")
