"""What one network did comes back from its files as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from isofire.firing import Observation, observe
from isofire.firing.cost import SynopsPerSpike
from isofire.neurons import LIF


class BesideEvents(nn.Module):
    """A layer to which spikes and events of the input come together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Linear(6, 6), LIF(v_threshold=0.3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.expand(4, -1, -1)
        return self.b(torch.cat([self.n(self.a(steps)), steps], 2))


def _seen() -> Observation:
    events = torch.randint(0, 3, (20, 6), generator=torch.Generator().manual_seed(0)).float()
    return observe(BesideEvents().eval(), (events, torch.arange(20) % 3))


def test_all_that_is_known_of_a_spikes_cost_is_stored(tmp_path: Path) -> None:
    seen = _seen()
    seen.save(tmp_path)
    before, after = seen.reached, Observation.load(tmp_path).reached
    assert isinstance(before, SynopsPerSpike)
    assert isinstance(after, SynopsPerSpike)
    assert before.beside_spikes == ("b",)
    for name in set(vars(before)) - {"_weights"}:
        assert getattr(after, name) == getattr(before, name), name
    assert after.by_input == before.by_input
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_files_from_before_it_was_stored_are_read(tmp_path: Path) -> None:
    _seen().save(tmp_path)
    path = tmp_path / "predictions.safetensors"
    with safe_open(path, framework="pt") as file:
        about = msgspec.json.decode(file.metadata()["isofire"])
    assert about.pop("beside_spikes") == ["b"]
    save_file(load_file(path), path, metadata={"isofire": msgspec.json.encode(about).decode()})
    found = Observation.load(tmp_path).reached
    assert isinstance(found, SynopsPerSpike)
    assert found.beside_spikes == ()
