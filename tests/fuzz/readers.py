"""Every reader of files that others may have written, with whole files to start from."""

from __future__ import annotations

import functools
import gzip
import io
import json
import shutil
import struct
import tarfile
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.fuzz.codes import bundle_folder, packed_file
from tests.fuzz.hostile import byte_edits, damaged, edited, edits, to_toml, values
from tests.fuzz.judge import command
from tests.sweep.support import Inline

from isofire.config import parse_config, read_config
from isofire.data import CIFAR10, MNIST, load_cifar, load_idx, read_events, read_idx
from isofire.data.nmnist import read_listed
from isofire.firing import Observation, SpikeCounts
from isofire.models import load_model, save_model, sew_resnet8
from isofire.quantization import calibrate_, convert, prepare
from isofire.spec import QuantSpec
from isofire.study import read_rows, write_rows
from isofire.sweep import Results, make_plan, read_sweep, run_sweep
from isofire.training.checkpoint import load_plain_weights, load_training, save_training

Case = Callable[[Path], Callable[[], object]]
"""Writes an input into a folder and returns what reads it."""

SWEEP = Path(__file__).parents[1] / "sweep" / "tiny.toml"
CONFIG: dict[str, Any] = {
    "seed": 0, "out": "runs/x",
    "model": {
        "builder": "sew_resnet8", "width": 0.125, "T": 1, "in_channels": 1, "neuron_options": {"v_threshold": 1.0},
    },
    "data": {"name": "digits", "train_images": 32, "valid": 16, "seed": 0, "options": {}},
    "train": {"epochs": 1, "lr": 0.1, "batch_size": 16, "losses": {}},
    "qat": {"epochs": 1, "lr": 0.1, "batch_size": 16, "clip_norm": 1.0, "loss": "tet"},
    "quant": {
        "weights": {"method": "lsq", "bits": 4, "granularity": "channel"},
        "membrane": {"bits": 4, "range": [-1.0, 1.0], "placement": "pre_fire", "grid": "endpoint"},
        "rules": [{"match": "re:stages.*", "weights": {"method": "uniform", "bits": 2, "range": "mse"}}],
    },
    "calibration": {"images": 16},
}  # fmt: skip
SPECS: list[dict[str, Any]] = [
    CONFIG["quant"],
    {"weights": {"method": "tawq", "steps": 2, "scale": "mse"}},
    {"weights": {"method": "lqnet", "bits": 3, "clip": [-1.0, 1.0], "restarts": 1, "iterations": 3}},
    {"weights": {"method": "uniform", "bits": 4, "range": [-1.0, 1.0], "k": 2.0, "percentile": 99.0}},
]


def texts(tables: list[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    """TOML whose values, or whose bytes, were changed."""
    whole = st.sampled_from(tables)
    structured = st.builds(lambda table, changes: _toml(edited(table, changes)), whole, edits)
    return structured | st.builds(lambda table, changes: damaged(_toml(table), changes), whole, byte_edits)


def _toml(table: Any) -> bytes:
    text = to_toml(table) if isinstance(table, dict) else str(table)
    return text.encode("utf-8", "surrogatepass")


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], Case]:
    def case(data: bytes) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            return lambda: read(folder / name)

        return write

    return case


def config() -> st.SearchStrategy[Case]:
    return texts([CONFIG]).map(_file("c.toml", read_config))


def sweep_config() -> st.SearchStrategy[Case]:
    return texts([tomllib.loads(SWEEP.read_text())]).map(_file("s.toml", read_sweep))


def spec() -> st.SearchStrategy[Case]:
    return texts(SPECS).map(_file("q.toml", QuantSpec.from_toml))


def setting() -> st.SearchStrategy[Case]:
    keys = st.sampled_from([*CONFIG, "data.name", "model.T", "quant.weights", "quant.rules.0", "train.lr", "a.b.c", ""])
    made = st.builds(lambda key, value: f"{key}={to_toml({'x': value})[6:].strip()}", keys, values)
    either = made | st.builds(lambda key, text: f"{key}={text}", keys, st.text(max_size=30))
    return st.lists(either, min_size=1, max_size=3).map(
        lambda given: lambda _: lambda: parse_config({"data": {"name": "digits"}, "quant": SPECS[0]}, "a", given)
    )


@functools.cache
def _networks() -> dict[str, Path]:
    folder = Path(tempfile.mkdtemp(prefix="isofire-fuzz-"))
    small = functools.partial(sew_resnet8, width=0.125, in_channels=1, T=2)
    made = {"float": save_model(folder / "float", small(), {"accuracy": {"valid": 0.5}})}
    for number, about in enumerate(SPECS):
        if number != 2:
            prepared = calibrate_(prepare(small(), QuantSpec.from_dict(about)), torch.rand(8, 1, 8, 8))
            made[f"prepared{number}"] = save_model(folder / f"prepared{number}", prepared)
            made[f"converted{number}"] = save_model(folder / f"converted{number}", convert(prepared))
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    made["training"] = save_training(folder / "training", model, optimizer, {"identity": {}, "position": {}})
    counts = {"a": torch.ones(2, 3, 2, dtype=torch.int32), "b": torch.zeros(2, 4, dtype=torch.int32)}
    observed = Observation(SpikeCounts(counts, torch.tensor([2, 1]), steps=4), torch.arange(3), torch.arange(3))
    observed.save(folder)
    made |= {name: folder / f"{name}.safetensors" for name in ("counts", "predictions")}
    return made


