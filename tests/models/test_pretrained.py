"""Networks that come with the package."""

from __future__ import annotations

import pytest

from isofire.errors import SpecError
from isofire.models import pretrained
from isofire.models.pretrained import REGISTER


def test_an_unknown_name() -> None:
    with pytest.raises(SpecError, match="no pretrained network is called 'sew_resnet1001'; there are: "):
        pretrained("sew_resnet1001")


def test_every_registered_network_loads() -> None:
    if not REGISTER:
        pytest.skip("no network is registered yet")
    for name in REGISTER:
        model = pretrained(name)
        assert not model.training
        assert all(value.isfinite().all() for value in model.state_dict().values()), name
