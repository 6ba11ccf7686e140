"""Whether a network is better than guessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from isofire.firing.evidence.chance import Chance
from isofire.firing.evidence.kept import kept


def test_guessing_is_what_the_same_answers_in_another_order_are_right_on() -> None:
    """The mean over many shuffles, of answers and labels of unequal classes."""
    rng = np.random.default_rng(0)
    labels, answers = rng.choice(4, 300, p=[0.6, 0.2, 0.1, 0.1]), rng.choice(4, 300, p=[0.1, 0.2, 0.3, 0.4])
    shuffled = np.mean([(rng.permutation(answers) == labels).mean() for _ in range(4000)])
    found = Chance.of(torch.from_numpy(answers), torch.from_numpy(labels))
    assert found.guessing == pytest.approx(shuffled, abs=0.002)
    ends = binomtest(found.right, 300).proportion_ci(0.95, "exact")
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((ends.low, ends.high), abs=1e-9)


def test_one_answer_is_no_knowledge_however_often_it_is_right() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert not Chance.of(torch.zeros(100, dtype=torch.int64), labels).is_above
    # 85 % and some of the rare class is knowledge, although the largest class alone is 90 %
    knows = torch.tensor([0] * 80 + [1] * 10 + [1] * 10)
    assert Chance.of(knows, labels).is_above


def test_guessers_are_doubted_nineteen_times_in_twenty_and_trained_networks_never() -> None:
    rng, doubted, accused = np.random.default_rng(1), 0, 0
    for _ in range(400):
        labels = torch.from_numpy(rng.integers(0, 10, 200))
        guess = torch.from_numpy(rng.integers(0, 10, 200))
        knows = torch.where(torch.from_numpy(rng.random(200) < 0.4), labels, guess)
        doubted += Chance.of(guess, labels).doubt is not None
        accused += Chance.of(knows, labels).doubt is not None
    assert doubted >= 0.95 * 400
    assert accused == 0


def test_images_of_one_class_cannot_tell() -> None:
    labels = torch.full((50,), 7)
    assert Chance.of(labels, labels).is_above
    assert not Chance.of(labels - 1, labels).is_above


def test_a_silent_network_is_no_reference_although_it_is_right() -> None:
    labels = torch.arange(100) % 10
    doubt = Chance.of(labels, labels, silent=True).doubt
    assert doubt is not None
    assert doubt.startswith("its neurons never fire on these images")


def test_rows_of_a_guessing_baseline_keep_no_accuracy_and_may_fail() -> None:
    row = {"n_images": 500, "accuracy_fp": 0.1, "accuracy": 0.1, "images_lost": 0, "images_won": 0, "mfr_fp": 0.1}
    assert kept([row], [None]).accuracy == "keeps"
    assert kept([{**row, "accuracy_chance": 0.1}], [None]).accuracy == "undecided"
    assert kept([{**row, "accuracy_chance": 0.1, "images_lost": 50}], [None]).accuracy == "fails"
    assert kept([{**row, "accuracy_fp": 0.9, "accuracy_chance": 0.1}], [None]).accuracy == "keeps"
    assert kept([row, {**row, "accuracy_chance": 0.1}], [None, None]).accuracy == "undecided"