def _tensor_file(source: Path, target: Path, change: Any) -> None:
    if isinstance(change, bytes):
        target.write_bytes(change)
        return
    with safe_open(source, framework="pt") as file:
        header = json.loads((file.metadata() or {}).get("isofire", "null"))
    text = json.dumps(edited(header, change))
    save_file(load_file(source), target, {"isofire": text})


def _tensors(names: Callable[[], list[str]], target: str, read: Callable[[Path], object]) -> st.SearchStrategy[Case]:
    def case(name: str, change: Any) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            for other in ("counts", "predictions"):
                shutil.copy(_networks()[other], folder / f"{other}.safetensors")
            source = _networks()[name]
            _tensor_file(source, folder / target, damaged(source.read_bytes(), change[1]) if change[0] else change[1])
            return lambda: read(folder / target)

        return write

    changes = st.tuples(st.just(True), byte_edits) | st.tuples(st.just(False), edits)
    return st.deferred(lambda: st.builds(case, st.sampled_from(names()), changes))


def model_file() -> st.SearchStrategy[Case]:
    def names() -> list[str]:
        return [name for name in _networks() if name not in ("counts", "predictions", "training")]

    return _tensors(names, "m.safetensors", load_model)


def packed_model_file() -> st.SearchStrategy[Case]:
    return packed_file(lambda: [path for name, path in _networks().items() if name.startswith("converted")])


def training_file() -> st.SearchStrategy[Case]:
    def read(path: Path) -> None:
        model = sew_resnet8(width=0.125, in_channels=1, T=2)
        load_training(path, model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))

    return _tensors(lambda: ["training"], "t.safetensors", read)


def weights_file() -> st.SearchStrategy[Case]:
    def read(path: Path) -> None:
        load_plain_weights(path, sew_resnet8(width=0.125, in_channels=1, T=2))

    return _tensors(lambda: ["float", "counts"], "w.safetensors", read)


def counts_file() -> st.SearchStrategy[Case]:
    return _tensors(lambda: ["counts"], "counts.safetensors", lambda path: Observation.load(path.parent).counts.rates())


def predictions_file() -> st.SearchStrategy[Case]:
    return _tensors(
        lambda: ["predictions"], "predictions.safetensors", lambda path: Observation.load(path.parent).accuracy
    )


_IDX = struct.pack(">4B3I", 0, 0, 8, 3, 4, 5, 5) + bytes(range(100))
_LABELS = struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes([1, 2, 3, 4])


def idx_file() -> st.SearchStrategy[Case]:
    def case(changes: Any, packed: bool, after: bool, known: bool) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            name = f"t10k-images-idx3-ubyte{'.gz' if packed else ''}"
            data = _IDX if packed and after else damaged(_IDX, changes)
            data = gzip.compress(data, mtime=0) if packed else data
            (folder / name).write_bytes(damaged(data, changes) if packed and after else data)
            (folder / "t10k-labels-idx1-ubyte").write_bytes(_LABELS)
            toy = replace(MNIST, counts={"test": 4}, side=5)
            return lambda: load_idx(folder, "test", toy, verify=False) if known else read_idx(folder / name, 3)

        return write

    return st.builds(case, byte_edits, st.booleans(), st.booleans(), st.booleans())


def cifar_file() -> st.SearchStrategy[Case]:
    toy = replace(CIFAR10, per_file={"train": 2, "test": 2})
    record = bytes([3]) + bytes(3072)

    def case(changes: Any) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            path = toy.binary.target(folder) / toy.binary_files["test"][0]
            path.parent.mkdir()
            path.write_bytes(damaged(record * 2, changes))
            return lambda: load_cifar(folder, "test", toy, verify=False)

        return write

    return byte_edits.map(case)


_EVENTS = b"".join(bytes([x, 5, 0x80, 0, 10 * x]) for x in range(20))


def events_file() -> st.SearchStrategy[Case]:
    whole = byte_edits.map(lambda changes: damaged(_EVENTS, changes)) | st.binary(max_size=100)
    return whole.map(_file("1.bin", read_events))


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (("list.txt", b"# sample class\n1 4\n2 9\n"), ("1.bs2", _EVENTS), ("2.bs2", _EVENTS)):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return stream.getvalue()


