"""Limits are numbers, whatever library they are of, and are told what is none."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isofire.errors import SpecError
from isofire.firing.limits import Limits
from isofire.firing.verdict import check
from isofire.neurons import LIF

NUMBERS = (
    2, 2.0, np.float16(2), np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0), torch.tensor([2]), Decimal(2),
    Fraction(2),
)  # fmt: skip
NONE = (
    True, np.bool_(True), torch.tensor(True), "2", np.array("2"), b"2", 2j, [2.0], np.array([1.0, 2.0]),
    Decimal("sNaN"), 10**400,
)  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_what_is_a_number_becomes_a_float(number: Any) -> None:
    limits = Limits(drift=number, most={"emd": number}, multiples={"paired_mae": number})
    for found in (limits.drift, *limits.most.values(), *limits.multiples.values()):
        assert (type(found), found) == (float, 2.0)


def test_what_was_given_is_left_as_it_is() -> None:
    given = {"emd": np.float32(0.5)}
    limits = Limits(most=given)
    given["emd"] = np.float32(0.7)
    assert limits.most == {"emd": 0.5}


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    for limits, place in (({"drift": value}, "drift is"), ({"most": {"emd": value}}, r"most\['emd'\] is")):
        with pytest.raises(SpecError, match=f"a limit must be a number, {place} .*; numbers are not in quotes"):
            Limits(**limits)


@pytest.mark.parametrize("given", [3, [("emd", 0.1)], None, "emd"])
@pytest.mark.parametrize("kind", ["most", "least", "multiples"])
def test_limits_of_measures_that_are_no_dictionary_are_refused_by_name(kind: str, given: Any) -> None:
    with pytest.raises(SpecError, match=f"must be a dictionary by their names, {kind} is .*; write {kind}="):
        Limits(**{kind: given})


@pytest.mark.parametrize("limits", [
    {"drift": np.float32(2)}, {"synops": np.float32(2)}, {"state_bytes": np.int64(3)}, {"most": {"emd": np.float32(2)}},
])  # fmt: skip
def test_a_verdict_by_numbers_of_numpy_can_be_written(limits: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.Unflatten(0, (1, -1)), LIF(v_threshold=0.3), nn.Flatten(0, 1)).eval()
    verdict = check(net, net, (torch.rand(40, 6), torch.arange(40) % 3), Limits(**limits))
    assert json.loads(json.dumps(verdict.to_dict()))["outcome"] == verdict.outcome
