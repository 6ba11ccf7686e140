"""What a file that isofire does not take as a network probably is, and the way in."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from isofire.files import open_file

_START = 512
_NAMED = 5
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PACKED = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"(\xb5/\xfd", "Zstandard"),
)
_STATE_DICT = (
    "isofire opens no pickle, since that can run code. Where you trust the file, write its state dict as safetensors "
    "once: model = build(); model.load_state_dict(torch.load('FILE.pth', weights_only=True)), or of a checkpoint the "
    "entry that holds it, torch.load(...)['state_dict'] by whatever name; where a whole model was pickled, "
    "model = torch.load('FILE.pth', weights_only=False) beside its classes, which runs what the file says. Then "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors'). Then name --model package.module:builder "
    "--weights model.safetensors"
)
_BUILDER = "Read it in a function of yours that returns the network, and name that: --model package.module:builder"
_BY_SUFFIX = {
    ".nir": ("a NIR graph", f"Read it by isofire.nir.read. {_BUILDER}"),
    ".net": ("a network of lava-dl's (netx)", _BUILDER),
    ".h5": ("a Keras file", _BUILDER),
    ".hdf5": ("a Keras file", _BUILDER),
    ".keras": ("a Keras file", _BUILDER),
    ".onnx": ("an ONNX model", _BUILDER),
    ".tflite": ("a TensorFlow Lite model", _BUILDER),
    ".npz": ("arrays of numpy's", _BUILDER),
    ".npy": ("an array of numpy's", _BUILDER),
    ".pt": ("a pickle of PyTorch's", _STATE_DICT),
    ".pth": ("a pickle of PyTorch's", _STATE_DICT),
    ".bin": ("a pickle of PyTorch's", _STATE_DICT),
    ".ckpt": ("a checkpoint that is pickled, as Lightning's", _STATE_DICT),
    ".pkl": ("a pickle", _STATE_DICT),
    ".pickle": ("a pickle", _STATE_DICT),
    ".toml": ("a configuration", "It goes with --config"),
}


def told_format(path: str | os.PathLike[str]) -> str | None:
    """Half a sentence on what the file is and a sentence on the way in; None where it could be a damaged safetensors.

    By its first bytes, and by its name's ending where those do not tell. Nothing in it is run.

    Examples
    --------
    >>> told_format("nets/model.onnx")  # doctest: +SKIP
    'an ONNX model. Read it in a function of yours that ...'
    """
    suffix = Path(path).suffix.lower()
    if (start := _start_of(path)) is None:
        return None
    found = _by_content(path, start, suffix) or (None if _may_be_safetensors(start) else _BY_SUFFIX.get(suffix))
    return None if found is None else f"{found[0]}. {found[1]}"


def told_no_hdf5(path: str | os.PathLike[str]) -> str | None:
    """As `told_format`, of what should be HDF5 and is another format by its first bytes, whatever its name."""
    start = _start_of(path)
    if start is None or start.startswith(_HDF5):
        return None
    found = _by_content(path, start, "")
    return None if found is None else f"{found[0]}. {found[1]}"


def _start_of(path: str | os.PathLike[str]) -> bytes | None:
    try:
        with open_file(path) as stream:
            return stream.read(_START)
    except OSError:
        return None


def packed_by(start: bytes) -> str | None:
    """The program that compressed a file, by its first bytes; None of one that is not compressed."""
    return next((name for begin, name in _PACKED if start.startswith(begin)), None)


def told_unopened(path: str | os.PathLike[str], error: OSError) -> str:
    """What is given as a network and cannot be opened as a file, and the way in: two parts of a sentence.

    Examples
    --------
    >>> told_unopened("runs", IsADirectoryError())  # doctest: +SKIP
    'a folder; name a file in it: best.safetensors or last.safetensors'
    """
    folder = Path(path)
    if not os.path.isdir(folder):
        return f"not to be read: {error.strerror or error}"
    if (folder / "manifest.json").is_file():
        return (
            "a folder with a manifest.json, as a bundle of integers; a bundle is a whole network: name it instead of "
            "one, or read it by isofire.export.read_bundle"
        )
    held = sorted(item.name for item in folder.iterdir() if item.suffix == ".safetensors")
    if held:
        return f"a folder; name a file in it: {' or '.join(held[:_NAMED])}"
    return "a folder without a .safetensors file; name the file that holds the network"


def _by_content(path: str | os.PathLike[str], start: bytes, suffix: str) -> tuple[str, str] | None:
    if start.startswith(b"PK\x03\x04"):
        return _by_members(path, suffix)
    if start.startswith(_HDF5):
        return _BY_SUFFIX.get(suffix if suffix in (".nir", ".net", ".h5", ".hdf5") else "", ("an HDF5 file", _BUILDER))
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return _BY_SUFFIX.get(suffix if suffix in (".pt", ".pth", ".bin", ".ckpt") else ".pkl")
    if start.startswith(b"\x93NUMPY"):
        return _BY_SUFFIX[".npy"]
    if start[4:8] == b"TFL3":
        return _BY_SUFFIX[".tflite"]
    if packed_by(start) or start[257:262] == b"ustar":
        return "an archive", "Unpack it, and name the network in it"
    return None


def _by_members(path: str | os.PathLike[str], suffix: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return _BY_SUFFIX.get(suffix, ("a damaged zip archive", "Restore it from a copy"))
    if any(name.endswith("constants.pkl") for name in names):
        return "a network of TorchScript's", _BUILDER
    if any(name.endswith("data.pkl") for name in names):
        return _BY_SUFFIX[suffix if suffix == ".ckpt" else ".pt"]
    if any(name.endswith(".weights.h5") for name in names):
        return _BY_SUFFIX[".keras"]
    if names and all(name.endswith(".npy") for name in names):
        return _BY_SUFFIX[".npz"]
    return "a zip archive", "Unpack it, and name the network in it"


def _may_be_safetensors(start: bytes) -> bool:
    """It begins with the length of a header in JSON."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 10**8
