"""A network that another project trained, on recordings of a camera: what its own tool says of it holds here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from isofire.data.nmnist import load_nmnist_small
from isofire.firing import observe

nirs: Any = pytest.importorskip("isofire.nir", reason="nir is not installed", exc_type=ImportError)


@pytest.mark.slow
def test_the_nir_papers_network_recognises_96_of_100_test_recordings() -> None:
    root = Path(os.environ.get("ISOFIRE_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    network = root / "n-mnist" / "nir_paper_cnn_sinabs.nir"
    if not network.is_file():
        pytest.skip(f"no network {network.name} and recordings of N-MNIST in {root}")
    model = nirs.read(network, nirs.Convention(reset="subtract", several=True, v_floor=-1.0))
    seen = observe(model, load_nmnist_small(root, "test"), batch_size=10)
    assert seen.accuracy == 0.96
    rates = [float(seen.counts.rates(layer).mean()) for layer in seen.counts.layers]
    # as Sinabs 3.1.3 gives them for the same recordings, summed up by hooks on its layers
    assert rates == pytest.approx([0.0075617, 0.0193801, 0.1422498, 0.2940996, 0.5547467], rel=1e-4)
    # with one spike a step and no floor it is another network, whose last layer fires a fifth as often
    other = observe(
        nirs.read(network, nirs.Convention(reset="subtract")), load_nmnist_small(root, "test"), max_images=5
    )
    assert float(other.counts.rates(other.counts.layers[-1]).mean()) < rates[-1] / 2
