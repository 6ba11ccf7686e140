from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from isofire.data.checksum import check_bytes, check_file
from isofire.errors import DataError


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_accepts_the_right_and_names_the_wrong(tmp_path: Path, algorithm: str) -> None:
    data = b"fire" * 700_000
    good = hashlib.new(algorithm, data).hexdigest()
    path = tmp_path / "file"
    path.write_bytes(data)
    check_bytes(data, good, "here", "cure")
    check_file(path, good.upper(), "cure")
    bad = hashlib.new(algorithm, data + b"!").hexdigest()
    with pytest.raises(DataError, match=rf"{algorithm} must be {bad}, got {good} \(here\); fetch it again"):
        check_bytes(data, bad, "here", "fetch it again")
    with pytest.raises(DataError, match=f"{algorithm} must be {bad}, got {good}"):
        check_file(path, bad, "fetch it again")
