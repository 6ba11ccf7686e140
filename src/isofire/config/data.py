"""The table [data]: a data set and how it is cut."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from isofire.conversion import NamedKeys
from isofire.limits import Count, Seed


class DataSettings(Struct, metaclass=NamedKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set and how it is cut.

    Parameters
    ----------
    name
        One of `isofire.data.NAMES`, or "package.module:loader", called with "train" and "test".
    root
        Data folder; None: the folder named by ISOFIRE_DATA, else ~/.cache/isofire.
    valid
        Images held out of the train split, stratified by class; 0: none.
    train_images
        Keep this many of what is left to train on, stratified by class; None: all.
    test_images
        Keep the first so many test images; None: all.
    seed
        Decides which images are held out and kept.
    download
        Fetch what is missing.
    options
        What `isofire.data.load` takes besides, such as `steps` for events.
    """

    name: str
    root: str | None = None
    valid: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    train_images: Count | None = None
    test_images: Count | None = None
    seed: Seed = 0
    download: bool = False
    options: dict[str, Any] = {}
