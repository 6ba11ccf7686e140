from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isofire.data.cifar_pickle import open_batch
from isofire.errors import DataError


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [3, 4])
def test_reads_arrays_lists_and_text(protocol: int) -> None:
    batch = {b"labels": [3, 1], b"n": -7, b"data": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    read = open_batch(pickle.dumps(batch, protocol), "here")
    assert list(read) == list(batch)
    assert (read[b"labels"], read[b"n"]) == ([3, 1], -7)
    np.testing.assert_array_equal(read[b"data"], batch[b"data"])


@pytest.mark.parametrize(("protocol", "helper"), [(2, r"_codecs\.encode"), (5, "_frombuffer")])
def test_helpers_of_other_writers_are_refused_too(protocol: int, helper: str) -> None:
    # Python 3 writes bytes in protocol 2, and NumPy arrays in protocol 5, through calls that the archives never make
    with pytest.raises(DataError, match=helper):
        open_batch(pickle.dumps({b"data": np.arange(6, dtype=np.uint8)}, protocol), "here")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: {"data": call}, lambda call: {"labels": [1, call]}])
def test_runs_nothing(tmp_path: Path, protocol: int, wrap: Any) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps(wrap(Call(os.mkdir, str(marker))), protocol)
    with pytest.raises(DataError, match=r"refused to open here: it asks for .*mkdir, which no CIFAR batch needs"):
        open_batch(data, "here")
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the pickle was harmless, so the test showed nothing"


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "__builtin__\ngetattr",
        "os\nsystem",
        "posix\nsystem",
        "subprocess\nPopen",
        "numpy\nload",
        "numpy\nfrompyfunc",
        "numpy.core.multiarray\nscalar",
        "numpy\nndarray.tofile",
        "copyreg\n_reconstructor",
        "isofire.data.cifar_pickle\nos",
    ],
)
def test_knows_three_names_only(name: str) -> None:
    with pytest.raises(DataError, match="which no CIFAR batch needs"):
        open_batch(b"\x80\x02c" + name.encode() + b"\n.", "here")


def test_dotted_names_and_extension_codes_are_refused() -> None:
    dotted = b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__class__\x93."
    for data in (dotted, b"\x80\x02\x82\x01.", b"\x80\x02U\x01xQ.", b"Pname\n."):
        with pytest.raises(DataError, match="refused to open here"):
            open_batch(data, "here")


def test_objects_inside_an_array_go_the_same_way() -> None:
    array = np.empty(1, dtype=object)
    array[0] = Call(os.getcwd)
    with pytest.raises(DataError, match="getcwd"):
        open_batch(pickle.dumps({"data": array}), "here")


def test_damaged_pickles_are_data_errors() -> None:
    whole = pickle.dumps({"data": np.zeros(50, np.uint8), "labels": [1]})
    for data in (b"", whole[: len(whole) // 2], whole[:-1], b"\x00" + whole, os.urandom(64)):
        with pytest.raises(DataError):
            open_batch(data, "here")
    with pytest.raises(DataError, match="a CIFAR batch is a dictionary, got list"):
        open_batch(pickle.dumps([1]), "here")
