"""What is published about CIFAR-10 and CIFAR-100: files, checksums, class names, channel constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isofire.data.remote import RemoteFile


@dataclass(frozen=True)
class CifarSpec:
    """A set in CIFAR's two layouts, binary and Python pickle, which hold the same images.

    Parameters
    ----------
    name
        The set's name.
    classes
        Class names.
    coarse_classes
        Names of the superclasses; empty if the set has none. A binary record starts with one label byte a list.
    mean, std
        Per channel of the train split, pixels in 0..1.
    binary, pickled
        For each layout the archive as published and, by split, its files in order.
    per_file
        Images in each file of a split.
    checksums
        md5 or sha1 of each file, by file name. Pickles are never opened without one.
    """

    name: str
    classes: tuple[str, ...]
    coarse_classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: RemoteFile
    binary_files: Mapping[str, tuple[str, ...]]
    pickled: RemoteFile
    pickled_files: Mapping[str, tuple[str, ...]]
    per_file: Mapping[str, int]
    checksums: Mapping[str, str]


_SITE = "https://www.cs.toronto.edu/~kriz/"

CIFAR10 = CifarSpec(
    name="cifar10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    coarse_classes=(),
    mean=(0.49140, 0.48216, 0.44653),
    std=(0.24703, 0.24349, 0.26159),
    binary=RemoteFile(
        "cifar-10-binary.tar.gz",
        _SITE + "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        unpacks_to="cifar-10-batches-bin",
    ),
    binary_files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    pickled=RemoteFile(
        "cifar-10-python.tar.gz",
        _SITE + "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        unpacks_to="cifar-10-batches-py",
    ),
    pickled_files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    per_file={"train": 10_000, "test": 10_000},
    checksums={
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
"""CIFAR-10 (Krizhevsky 2009, "Learning multiple layers of features from tiny images")."""

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
vehicles_1 vehicles_2
"""

CIFAR100 = CifarSpec(
    name="cifar100",
    classes=tuple(_FINE.split()),
    coarse_classes=tuple(_COARSE.split()),
    mean=(0.50708, 0.48655, 0.44092),
    std=(0.26733, 0.25644, 0.27615),
    binary=RemoteFile(
        "cifar-100-binary.tar.gz",
        _SITE + "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        unpacks_to="cifar-100-binary",
    ),
    binary_files={"train": ("train.bin",), "test": ("test.bin",)},
    pickled=RemoteFile(
        "cifar-100-python.tar.gz",
        _SITE + "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        unpacks_to="cifar-100-python",
    ),
    pickled_files={"train": ("train",), "test": ("test",)},
    per_file={"train": 50_000, "test": 10_000},
    checksums={
        "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
        "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
)
"""CIFAR-100 (Krizhevsky 2009): 100 classes in 20 superclasses."""
