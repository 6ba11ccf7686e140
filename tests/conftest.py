"""The same random numbers in every run, and where real data may lie: tests skip where it does not."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

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
