"""`isofire blame`: a line a quantizer, and everything as JSON."""

from __future__ import annotations

import json

import torch

from isofire.models import build, save_model


def test_every_quantizer_is_named(run, tmp_path):
    torch.manual_seed(0)
    file = save_model(
        tmp_path / "fp.safetensors", build({"builder": "sew_resnet8", "width": 0.25, "T": 2, "in_channels": 1})
    )
    config = tmp_path / "blame.toml"
    config.write_text(
        '[data]\nname = "digits"\n[quant.membrane]\nbits = 2\nrange = [0, 1]\nplacement = "pre_fire"\n'
        '[[quant.rules]]\nmatch = "re:stages.*"\nmembrane = "float"\n'
        '[[quant.rules]]\nmatch = "stages.0.0.conv1"\nweights = { method = "lsq", bits = 2 }\n'
        "[calibration]\nimages = 32\n"
    )
    result = run("blame", file, "-c", config, "--n", 50, "--device", "cpu", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [item["name"] for item in found["quantizers"]] == ["stem_sn", "stages.0.0.conv1"]
    stem = found["quantizers"][0]["alone"]["emds"]
    assert stem["stem_sn"] > 0
    assert found["everything"]["emds"].keys() == stem.keys()
    wrong = run("blame", file, "-c", config, "--n", 0)
    assert (wrong.code, "--n must lie in 1.." in wrong.err) == (2, True)
