from __future__ import annotations

import ast
import email.message
import io
import urllib.request
from pathlib import Path

import pytest

import isofire.data
from isofire.data import NAMES, EventSet, ImageSet, load
from isofire.errors import DataError, SpecError


def test_digits_need_no_folder(tmp_path: Path) -> None:
    data = load("digits", "test", root=tmp_path / "absent")
    assert isinstance(data, ImageSet)
    assert load("digits", "test", root=tmp_path / "absent", download=True).fingerprint == data.fingerprint
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SpecError, match="no data set is called 'cifar11'") as caught:
        load("cifar11", "train")
    known = ("digits", "cifar10", "cifar100", "fashion-mnist", "mnist", "nmnist", "nmnist-small")
    assert known == NAMES
    assert ", ".join(known) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_options_are_checked(name: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="split must be one of train, test, got 'valid'; cut a valid split off"):
        load(name, "valid", root=tmp_path)
    with pytest.raises(SpecError, match=f"unknown option 'stepz' for data set '{name}'; it takes: "):
        load(name, "train", root=tmp_path, stepz=3)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "cifar10",
            ["cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "https://www.cs.toronto.edu/~kriz/"],
        ),
        ("cifar100", ["cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary/"]),
        ("mnist", ["f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432"]),
        ("fashion-mnist", ["8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe"]),
        ("nmnist", ["Train.zip", "20959b8e626244a1b502305a9e6e2031"]),
        ("nmnist-small", ["nmnist-small.tar", "train1K.txt"]),
    ],
)
def test_a_missing_set_says_what_to_do(
    name: str, parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOFIRE_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load(name, "train")
    for part in (*parts, str(tmp_path)):
        assert part in str(caught.value)


def test_options_reach_the_loader(nmnist_root: Path) -> None:
    data = load("nmnist-small", "test", root=nmnist_root, steps=30, step_us=10_000)
    assert isinstance(data, EventSet)
    assert next(iter(data.batches(2)))[0].shape == (30, 2, 2, 34, 34)


def test_download_fetches_what_is_missing_and_trusts_the_md5_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Response(io.BytesIO):
        headers = email.message.Message()

    def urlopen(url: str, timeout: float) -> Response:
        asked.append(url)
        return Response(b"something else")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    (tmp_path / "fashion-mnist").mkdir()
    (tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(DataError, match="md5 must be 25c81989df183df01b3e8a0aad5dffbe"):
        load("fashion-mnist", "train", root=tmp_path, download=True)
    assert asked == ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz"]
    assert [path.name for path in (tmp_path / "fashion-mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_a_set_without_an_archive_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'nmnist-small' has no published archive"):
        load("nmnist-small", "train", root=tmp_path, download=True)


def test_data_stands_on_batches_errors_files_formats_and_conversion_alone() -> None:
    wanted = set()
    for path in Path(isofire.data.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wanted |= {name for name in names if name and name.startswith("isofire")}
    assert {name for name in wanted if not name.startswith("isofire.data.")} == {
        "isofire.batches", "isofire.conversion", "isofire.errors", "isofire.files", "isofire.formats"
    }  # fmt: skip
