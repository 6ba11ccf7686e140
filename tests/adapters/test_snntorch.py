"""What snnTorch's neurons refuse beyond the contract."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from isofire import QuantSpec
from isofire.errors import ModelError
from isofire.quantization import prepare_

snntorch: Any = pytest.importorskip("snntorch", reason="snntorch is not installed", exc_type=ImportError)


def test_a_neuron_that_resets_at_the_next_step_stores_no_state_after_its_reset() -> None:
    spec = QuantSpec(membrane={"bits": 4, "range": [-2, 2], "placement": "post_reset"})
    with pytest.raises(ModelError, match="'0' cannot be quantized at post_reset: the neuron resets at the next step"):
        prepare_(nn.Sequential(snntorch.Leaky(beta=0.5, init_hidden=True)), spec)
    prepare_(nn.Sequential(snntorch.Leaky(beta=0.5, init_hidden=True, reset_delay=False)), spec)
