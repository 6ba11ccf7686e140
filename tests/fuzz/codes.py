"""Files of packed codes, damaged: bundles of integers, and the packed tensors of quantized networks."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.fuzz.hostile import byte_edits, damaged, edited, edits
from torch import Tensor, nn

import isofire
from isofire.export import read_bundle, write_bundle
from isofire.export.bundle import sum_of
from isofire.integer import lower
from isofire.models import load_model
from isofire.neurons import LIF, CubaLIF, PerStep, Recurrent

Case = Callable[[Path], Callable[[], object]]


@functools.cache
def bundle() -> Path:
    """A bundle with all parts: pools, a table of levels, a current, recurrent weights, notes, a readout."""
    torch.manual_seed(0)
    net = nn.Sequential(
        PerStep(nn.AvgPool2d(2), nn.Conv2d(1, 3, 2)), LIF(3.0, v_threshold=0.3),
        PerStep(nn.Flatten(), nn.Linear(27, 4)), Recurrent(CubaLIF(4.0, 2.0, v_threshold=0.5), nn.Linear(4, 4)),
        PerStep(nn.Linear(4, 3)),
    ).eval()  # fmt: skip
    x = torch.rand(4, 5, 1, 8, 8)
    spec = isofire.QuantSpec(
        weights={"method": "lsq", "bits": 3}, first_layer="quantize", last_layer="quantize",
        rules=[{"match": "1", "membrane": {"bits": 3, "range": [-1, 1], "placement": "post_reset"}}],
    )  # fmt: skip
    network = lower(isofire.quantize_(net, spec, x), x, input_bits=6)
    place = Path(tempfile.mkdtemp(prefix="isofire-fuzz-")) / "codes"
    return write_bundle(place, network, network.codes(x[:, :1]))


def bundle_folder() -> st.SearchStrategy[Case]:
    """Files with bytes changed, cut or left out, and manifests with other values; signed anew or not."""

    def case(number: int, changes: Any, document: Any, signed: bool, gone: bool) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            place = folder / "codes"
            shutil.copytree(bundle(), place)
            path = place / "manifest.json"
            manifest = json.loads(path.read_bytes())
            if document is not None:
                manifest = edited(manifest, document)
            else:
                files = sorted(place.iterdir())
                file = files[number % len(files)]
                content = damaged(file.read_bytes(), changes)
                file.unlink() if gone else file.write_bytes(content)
                if gone or file == path:
                    return lambda: read_bundle(place)
                _with_sum(manifest, file.name, hashlib.sha256(content).hexdigest() if signed else None)
            if signed and isinstance(manifest, dict):
                manifest["sha256"] = sum_of(manifest)
            path.write_text(json.dumps(manifest))
            return lambda: read_bundle(place)

        return write

    once_in_four = st.integers(0, 3).map(lambda drawn: drawn == 3)
    signed = once_in_four.map(lambda drawn: not drawn)
    return st.builds(case, st.integers(0, 1000), byte_edits, st.none() | edits, signed, once_in_four)


def _with_sum(value: Any, name: str, digest: str | None) -> None:
    """Put a file's new sum where the manifest describes it, as whoever changes a bundle by hand could do."""
    if isinstance(value, dict):
        if digest is not None and value.get("file") == name:
            value["sha256"] = digest
        for item in value.values():
            _with_sum(item, name, digest)
    elif isinstance(value, list):
        for item in value:
            _with_sum(item, name, digest)


def _spoilt(tensor: Tensor, kind: str, number: int) -> Tensor | None:
    """Another tensor in its place; None: none."""
    match kind:
        case "drop":
            return None
        case "cut":
            return tensor.flatten()[: number % max(1, tensor.numel())].clone()
        case "flat":
            return tensor.flatten().clone()
        case "type":
            return tensor.to((torch.float64, torch.int8, torch.int64, torch.uint8)[number % 4])
        case "value":
            other = tensor.clone().flatten()
            value = (0, 1, -1, 255, 2**40, 7)[number % 6]
            other[number % max(1, other.numel())] = value % 256 if tensor.dtype == torch.uint8 else value
            return other.view(tensor.shape)
        case "more":
            return torch.cat([tensor, tensor]) if tensor.ndim else tensor
        case _:
            return torch.empty((0, *tensor.shape[1:]), dtype=tensor.dtype)


_KINDS = ("drop", "cut", "flat", "type", "value", "more", "none")


def packed_file(files: Callable[[], list[Path]]) -> st.SearchStrategy[Case]:
    """Networks whose packed codes, levels or shapes are missing, of other types or sizes, or have other values."""

    def case(number: int, changes: list[tuple[int, str, int]]) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            source = files()[number % len(files())]
            with safe_open(source, framework="pt") as file:
                about = file.metadata()
            tensors = load_file(source)
            for at, kind, value in changes:
                names = sorted(name for name in tensors if name.startswith("packed/"))
                if names:
                    name = names[at % len(names)]
                    other = _spoilt(tensors.pop(name), kind, value)
                    tensors |= {} if other is None else {name: other}
            save_file(tensors, folder / "m.safetensors", about)
            return lambda: load_model(folder / "m.safetensors")

        return write

    change = st.tuples(st.integers(0, 1000), st.sampled_from(_KINDS), st.integers(0, 10_000))
    return st.builds(case, st.integers(0, 1000), st.lists(change, min_size=1, max_size=2))
