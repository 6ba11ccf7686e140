"""Which images a run trains on, chooses epochs by, and is tested on."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from isofire.batches import Data, is_pair
from isofire.config import DataSettings
from isofire.data import NAMES, EventSet, ImageSet, TensorSet, check_options, hold_out, load
from isofire.data.split import stratified_sample
from isofire.errors import SpecError
from isofire.models import NamedData, is_named, load_named
from isofire.training.feed import AnySet


@dataclass(frozen=True)
class Splits:
    """The images of a run; `test` is read only when it is asked for.

    Attributes
    ----------
    train, valid
        What to train on, and what was held out of it (None: nothing).
    """

    train: AnySet
    valid: AnySet | None
    _load_test: Callable[[], AnySet]

    @cached_property
    def test(self) -> AnySet:
        """The test images."""
        return self._load_test()

    def compared(self, split: str) -> AnySet:
        """The images that networks are compared on: "test", or "valid", which must be held out."""
        if split == "test":
            return self.test
        assert self.valid is not None
        return self.valid

    def fingerprints(self) -> dict[str, str | None]:
        """Content hashes of the train and valid images; `test` joins them once it was used."""
        found = {"train": self.train.fingerprint, "valid": self.valid.fingerprint if self.valid else None}
        return found | ({"test": self.test.fingerprint} if "test" in self.__dict__ else {})


@dataclass(frozen=True)
class NamedSplits:
    """Batches of the user's own code that are walked through one at a time; enough to calibrate and compare on."""

    train: NamedData
    test: NamedData
    valid: None = None

    def fingerprints(self) -> dict[str, str | None]:
        """Nothing is known of their contents."""
        return {"train": None, "valid": None}


def load_splits(settings: DataSettings) -> Splits:
    """Load and cut a data set.

    Raises
    ------
    SpecError
        If a number does not fit the set.
    DataError
        If the set is missing or damaged.
    """
    train, valid = load_split(settings, "train"), None
    if settings.valid:
        train, valid = _hold_out(train, settings)
    if settings.train_images is not None:
        train = sample(train, settings.train_images, settings.seed, "data.train_images")
    return Splits(train, valid, lambda: load_split(settings, "test"))


def load_splits_or_batches(settings: DataSettings) -> Splits | NamedSplits:
    """Like `load_splits`; batches of the user's own are not put together, if nothing is to be cut."""
    if is_uncut_loader(settings):
        train = load_named(settings.name, "train")
        if not (isinstance(train.data, AnySet) or is_pair(train.data)):
            return NamedSplits(train, load_named(settings.name, "test"))
    return load_splits(settings)


def is_uncut_loader(settings: DataSettings) -> bool:
    """Whether the data are a loader's of the user's own, and taken as it gives them."""
    return is_named(settings.name) and settings == DataSettings(name=settings.name)


def load_split(settings: DataSettings, split: str) -> AnySet:
    """One part alone: "train" whole, "test" as limited by `test_images`, or "valid" as `load_splits` cuts it."""
    if split == "valid":
        if not settings.valid:
            raise SpecError("a valid split is asked for but none is held out; set data.valid to a number of images")
        return _hold_out(load_split(settings, "train"), settings)[1]
    found = _load(settings, split)
    if split == "test" and settings.test_images is not None:
        if settings.test_images > len(found):
            raise SpecError(
                f"data.test_images must be at most {len(found)}, the size of {settings.name}'s test split, "
                f"got {settings.test_images}"
            )
        return found.first(settings.test_images)
    return found


def as_set(data: AnySet | Data, split: str, name: str = "data") -> AnySet:
    """Images and labels of any form as a set, which can be cut, shuffled, and told from others by its contents."""
    return data if isinstance(data, AnySet) else TensorSet.of(data, name, split)


def _load(settings: DataSettings, split: str) -> AnySet:
    if not is_named(settings.name):
        if settings.name not in NAMES:
            raise unknown_set(settings.name)
        check_options(settings.name, settings.options)
        return load(settings.name, split, root=settings.root, download=settings.download, **settings.options)
    if settings.root is not None or settings.download or settings.options:
        raise SpecError(
            f"data.root, download and options are for isofire's own sets, {settings.name} is a loader of yours; leave "
            "them out"
        )
    found = load_named(settings.name, split).data
    return as_set(found, split, settings.name)


def unknown_set(name: str) -> SpecError:
    """The error for data of a name that is neither a set's nor a loader's."""
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    loader = f"{name}:load" if name.replace(".", "_").isidentifier() else "package.module:loader"
    return SpecError(
        f"no data set is called {name!r}; {hint}known are {', '.join(NAMES)}, and a function of yours as "
        f"package.module:function, such as {loader}"
    )


def sample(data: AnySet, images: int, seed: int, place: str) -> AnySet:
    """Draw images without replacement, each class in proportion, in the set's order.

    Parameters
    ----------
    place
        The setting to name if there are not so many.

    Raises
    ------
    SpecError
        If `images` does not lie in 1..len(data).
    """
    if not 1 <= images <= len(data):
        raise SpecError(f"{place} must lie in 1..{len(data)}, the images of {data.name} ({data.split}), got {images}")
    return data.take(stratified_sample(data.labels.tolist(), images, seed))


def _hold_out(train: AnySet, settings: DataSettings) -> tuple[AnySet, AnySet]:
    if not settings.valid < len(train):
        raise SpecError(f"data.valid must be below {len(train)}, all that {train.name} has, got {settings.valid}")
    # a call a kind, since hold_out's type variable stands for one kind of set at a time
    if isinstance(train, ImageSet):
        return hold_out(train, settings.valid, settings.seed)
    if isinstance(train, EventSet):
        return hold_out(train, settings.valid, settings.seed)
    return hold_out(train, settings.valid, settings.seed)
