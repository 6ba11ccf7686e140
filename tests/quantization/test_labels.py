"""A row's label names what differs from a setting's defaults, and nothing else."""

import isofire
from isofire.quantization.labels import labels_of


def test_an_option_at_its_default_is_not_in_the_label():
    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 2})
    assert labels_of(spec)["options"] is None


def test_an_option_that_differs_is():
    spec = isofire.QuantSpec(weights={"method": "gptq", "bits": 2, "options": {"grid": "midtread"}, "sweeps": 3})
    assert labels_of(spec)["options"] == "options={'grid': 'midtread'} sweeps=3"
