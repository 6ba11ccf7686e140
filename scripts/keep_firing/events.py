"""The builder of the study nmnist.toml: the NIR paper's trained network for N-MNIST."""

from __future__ import annotations

from pathlib import Path

from scripts.cases.nmnist import CONVENTION
from torch import nn

from isofire.nir import read

FILE = Path(__file__).parents[2] / "runs" / "steps" / "nir_paper_cnn_sinabs.nir"


def nmnist_cnn() -> nn.Module:
    """Five layers of integrate-and-fire neurons, run over 300 steps."""
    return read(FILE, CONVENTION)
