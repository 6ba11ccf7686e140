"""The count store: derived values, merging, and files that are whole or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from isofire.errors import CheckpointError, DataError, OutputError, SpecError
from isofire.firing import SpikeCounts

Make = Callable[..., SpikeCounts]


def test_derived_values_by_hand() -> None:
    # 5 images, 4 steps: 20 chances to fire
    counts = SpikeCounts(
        {"x": torch.tensor([[[1, 2], [3, 4]], [[0, 8], [17, 1]]], dtype=torch.int32)}, torch.tensor([3, 2]), 4
    )
    assert (counts.layers, counts.blocks, counts.n_images, counts.denominator) == (("x",), 2, 5, 20)
    assert counts.shape("x") == (2, 2)
    assert counts.n_neurons("x") == 4
    assert counts.rates("x").dtype == torch.float64
    assert counts.rates("x").tolist() == [0.05, 0.5, 1.0, 0.25]
    assert counts.total("x") == 36


def test_all_layers_together_follow_the_given_order(counts: Make) -> None:
    record = counts()
    assert record.layers == ("b", "a")
    assert torch.equal(record.per_neuron(), torch.cat([record.per_neuron("b"), record.per_neuron("a")]))
    assert record.n_neurons() == 10
    assert record.total() == record.total("a") + record.total("b")


def test_sums_do_not_overflow_int32() -> None:
    big = torch.full((4, 3), 2**31 - 1, dtype=torch.int32)
    record = SpikeCounts({"x": big}, torch.tensor([1, 1, 1, 1]), 1)
    assert record.total("x") == 12 * (2**31 - 1)
    assert record.rates("x").tolist() == [float(2**31 - 1)] * 3


def test_merge_adds_counts_and_blocks(counts: Make) -> None:
    first, second = counts(1), counts(2)
    both = first.merge(second)
    assert both.images_per_block.tolist() == [6, 4]
    assert all(torch.equal(both.counts[name], first.counts[name] + second.counts[name]) for name in ("a", "b"))
    assert both.n_images == 10


def test_merge_refuses_other_networks(counts: Make) -> None:
    record = counts()
    layers = dict(record.counts)
    with pytest.raises(DataError, match="T = 4 against 5"):
        record.merge(counts(steps=5))
    with pytest.raises(DataError, match="'a' is only in the first"):
        record.merge(counts(counts={"b": layers["b"]}))
    with pytest.raises(DataError, match="'c' is only in the second"):
        record.merge(counts(counts={**layers, "c": layers["a"]}))
    with pytest.raises(DataError, match=r"'a' has neurons \(4,\) against \(3,\)"):
        record.merge(counts(counts={**layers, "a": layers["a"][:, :3]}))
    three = {name: torch.cat([tensor, tensor[:1]]) for name, tensor in layers.items()}
    with pytest.raises(DataError, match="2 against 3 blocks"):
        record.merge(counts(counts=three, images_per_block=torch.tensor([1, 1, 1])))


def test_merge_refuses_to_overflow() -> None:
    record = SpikeCounts({"x": torch.tensor([[2**30]], dtype=torch.int32)}, torch.tensor([1]), 1)
    with pytest.raises(DataError, match="must fit int32, got 2147483648"):
        record.merge(record)


def test_unknown_layer_is_named(counts: Make) -> None:
    with pytest.raises(SpecError, match="one of b, a, got 'c'"):
        counts().rates("c")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"counts": {}}, "at least one layer"),
        ({"counts": {"x": torch.zeros(2, 3)}}, "must be int32"),
        ({"counts": {"x": torch.zeros(3, 3, dtype=torch.int32)}}, r"int32 \[2, \*neuron_shape\]"),
        ({"counts": {"x": torch.zeros(2, dtype=torch.int32)}}, "neuron_shape"),
        ({"counts": {"x": torch.full((2, 1), -4, dtype=torch.int32)}}, "not be negative, got -4"),
        ({"images_per_block": torch.tensor([0, 0])}, "at least one image"),
        ({"images_per_block": torch.tensor([3, -1])}, "no negative"),
        ({"images_per_block": torch.tensor([3.0, 1.0])}, "must be int64"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
    ],
)
def test_bad_parts_are_refused(counts: Make, changes: dict[str, object], match: str) -> None:
    with pytest.raises(DataError, match=match):
        counts(**changes)


def test_file_round_trip(counts: Make, tmp_path: Path) -> None:
    record = counts()
    loaded = SpikeCounts.load(record.save(tmp_path / "deep" / "counts.safetensors"))
    assert loaded.layers == record.layers
    assert loaded.steps == record.steps
    assert torch.equal(loaded.images_per_block, record.images_per_block)
    assert all(torch.equal(loaded.counts[name], record.counts[name]) for name in record.layers)


def test_file_keeps_the_order_of_a_strided_layer(tmp_path: Path) -> None:
    strided = torch.arange(12, dtype=torch.int32).reshape(1, 3, 4).transpose(1, 2)
    record = SpikeCounts({"x": strided}, torch.tensor([1]), 1)
    assert torch.equal(SpikeCounts.load(record.save(tmp_path / "c")).counts["x"], strided)


def test_missing_truncated_and_foreign_files_are_refused(counts: Make, tmp_path: Path) -> None:
    path = counts().save(tmp_path / "counts.safetensors")
    whole = path.read_bytes()
    with pytest.raises(CheckpointError, match="cannot be read as spike counts"):
        SpikeCounts.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="cannot be read as spike counts"):
        SpikeCounts.load(tmp_path)
    for length in (0, 7, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cannot be read as spike counts"):
            SpikeCounts.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no isofire header"):
        SpikeCounts.load(path)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ({"format": "isofire.checkpoint"}, "format must be 'isofire.spike_counts'"),
        ({"version": 2}, "version must be 1, is 2"),
        ({"steps": 0}, "steps must be"),
        ({"steps": "4"}, "Expected `int`"),
        ({"layers": ["a", "missing"]}, "counts/missing"),
        ({"layers": 3}, "Expected `array`"),
        ({"layers": None}, "Expected `array`"),
    ],
)
def test_altered_headers_are_refused(counts: Make, tmp_path: Path, header: dict[str, object], match: str) -> None:
    path = counts().save(tmp_path / "counts.safetensors")
    good = {"format": "isofire.spike_counts", "version": 1, "steps": 4, "layers": ["b", "a"]}
    save_file(load_file(path), path, metadata={"isofire": json.dumps({**good, **header})})
    with pytest.raises(CheckpointError, match=match):
        SpikeCounts.load(path)


def test_altered_counts_are_refused(counts: Make, tmp_path: Path) -> None:
    path = tmp_path / "counts.safetensors"
    header = {"format": "isofire.spike_counts", "version": 1, "steps": 4, "layers": ["a"]}
    tensors = {"counts/a": torch.full((2, 4), -1, dtype=torch.int32), "images_per_block": torch.tensor([1, 1])}
    save_file(tensors, path, metadata={"isofire": json.dumps(header)})
    with pytest.raises(CheckpointError, match="must not be negative"):
        SpikeCounts.load(path)
    save_file(tensors, path, metadata={"isofire": "{not json"})
    with pytest.raises(CheckpointError, match="cannot be read"):
        SpikeCounts.load(path)


def test_a_place_that_cannot_be_written_is_told(counts: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        counts().save(tmp_path / "file" / "counts.safetensors")


def test_a_block_of_no_images_has_no_spikes() -> None:
    counts, images = torch.tensor([[1, 0], [0, 3]], dtype=torch.int32), torch.tensor([2, 0])
    with pytest.raises(DataError, match=r"without images must be 0, got 3 in block 1 \(layer 'lif'\)"):
        SpikeCounts({"lif": counts}, images, 4)
    assert SpikeCounts({"lif": counts * torch.tensor([[1], [0]], dtype=torch.int32)}, images, 4).total() == 1


def test_several_spikes_a_step_are_counts_above_the_denominator() -> None:
    assert SpikeCounts({"lif": torch.tensor([[9]], dtype=torch.int32)}, torch.tensor([1]), 4).rates().tolist() == [2.25]
