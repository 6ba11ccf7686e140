from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isofire.data import load_nmnist, load_nmnist_small, read_events
from isofire.data.nmnist import make_event_set, parse_events, read_class_folders, read_listed
from isofire.errors import DataError, SpecError

Row = tuple[int, int, int, int]
COUNTS = {"train": 3, "test": 1}


def encode(rows: list[Row]) -> bytes:
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, p, t in rows)


def decode(data: bytes) -> list[Row]:
    rows = []
    for at in range(0, len(data), 5):
        word = int.from_bytes(data[at + 2 : at + 5], "big")
        rows.append((data[at], data[at + 1], word >> 23, word & (2**23 - 1)))
    return rows


rows_strategy = st.lists(
    st.tuples(st.integers(0, 33), st.integers(0, 33), st.integers(0, 1), st.integers(0, 2**23 - 1)),
    min_size=1,
    max_size=20,
).map(lambda rows: sorted(rows, key=lambda row: row[3]))


@given(rows_strategy)
@settings(max_examples=100, deadline=None)
def test_reads_back_what_was_written(rows: list[Row]) -> None:
    events = parse_events(encode(rows), "test")
    assert list(zip(*(values.tolist() for values in events), strict=True)) == rows
    assert [values.dtype for values in events] == [torch.uint8, torch.uint8, torch.uint8, torch.int32]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (encode([(1, 1, 1, 5)])[:-1], "multiple of 5 bytes, got 4"),
        (encode([(1, 1, 1, 5), (34, 1, 1, 6)]), r"x must lie in 0\.\.33, got 34 \(event 1"),
        (encode([(1, 240, 1, 5)]), r"y must lie in 0\.\.33, got 240 \(event 0"),
        (encode([(1, 1, 1, 7), (1, 1, 0, 7), (1, 1, 1, 6)]), r"got 6 us after 7 us \(event 2"),
    ],
)
def test_refuses_bad_recordings_and_names_the_file(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "7.bs2"
    path.write_bytes(data)
    with pytest.raises(DataError, match=match) as caught:
        read_events(path)
    assert "7.bs2" in str(caught.value)


def test_a_missing_recording_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*absent\.bin"):
        read_events(tmp_path / "absent.bin")


def test_another_sensor_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "wide.bin"
    path.write_bytes(encode([(127, 90, 0, 1)]))
    assert read_events(path, height=128, width=128).x.tolist() == [127]


def published_layout(root: Path) -> Path:
    samples = {"Train/3/00002.bin": 2, "Train/0/00010.bin": 10, "Train/3/00001.bin": 1, "Test/9/00001.bin": 4}
    for name, x in samples.items():
        path = root / "n-mnist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode([(x, 0, 1, 0), (x, 0, 0, 1500)]))
    return root


def test_loads_the_published_layout_in_order_of_sample(tmp_path: Path) -> None:
    train = load_nmnist(published_layout(tmp_path), "train", steps=2, counts=COUNTS)
    assert train.events.x.tolist() == [1, 1, 2, 2, 10, 10]
    assert (train.labels.tolist(), train.name, train.height, train.width) == ([3, 3, 0], "nmnist", 34, 34)
    frames, _ = next(iter(train.batches(3)))
    assert frames.nonzero().tolist() == [
        [step, sample, channel, 0, x] for step, channel in ((0, 1), (1, 0)) for sample, x in enumerate((1, 2, 10))
    ]
    assert load_nmnist(tmp_path, "test", counts=COUNTS).labels.tolist() == [9]


def test_says_what_to_fetch_or_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Test\.zip") as caught:
        load_nmnist(tmp_path, "test")
    for part in ("69ca8762b2fe404d9b9bad1103e97832", "https://data.mendeley.com/", str(tmp_path / "n-mnist")):
        assert part in str(caught.value)
    root = published_layout(tmp_path)
    with pytest.raises(DataError, match="must hold 60000 recordings, got 3"):
        load_nmnist(root, "train")
    with pytest.raises(SpecError, match="hold_out"):
        load_nmnist(root, "valid")
    (root / "n-mnist" / "Train" / "3" / "x.bin").write_bytes(b"")
    with pytest.raises(DataError, match="both numbers, got 'x'"):
        read_class_folders(root / "n-mnist" / "Train")


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.\.9, got 10"):
        make_event_set("nmnist", "train", ([parse_events(encode([(1, 1, 1, 5)]), "one")], [10]), 1, 1)
    with pytest.raises(DataError, match="holds no recordings"):
        make_event_set("nmnist", "train", ([], []), 1, 1)


LIST = b"#sample #class\r\n7\t4\r\n2\t0\r\n\r\n"


def listed_folder(folder: Path, listing: bytes = LIST) -> Path:
    folder.mkdir()
    (folder / "train1K.txt").write_bytes(listing)
    for sample in (2, 7):
        (folder / f"{sample}.bs2").write_bytes(encode([(sample, 1, 0, 9)]))
    return folder


def as_tar(folder: Path) -> Path:
    with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
        tar.add(folder, arcname=".")
    return folder.with_suffix(".tar")


def test_folder_and_tar_give_the_listed_recordings_in_order(tmp_path: Path) -> None:
    folder = listed_folder(tmp_path / "set")
    for source in (folder, as_tar(folder)):
        events, labels = read_listed(source, "train1K.txt")
        assert labels == [4, 0]
        assert [recording.x.tolist() for recording in events] == [[7], [2]]


@pytest.mark.parametrize(
    ("listing", "match"),
    [
        (b"7\t4\n8\t1\n", r"8\.bs2"),
        (b"7\n", "a sample and its class, got '7'"),
        (b"7 four\n", "got '7 four'"),
        (b"../7 4\n", "got '../7 4'"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, listing: bytes, match: str) -> None:
    folder = listed_folder(tmp_path / "set", listing)
    for source in (folder, as_tar(folder)):
        with pytest.raises(DataError, match=match):
            read_listed(source, "train1K.txt")


def test_bad_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n-mnist" / "nmnist-small.tar"
    with pytest.raises(DataError, match=r"nmnist-small \(train\) is not at .*nmnist-small\.tar"):
        load_nmnist_small(tmp_path, "train")
    path.parent.mkdir()
    path.write_bytes(b"not a tar" * 100)
    with pytest.raises(DataError, match="cannot read"):
        load_nmnist_small(tmp_path, "train")
    whole = as_tar(listed_folder(tmp_path / "set")).read_bytes()
    path.write_bytes(whole[:1700])
    with pytest.raises(DataError, match="nmnist-small"):
        load_nmnist_small(tmp_path, "train")
    path.write_bytes(whole)
    with pytest.raises(DataError, match="must hold 1000 recordings, got 2"):
        load_nmnist_small(tmp_path, "train")


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(encode([(1, 1, 1, 1)]))
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:
        listing = tarfile.TarInfo("train1K.txt")
        listing.size = 4
        tar.addfile(listing, io.BytesIO(b"7 4\n"))
        link = tarfile.TarInfo("7.bs2")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    with pytest.raises(DataError, match=r"7\.bs2 is not in"):
        read_listed(path, "train1K.txt")


@pytest.mark.parametrize(("split", "count"), [("train", 1000), ("test", 100)])
def test_real_recordings(nmnist_root: Path, split: str, count: int) -> None:
    data = load_nmnist_small(nmnist_root, split)
    assert (len(data), data.steps, data.step_us) == (count, 300, 1000)
    assert set(data.labels.tolist()) == set(range(10))
    first = {"train": ("1.bs2", 5), "test": ("60001.bs2", 7)}[split]
    with tarfile.open(nmnist_root / "n-mnist" / "nmnist-small.tar") as tar:
        sizes = {Path(member.name).name: member.size for member in tar if member.name.endswith(".bs2")}
        name = next(member.name for member in tar if Path(member.name).name == first[0])
        stream = tar.extractfile(name)
        assert stream is not None
        rows = decode(stream.read())
    assert int(data.labels[0]) == first[1]
    assert list(zip(*(values.tolist() for values in data.recording(0)), strict=True)) == rows
    wanted = {"train": range(1, 1001), "test": range(60001, 60101)}[split]
    assert data.offsets.diff().tolist() == [sizes[f"{i}.bs2"] // 5 for i in wanted]


def test_real_frames_hold_every_event_of_the_window(nmnist_root: Path) -> None:
    data = load_nmnist_small(nmnist_root, "test")
    total = 0
    for start, (frames, _) in enumerate(data.batches(50)):
        assert frames.shape == (300, 50, 2, 34, 34)
        total += int(frames.sum())
        late = data.recording(start * 50)
        kept = late.t_us.numpy() < 300_000
        ours = np.bincount(late.p.numpy()[kept], minlength=2)
        np.testing.assert_array_equal(frames[:, 0].sum((0, 2, 3)).numpy(), ours)
    assert total == int((data.events.t_us < 300_000).sum())
