"""Levels of each channel where a network's channels lie on the last axis."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.neurons import LIF
from isofire.spec import QuantSpec

METHODS = [
    {"bits": 3, "range": "minmax", "placement": "post_reset"},
    {"method": "firing", "bits": 2},
    {"method": "lsq", "bits": 2},
]


class Tokens(nn.Module):
    def __init__(self, moved: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.n0, self.last, self.moved = nn.Linear(6, 7), LIF(), nn.Linear(7, 2), moved
        with torch.no_grad():
            self.first.weight.mul_(torch.linspace(0.5, 6.0, 7)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        currents = self.first(x).expand(4, *x.shape[:-1], -1)
        spikes = self.n0(currents.transpose(2, 3)).transpose(2, 3) if self.moved else self.n0(currents)
        return self.last(spikes).mean(2)


def quantized(model: nn.Module, method: dict, images: Tensor, granularity: str = "channel") -> nn.Module:
    return isofire.quantize_(model.eval(), QuantSpec(membrane={**method, "granularity": granularity}), images)


@pytest.mark.parametrize("method", METHODS)
def test_levels_of_tokens_are_named(method: dict, caplog: pytest.LogCaptureFixture) -> None:
    images = torch.randn(40, 5, 6)
    with caplog.at_level(logging.WARNING):
        model = quantized(Tokens(moved=False), method, images)
    # as many as tokens, not as outputs
    assert model.n0.membrane.quantizer.levels().shape[0] == 5
    assert "'n0' (one for each of 5 of a step [N, 5, 7], behind 'first')" in caplog.text
    assert "granularity = 'tensor'" in caplog.text


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_said_where_channels_are_where_they_are_thought_or_levels_are_the_layers(
    method: dict, caplog: pytest.LogCaptureFixture
) -> None:
    images = torch.randn(40, 5, 6)
    with caplog.at_level(logging.WARNING):
        moved = quantized(Tokens(moved=True), method, images)
        quantized(Tokens(moved=False), method, images, "tensor")
    assert moved.n0.membrane.quantizer.levels().shape[0] == 7
    assert "axis 1 of a step" not in caplog.text


def test_the_plan_says_what_a_channel_is() -> None:
    told = "channels of a membrane: axis 1 of a step [N, C, ...]; of tokens [N, L, D], the tokens"
    for granularity in ("channel", "tensor"):
        spec = QuantSpec(membrane={"bits": 4, "granularity": granularity})
        plan = isofire.explain(Tokens(moved=False), spec)
        assert (told in str(plan)) == (told in plan._repr_html_()) == (granularity == "channel")
