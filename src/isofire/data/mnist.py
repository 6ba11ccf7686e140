"""MNIST, Fashion-MNIST, and any set of images in the same four idx files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from isofire.data.checks import check_split
from isofire.data.idx import read_idx
from isofire.data.image_set import ImageSet
from isofire.data.remote import RemoteFile, missing


@dataclass(frozen=True)
class IdxSpec:
    """What is published about a set in idx files.

    Parameters
    ----------
    name
        The set's name, and its folder under the data root.
    url
        Folder of the four .gz files.
    archives
        md5 of each .gz file as published.
    contents
        md5 of each file once uncompressed.
    counts
        Images a split.
    side
        Height and width in pixels.
    classes, mean, std
        As in `ImageSet`.
    """

    name: str
    url: str
    archives: Mapping[str, str]
    contents: Mapping[str, str]
    counts: Mapping[str, int]
    side: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def remote(self, split: str) -> tuple[RemoteFile, ...]:
        """List the two files of a split."""
        return tuple(
            RemoteFile(f"{stem}.gz", self.url + f"{stem}.gz", self.archives[stem], folder=self.name)
            for stem in _stems(split)
        )


def load_idx(root: str | os.PathLike[str], split: str, spec: IdxSpec, *, verify: bool = True) -> ImageSet:
    """Load a set in MNIST's four files, compressed or not, from `root / spec.name`, else from `root` itself.

    Parameters
    ----------
    root
        Data root.
    split
        "train" or "test".
    spec
        `MNIST`, `FASHION_MNIST`, or one's own.
    verify
        Check the uncompressed bytes against the published md5.

    Returns
    -------
    ImageSet
        Images [N, 1, H, W].

    Raises
    ------
    DataError
        If files are missing (the message says what to fetch), truncated, altered or of the wrong size.
    """
    check_split(split, ("train", "test"))
    place = Path(root)
    if wanted := absent_idx(place, split, spec):
        raise missing(f"{spec.name} ({split})", wanted, place)
    folder = _folder(place, split, spec)
    shapes = (spec.counts[split], spec.side, spec.side), (spec.counts[split],)
    images, labels = (
        read_idx(_path(folder, stem), len(shape), spec.contents[stem] if verify else None, shape=shape)
        for stem, shape in zip(_stems(split), shapes, strict=True)
    )
    return ImageSet(
        name=spec.name,
        split=split,
        images=torch.from_numpy(images).unsqueeze(1),
        labels=torch.from_numpy(labels).to(torch.int64),
        classes=spec.classes,
        mean=spec.mean,
        std=spec.std,
    )


def absent_idx(root: Path, split: str, spec: IdxSpec) -> tuple[RemoteFile, ...]:
    """List the files of a split that are there neither compressed nor as they are."""
    folder = _folder(root, split, spec)
    pairs = zip(spec.remote(split), _stems(split), strict=True)
    return tuple(remote for remote, stem in pairs if not os.path.exists(_path(folder, stem)))


def _folder(root: Path, split: str, spec: IdxSpec) -> Path:
    """Where the files of a split are; people also name the folder that holds them."""
    is_root = all(os.path.exists(_path(root, stem)) for stem in _stems(split))
    return root if is_root and not os.path.isdir(root / spec.name) else root / spec.name


def _stems(split: str) -> tuple[str, str]:
    prefix = "train" if split == "train" else "t10k"
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _path(folder: Path, stem: str) -> Path:
    return folder / stem if os.path.exists(folder / stem) else folder / f"{stem}.gz"


MNIST = IdxSpec(
    name="mnist",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    archives={
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    contents={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    counts={"train": 60_000, "test": 10_000},
    side=28,
    classes=tuple("0123456789"),
    mean=(0.1307,),
    std=(0.3081,),
)
"""MNIST (LeCun, Cortes and Burges 1998), 28x28 grey digits."""

FASHION_MNIST = IdxSpec(
    name="fashion-mnist",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    archives={
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    contents={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    counts={"train": 60_000, "test": 10_000},
    side=28,
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    mean=(0.2860,),
    std=(0.3530,),
)
"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), 28x28 grey clothes, MIT licence."""
