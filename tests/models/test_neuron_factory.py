"""Neurons from plain settings."""

from __future__ import annotations

from typing import Any

import pytest

from isofire.errors import SpecError
from isofire.models.sew_resnet import neuron_factory
from isofire.neurons import IF, LIF, ATan, ParametricLIF, Sigmoid, Triangle


def test_each_call_makes_a_new_layer_with_the_settings() -> None:
    make = neuron_factory("lif", {"tau": 3.0, "v_reset": None, "detach_reset": True}, "sigmoid", 2.5)
    one, two = make(), make()
    assert one is not two
    assert isinstance(one, LIF)
    assert one.dynamics == two.dynamics == LIF(3.0, v_reset=None, detach_reset=True, surrogate=Sigmoid(2.5)).dynamics


def test_names() -> None:
    assert isinstance(neuron_factory("if", {}, "atan", None)(), IF)
    plif = neuron_factory("plif", {"init_tau": 4.0}, "triangle", None)()
    assert isinstance(plif, ParametricLIF)
    assert plif.decay().item() == pytest.approx(0.25)
    assert plif.dynamics.surrogate == Triangle(1.0)
    assert neuron_factory("if", {"backend": "torch"}, "atan", 2.5)().dynamics.surrogate == ATan(2.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("izhikevich", {}, "atan", None), "unknown neuron 'izhikevich'; known: cuba_lif, if, lif, plif"),
        (("if", {"tau": 2.0}, "atan", None), "neuron_options for 'if': .*unexpected keyword argument 'tau'"),
        (("lif", {"taus": 2.0}, "atan", None), "neuron_options for 'lif': .*unexpected keyword argument 'taus'"),
        (("lif", {"tau": "2"}, "atan", None), "neuron_options for 'lif'"),
        (("lif", {"surrogate": "sigmoid"}, "atan", None), "neuron_options for 'lif': .*'surrogate'"),
        (("lif", {"tau": 0.5}, "atan", None), "tau must be finite and at least 1"),
        (("lif", {"backend": "gpu"}, "atan", None), "backend must be one of"),
        (("lif", {}, "step", None), "surrogate must be one of atan, sigmoid, triangle, got 'step'"),
        (("lif", {}, "atan", -1.0), "alpha must be positive and finite, got -1.0"),
    ],
)
def test_bad_settings_are_found_before_a_layer_is_made(arguments: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        neuron_factory(*arguments)