def recordings_archive() -> st.SearchStrategy[Case]:
    def read(path: Path) -> object:
        return read_listed(path, "list.txt")

    plain = byte_edits.map(lambda changes: damaged(_tar(), changes))
    packed = byte_edits.map(lambda changes: damaged(gzip.compress(_tar(), mtime=0), changes))
    inner = byte_edits.map(lambda changes: gzip.compress(damaged(_tar(), changes), mtime=0))
    return (plain | packed | inner).map(_file("a.tar", read))


def rows_file() -> st.SearchStrategy[Case]:
    row = {"model": "m", "bits": 4, "seed": 0, "accuracy": 0.5, "within_noise": True, "own": "-x", "spec": None}

    def case(kind: str, changes: Any, document: Any) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            for path in write_rows(folder, [row, row], {"python": "3"}, stem="r"):
                data = path.read_bytes()
                path.write_bytes(damaged(data, changes))
                if path.suffix == ".json" and document is not None:
                    path.write_text(json.dumps(edited(json.loads(data), document)))
            return lambda: read_rows(folder / f"r.{kind}")

        return write

    return st.builds(case, st.sampled_from(["csv", "json"]), byte_edits, st.none() | edits)


@functools.cache
def _folder() -> Path:
    """A sweep of two cells, one of which failed as well, and one that is claimed."""
    folder = Path(tempfile.mkdtemp(prefix="isofire-fuzz-")) / "sweep"
    few = [
        "seeds=[0]",
        'cells=[{mode=["ptq"]}, {mode=["ptq"], bits=[2], weights={method="lsq"}}]',
        "baselines.0.train.epochs=1",
    ]
    run_sweep(make_plan(read_sweep(SWEEP, few), folder), str(folder), Inline())
    key = next(iter((folder / "cells").iterdir())).name
    (folder / "failed").mkdir(exist_ok=True)
    about = {"key": key, "title": "t", "type": "ModelError", "reason": "r", "traceback": "", "date": "d", "attempts": 1}
    (folder / "failed" / f"{key}.json").write_text(json.dumps(about))
    (folder / "claims").mkdir(exist_ok=True)
    (folder / "claims" / key).write_text(json.dumps({"host": "far", "pid": 3, "machine": "other"}))
    return folder


def _sweep_folder(read: Callable[[Path], Callable[[], object]]) -> st.SearchStrategy[Case]:
    def case(number: int, changes: Any, document: Any, consistent: bool) -> Case:
        def write(folder: Path) -> Callable[[], object]:
            place = folder / "sweep"
            shutil.copytree(_folder(), place)
            files = sorted(path for path in place.rglob("*") if path.suffix == ".json" or path.parent.name == "claims")
            path = files[number % len(files)]
            data = path.read_bytes()
            if document is not None:
                new = json.dumps(edited(json.loads(data), document)).encode()
            else:
                new = damaged(data, changes)
            path.write_bytes(new)
            if consistent and path.parent.parent.name in ("cells", "baselines") and path.name != "manifest.json":
                _put_in_manifest(path, new)
            return read(place)

        return write

    return st.builds(case, st.integers(0, 1000), byte_edits, st.none() | edits, st.booleans())


def _put_in_manifest(path: Path, data: bytes) -> None:
    """As whoever writes a folder by hand could do."""
    import hashlib

    manifest = path.parent / "manifest.json"
    about = json.loads(manifest.read_bytes())
    about["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(about))


def sweep_folder() -> st.SearchStrategy[Case]:
    def read(place: Path) -> Callable[[], object]:
        def look() -> None:
            results = Results.open(place)
            for what in (results.rows, results.failed, results.damaged, results.running, results.pending):
                repr(what)
            for row in results.rows:
                key = row["cell"]
                results.layers(key), results.baseline(key), results.distributions(key)

        return look

    return _sweep_folder(read)


def sweep_status() -> st.SearchStrategy[Case]:
    return _sweep_folder(lambda place: command("status", str(place), "--json"))


def sweep_report() -> st.SearchStrategy[Case]:
    return _sweep_folder(lambda place: command("report", str(place), "--out", str(place.parent / "page.html")))


READERS: dict[str, tuple[Callable[[], st.SearchStrategy[Case]], float]] = {
    "config": (config, 1.0), "sweep config": (sweep_config, 1.0), "spec": (spec, 1.0), "--set": (setting, 1.0),
    "model file": (model_file, 0.6), "packed model file": (packed_model_file, 0.6), "bundle": (bundle_folder, 0.8),
    "training file": (training_file, 0.4), "weights file": (weights_file, 0.4),
    "counts file": (counts_file, 0.8), "predictions file": (predictions_file, 0.4), "idx file": (idx_file, 1.0),
    "cifar file": (cifar_file, 0.4), "events file": (events_file, 0.8), "recordings archive": (recordings_archive, 0.8),
    "rows file": (rows_file, 0.8), "sweep folder": (sweep_folder, 0.8), "sweep status": (sweep_status, 0.4),
    "sweep report": (sweep_report, 0.1),
}  # fmt: skip
"""Reader -> its inputs, and their share, by what one of them costs."""
