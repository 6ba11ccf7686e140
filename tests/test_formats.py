"""A file of another program that is given as a network is named, with the way in; nobody is told to remove it."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from isofire.errors import CheckpointError
from isofire.models import load_model
from isofire.training import load_weights, save_weights
from isofire.training.checkpoint import load_plain_weights


def torch_bytes(**options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), stream, **options)
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 600
FOREIGN = {
    "net.pt": (torch_bytes(), "a pickle of PyTorch's.*safetensors.torch.save_file"),
    "old.pth": (torch_bytes(_use_new_zipfile_serialization=False), "a pickle of PyTorch's"),
    "renamed.safetensors": (torch_bytes(), "a pickle of PyTorch's"),
    "light.ckpt": (torch_bytes(), "a checkpoint that is pickled, as Lightning's"),
    "net.pkl": (pickle.dumps([1]), "a pickle. isofire opens no pickle"),
    "script.pt": (zipped("net/constants.pkl", "net/data.pkl"), "a network of TorchScript's"),
    "net.nir": (HDF5, "a NIR graph. Read it by isofire.nir.read"),
    "net.net": (HDF5, "lava-dl's"),
    "net.h5": (HDF5, "a Keras file"),
    "unnamed": (HDF5, "an HDF5 file"),
    "net.keras": (zipped("config.json", "model.weights.h5"), "a Keras file"),
    "net.onnx": (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
    "net.tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 50, "a TensorFlow Lite model"),
    "net.npz": (zipped("a.npy", "b.npy"), "arrays of numpy's"),
    "net.npy": (b"\x93NUMPY\x01\0", "an array of numpy's"),
    "net.tar.gz": (b"\x1f\x8b\x08\0" + b"\0" * 20, "an archive. Unpack it"),
    "config.toml": (b'[model]\nbuilder = "sew_resnet8"\n', "a configuration. It goes with --config"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("read", [load_model, lambda path: load_plain_weights(path, nn.Linear(2, 2))])
def test_a_foreign_file_is_named_with_the_way_in(tmp_path: Path, name: str, read: Any) -> None:
    content, told = FOREIGN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"{name} is no network that isofire wrote, it looks like .*{told}"
    ) as found:
        read(path)
    assert "remove" not in str(found.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model"])
def test_a_damaged_file_of_isofires_is_told_as_such(tmp_path: Path, name: str) -> None:
    path = save_weights(tmp_path / name, nn.Linear(2, 2))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"truncated or no safetensors file .* restore it from a copy"):
        load_weights(path, nn.Linear(2, 2))


def test_states_of_a_forward_pass_in_a_state_dict_are_told(tmp_path: Path) -> None:
    sinabs: Any = pytest.importorskip("sinabs.layers", reason="sinabs is not installed")
    net = nn.Sequential(nn.Linear(3, 4), sinabs.IAF())
    net(torch.rand(2, 5, 3))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match=r"1.v_mem .* states that neurons kept from a forward pass.*reset_"):
        load_plain_weights(tmp_path / "net.safetensors", nn.Sequential(nn.Linear(3, 4), sinabs.IAF()))
    # weights that do not fit are told as ever
    with pytest.raises(CheckpointError, match="build the model as it was"):
        load_plain_weights(tmp_path / "net.safetensors", nn.Sequential(nn.Linear(2, 4), sinabs.IAF()))


@pytest.mark.parametrize("read", [load_model, lambda path: load_plain_weights(path, nn.Linear(2, 2))])
def test_a_folder_given_as_a_network_is_told_as_one(tmp_path: Path, read: Any) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder without a \.safetensors file; name the file that holds"):
        read(tmp_path)
    for name in ("last.safetensors", "best.safetensors"):
        save_weights(tmp_path / name, nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"is a folder; name a file in it: best\.safetensors or last\.safet"):
        read(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="as a bundle of integers; a bundle is a whole network") as found:
        read(tmp_path)
    assert not [word for word in ("restore", "remove", "truncated") if word in str(found.value)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_told_as_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match=r"pipe\.safetensors is not to be read: it is a pipe, not a file$"):
        load_model(tmp_path / "pipe.safetensors")
