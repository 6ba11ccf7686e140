"""Data sets: digits that come with the package, CIFAR, MNIST's format, and N-MNIST's events.

`load(name, split)` returns an `ImageSet` or an `EventSet`; both give re-iterable `batches`. Batches of images are
[N, C, H, W], batches of events [T, N, 2, H, W]. `TensorSet` holds what a user has: tensors of any shape, as they are.
"""

from __future__ import annotations

from isofire.data.augment import Augment
from isofire.data.batches import Batches
from isofire.data.cifar import load_cifar
from isofire.data.cifar_specs import CIFAR10, CIFAR100, CifarSpec
from isofire.data.digits import load_digits
from isofire.data.event_set import Events, EventSet, events_to_frames
from isofire.data.idx import read_idx
from isofire.data.image_set import ImageSet
from isofire.data.mnist import FASHION_MNIST, MNIST, IdxSpec, load_idx
from isofire.data.nmnist import load_nmnist, load_nmnist_small, read_events
from isofire.data.registry import NAMES, check_options, load
from isofire.data.remote import RemoteFile, data_root
from isofire.data.split import hold_out
from isofire.data.tensor_set import TensorSet

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "FASHION_MNIST",
    "MNIST",
    "NAMES",
    "Augment",
    "Batches",
    "CifarSpec",
    "EventSet",
    "Events",
    "IdxSpec",
    "ImageSet",
    "RemoteFile",
    "TensorSet",
    "check_options",
    "data_root",
    "events_to_frames",
    "hold_out",
    "load",
    "load_cifar",
    "load_digits",
    "load_idx",
    "load_nmnist",
    "load_nmnist_small",
    "read_events",
    "read_idx",
]
