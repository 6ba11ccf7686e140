"""Small handwritten digits that come with the package, so that examples and tests need no download."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch

from isofire.data.checks import check_split
from isofire.data.idx import read_idx
from isofire.data.image_set import ImageSet
from isofire.data.split import stratified_sample

_TEST_SIZE = 500
_SHA256 = {
    "optdigits-images-idx3-ubyte": "359cd13f0f514122884198b78a131df597421cbf5e93a76678fa96fc548f0d96",
    "optdigits-labels-idx1-ubyte": "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad",
}


def load_digits(split: str) -> ImageSet:
    """Load 8x8 grey digits: 1,297 to train on, 500 to test on.

    They are the 1,797 test images of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI,
    https://doi.org/10.24432/C50P49, CC BY 4.0). The split is isofire's own: stratified by class and fixed, with the
    13 writers in both parts, so accuracies are not comparable to those on the published split by writer. The
    published values 0..16 are spread over 0..255 as round(value * 255 / 16).

    Parameters
    ----------
    split
        "train" or "test".

    Returns
    -------
    ImageSet
        Images [N, 1, 8, 8].
    """
    check_split(split, ("train", "test"))
    pixels, labels = (_read_asset(stem, dims) for stem, dims in zip(_SHA256, (3, 1), strict=True))
    test = np.zeros(len(labels), dtype=bool)
    test[stratified_sample(labels.tolist(), _TEST_SIZE, seed=0).numpy()] = True
    chosen = test if split == "test" else ~test
    return ImageSet(
        name="digits",
        split=split,
        images=torch.from_numpy(_spread(pixels[chosen])).unsqueeze(1),
        labels=torch.from_numpy(labels[chosen].astype(np.int64)),
        classes=tuple("0123456789"),
        mean=(0.30432,),
        std=(0.37552,),
    )


def _read_asset(stem: str, dims: int) -> np.ndarray:
    with resources.as_file(resources.files("isofire.data") / "assets" / f"{stem}.gz") as path:
        return read_idx(path, dims, _SHA256[stem])


def _spread(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * (255 / 16)).astype(np.uint8)
