from __future__ import annotations

import gzip
from importlib import resources

import numpy as np
import pytest
import torch

from isofire.data import load_digits
from isofire.errors import SpecError


def test_the_parts_are_stratified_and_fixed() -> None:
    train, test = load_digits("train"), load_digits("test")
    assert (tuple(train.images.shape), tuple(test.images.shape)) == ((1297, 1, 8, 8), (500, 1, 8, 8))
    counts = torch.bincount(train.labels) + torch.bincount(test.labels)
    # class counts of optdigits.tes, as published in optdigits.names
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert ((torch.bincount(test.labels) - counts * 500 / 1797).abs() < 1).all()
    assert train.fingerprint == "c0dbc114cb4da8ede8d73cc120e8dc24e9680e5d4cb9060bb4e3209707f6e2e6"
    assert test.fingerprint == "b010f4172e02d5cf915e8c3c0d5e3654481f3ab9eb2daaa09db4e2ea9fa4a9e8"


def test_together_they_are_the_asset() -> None:
    folder = resources.files("isofire.data") / "assets"
    raw = gzip.decompress((folder / "optdigits-images-idx3-ubyte.gz").read_bytes())
    published = np.frombuffer(raw, np.uint8, offset=16).reshape(1797, 64)
    assert published.max() == 16
    # first line of optdigits.tes
    assert published[0, :20].tolist() == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2]
    both = torch.cat([load_digits(split).images for split in ("train", "test")]).reshape(1797, 64).numpy()
    spread = np.array([round(value * 255 / 16) for value in range(17)], np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, spread[published]))


def test_constants_are_those_of_the_train_part() -> None:
    train = load_digits("train")
    pixels = train.images.numpy() / 255
    assert train.mean[0] == pytest.approx(pixels.mean(), abs=5e-6)
    assert train.std[0] == pytest.approx(pixels.std(), abs=5e-6)


def test_can_be_told_apart() -> None:
    train, test = load_digits("train"), load_digits("test")
    distance = torch.cdist(test.images.flatten(1).float(), train.images.flatten(1).float())
    assert (train.labels[distance.argmin(1)] == test.labels).float().mean() > 0.97


def test_the_licence_travels_along() -> None:
    text = (resources.files("isofire.data") / "assets" / "LICENSE-optdigits.txt").read_text(encoding="utf-8")
    for part in ("Alpaydin", "Kaynak", "CC BY 4.0", "https://doi.org/10.24432/C50P49", "Changes:"):
        assert part in text


def test_refuses_another_split() -> None:
    with pytest.raises(SpecError, match="hold_out"):
        load_digits("valid")
