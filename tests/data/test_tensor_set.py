"""Tensors as a user has them, as a set that can be cut, shuffled and known by its contents."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from isofire.data import TensorSet, hold_out
from isofire.errors import DataError
from isofire.training import Recipe, train
from isofire.training.feed import Feed

X, Y = torch.rand(23, 3, 5, generator=torch.Generator().manual_seed(0)), torch.arange(23) % 4
FRAMES = torch.rand(7, 23, 2, 3, 3, generator=torch.Generator().manual_seed(1))


def cut(inputs, axis=0):
    return [(inputs.narrow(axis, i, min(5, 23 - i)), Y[i : i + 5]) for i in range(0, 23, 5)]


@pytest.mark.parametrize("inputs", [
    X, (255 * X).to(torch.uint8), X.double(), X[:, 0, 0], X.bfloat16(), (9 * X).long(),
])  # fmt: skip
def test_a_pair_batches_and_a_loader_of_one_content_are_one_set(inputs) -> None:
    loader = DataLoader(TensorDataset(inputs, Y), batch_size=4)
    sets = [TensorSet.of(data, "mine", "train") for data in ((inputs, Y), cut(inputs), loader)]
    assert len({made.fingerprint for made in sets}) == 1
    assert all(torch.equal(made.inputs, inputs) for made in sets)
    assert sets[0].inputs.data_ptr() == inputs.data_ptr()
    other = inputs.clone()
    other[3] = other[4]
    different = [((other, Y), "train"), ((inputs, Y.flip(0)), "train"), ((inputs, Y), "test"),
                 ((inputs.float() if inputs.dtype != torch.float32 else inputs.double(), Y), "train")]  # fmt: skip
    prints = {TensorSet.of(data, "mine", split).fingerprint for data, split in different}
    assert len(prints | {sets[0].fingerprint}) == 5


def test_frames_are_cut_along_their_images() -> None:
    made = TensorSet.of((FRAMES, Y), "mine", "train")
    assert (made.axis, len(made)) == (1, 23)
    assert torch.equal(made.take([4, 2]).inputs, FRAMES[:, [4, 2]])
    assert torch.equal(made.first(3).inputs, FRAMES[:, :3])
    assert torch.equal(TensorSet.of(cut(FRAMES, 1), "mine", "train").inputs, FRAMES)
    walked = list(made.batches(10))
    assert [batch.shape[1] for batch, _ in walked] == [10, 10, 3]
    assert torch.equal(torch.cat([batch for batch, _ in walked], 1), FRAMES)
    inputs, labels = Feed(made, torch.device("cpu"), True).cut(torch.tensor([7, 1]))
    assert torch.equal(inputs, FRAMES[:, [7, 1]])
    assert labels.tolist() == [3, 1]


def test_it_is_held_out_by_class() -> None:
    rest, valid = hold_out(TensorSet.of((X, Y), "mine", "train"), 8, seed=0)
    assert (len(rest), len(valid), valid.split) == (15, 8, "valid")
    assert valid.labels.bincount().tolist() == [2, 2, 2, 2]
    rows = torch.cat([rest.inputs, valid.inputs]).flatten(1)
    assert torch.equal(rows[rows[:, 0].argsort()], X.flatten(1)[X[:, 0, 0].argsort()])


def test_a_network_trains_on_it_and_is_told_what_needs_images() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(15, 4))
    made = TensorSet.of((X, Y), "mine", "train")
    before = copy.deepcopy(model.state_dict())
    recipe = {"epochs": 2, "lr": 0.1, "batch_size": 8, "warmup_epochs": 0}
    train(model, made, None, Recipe(**recipe))
    assert not torch.equal(before["1.weight"], model[1].weight)
    with pytest.raises(Exception, match=r"pad, flip and cutout are for an isofire\.data\.ImageSet, mine holds tensors"):
        train(model, made, None, Recipe(**recipe, flip=True))


class Growing:
    """Batches that differ each time, as shuffled and augmented ones do."""

    def __iter__(self):
        yield torch.rand(5, 3), Y[:5]


@pytest.mark.parametrize(("data", "message"), [
    (DataLoader(TensorDataset(X, Y), 4, shuffle=True, generator=torch.Generator().manual_seed(1)), "shuffle=False"),
    (Growing(), "no random augmentation"),
    ((X, Y[:-3]), "20 labels need as many inputs"),
    ((X, torch.nn.functional.one_hot(Y)), r"labels.argmax\(1\)"),
    # argmax would make every label 0
    ((X, Y[:, None]), r"give labels.squeeze\(1\)"),
    ((X, Y.float()), r"give labels.long\(\)"),
    ((X.numpy(), Y.numpy()), r"torch.from_numpy\(inputs\)"),
    ((X.tolist(), Y.tolist()), r"torch.as_tensor\(inputs\)"),
    (list(TensorDataset(X, Y)), "a single sample: give them stacked"),
    (X, r"labels belong to it, \(inputs, labels\)"),
    ((torch.rand(4, 4), torch.arange(4)), "another number of samples"),
    ([(X[:4], Y[:4]), (X[:4, :2], Y[:4])], "bring them to one shape"),
    ((X / 0 - X / 0, Y), "NaN or infinite"),
    ((X, Y - 1), "0 or more, got -1"),
    ([], "at least one image"),
])  # fmt: skip
def test_what_cannot_be_a_set_is_told_with_its_place_and_a_cure(data, message) -> None:
    with pytest.raises(DataError, match=message) as told:
        TensorSet.of(data, "nets:load", "train")
    assert "nets:load (train)" in str(told.value)


def test_batches_that_do_not_fit_in_memory_are_refused_before_they_do() -> None:
    size, seen = X[:5].numel() * 4, []

    class Large:
        def __iter__(self):
            for batch in cut(X):
                seen.append(batch)
                yield batch

    with pytest.raises(DataError, match=r"must fit in .* GiB"):
        TensorSet.of(Large(), "nets:load", "train", most_bytes=2 * size)
    assert len(seen) == 3
    # a pair is in memory already
    assert len(TensorSet.of((X, Y), "nets:load", "train", most_bytes=1)) == 23


def test_the_loaders_of_the_documents_give_one_content() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(compile(code, "docs/cli.md", "exec"), names)
    torch.manual_seed(0)
    pair = TensorSet.of(names["load"]("train"), "mine", "train")
    torch.manual_seed(0)
    images, labels = next(iter(names["load_as_bytes"]("train").batches(200)))
    assert torch.equal(labels, pair.labels)
    # a byte is a 255th, which std 0.25 makes four times as coarse
    assert (images - pair.inputs).abs().max() <= 0.51 * 4 / 255
