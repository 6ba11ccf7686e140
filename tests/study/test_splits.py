from __future__ import annotations

from collections import Counter

import pytest
import torch

from isofire.config import DataSettings
from isofire.data import load
from isofire.errors import DataError, SpecError
from isofire.study import load_split, load_splits, sample


def test_whole_set():
    splits = load_splits(DataSettings(name="digits"))
    assert (len(splits.train), splits.valid, len(splits.test)) == (1297, None, 500)


def test_held_out_images_are_not_trained_on():
    splits = load_splits(DataSettings(name="digits", valid=300))
    assert splits.valid is not None
    assert (splits.train.split, splits.valid.split) == ("train", "valid")
    whole = Counter(image.numpy().tobytes() for image in load("digits", "train").images)
    parts = Counter(image.numpy().tobytes() for part in (splits.train, splits.valid) for image in part.images)
    assert whole == parts


def test_seed_cuts_otherwise_and_the_same_seed_the_same():
    def valid(seed: int) -> str:
        return load_split(DataSettings(name="digits", valid=100, seed=seed), "valid").fingerprint

    assert valid(0) == valid(0) != valid(1)
    splits = load_splits(DataSettings(name="digits", valid=100))
    assert splits.valid is not None
    assert splits.valid.fingerprint == valid(0)


def test_limits():
    splits = load_splits(DataSettings(name="digits", valid=97, train_images=100, test_images=7))
    assert (len(splits.train), len(splits.test)) == (100, 7)
    assert set(splits.train.labels.bincount(minlength=10).tolist()) <= {9, 10, 11}
    assert torch.equal(splits.test.images, load("digits", "test").images[:7])


def test_test_images_are_read_only_when_asked_for():
    splits = load_splits(DataSettings(name="digits"))
    assert set(splits.fingerprints()) == {"train", "valid"}
    assert splits.test.fingerprint == splits.fingerprints()["test"]


def test_sample_is_stratified_and_without_replacement():
    train = load("digits", "train")
    drawn = sample(train, 500, seed=1, place="x")
    share = drawn.labels.bincount() / train.labels.bincount()
    assert float(share.max() - share.min()) < 0.02
    assert len({image.numpy().tobytes() for image in drawn.images}) > 480


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"valid": 1297}, "data.valid must be below 1297"),
        ({"train_images": 1298}, r"data.train_images must lie in 1\.\.1297"),
        ({"valid": 297, "train_images": 1001}, r"1\.\.1000"),
        ({"options": {"steps": 3}}, "unknown option"),
    ],
)
def test_numbers_that_do_not_fit(settings, message):
    with pytest.raises(SpecError, match=message):
        load_splits(DataSettings(name="digits", **settings))


def test_too_many_test_images():
    with pytest.raises(SpecError, match="at most 500"):
        _ = load_splits(DataSettings(name="digits", test_images=501)).test


def test_valid_that_was_not_held_out():
    with pytest.raises(SpecError, match=r"set data\.valid"):
        load_split(DataSettings(name="digits"), "valid")


def test_absent_data(tmp_path):
    with pytest.raises(DataError, match="cifar10"):
        load_splits(DataSettings(name="cifar10", root=str(tmp_path)))


def test_event_sets_are_cut_too(tmp_path):
    import os
    from pathlib import Path

    root = Path(os.environ.get("ISOFIRE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / "n-mnist" / "nmnist-small.tar").is_file():
        pytest.skip(f"no n-mnist/nmnist-small.tar in {root}; ISOFIRE_TEST_DATA names another folder")
    settings = DataSettings(name="nmnist-small", root=str(root), valid=100, train_images=50, options={"steps": 20})
    splits = load_splits(settings)
    assert splits.valid is not None
    assert (len(splits.train), len(splits.valid)) == (50, 100)
