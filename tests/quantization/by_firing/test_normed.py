"""Which layers' outputs a norm takes alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from isofire.quantization.by_firing.normed import normed_layers


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 3)
        self.na, self.nb = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def end(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


class Plain(_Network):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.na(self.a(x)))
        return self.end(self.nb(self.b(x).unsqueeze(0).flatten(0, 1)))


class Shortcut(_Network):
    """The norm before the activation: the sum goes on beside it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.end(x + self.nb(self.b(torch.relu(self.na(x)))))


class AddedInPlace(_Network):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.na(self.a(x)))
        y = self.b(x)
        y += x
        return self.end(self.nb(y))


class OneNorm(_Network):
    """Two layers share a norm: only one of them can be scaled by it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.na(self.b(torch.relu(self.na(self.a(x))))))


class Activated(_Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.nb(self.b(self.na(torch.relu(self.a(x))))))


class Returned(_Network):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(torch.relu(self.na(self.a(x))))
        return self.end(self.nb(y)), y.flatten(1)


class Stepwise(_Network):
    def forward(self, x: Tensor) -> Tensor:
        return sum(self.end(self.nb(self.b(torch.relu(self.na(self.a(x)))))) for _ in range(3))


class Maps(_Network):
    """A linear layer's outputs as maps: a norm's channel is four of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 8), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.na(self.a(x.flatten(1)).view(-1, 2, 2, 2)))
        return self.end(self.nb(self.b(x)))


class Tokens(_Network):
    """A norm whose channels are the tokens, as many as outputs; one that is given the outputs as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 2), nn.Linear(2, 2), nn.Linear(2, 3)
        self.na, self.nb = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.na(self.a(x.view(-1, 2, 8))))
        return self.head(self.nb(self.b(x).transpose(1, 2)).mean(2))


class Instances(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.na, self.nb = (nn.InstanceNorm2d(2, track_running_stats=True) for _ in range(2))


class Flipped(_Network):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.na(self.a(x)))
        return self.end(self.nb(self.b(x).flip(1)))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (Plain, {"a", "b"}),
        (Shortcut, {"b"}),
        (AddedInPlace, {"a"}),
        (OneNorm, set()),
        (Activated, {"b"}),
        (Returned, {"a"}),
        (Stepwise, {"a", "b"}),
        (Maps, {"b"}),
        (Tokens, {"b"}),
        (Instances, {"a", "b"}),
        # it would be: flipping makes a copy, which is another reader
        (Flipped, {"a"}),
    ],
)
def test_a_scale_is_taken_back_where_a_norm_alone_reads(kind: type[_Network], wanted: set[str]):
    torch.manual_seed(0)
    model = kind()
    x = torch.rand(2, 1, 4, 4)
    found = normed_layers(model, [x], ["a", "b", "head"])
    assert found == wanted
    # what it is for: factors on the outputs change nothing once the norms are measured anew, and something elsewhere
    for name in ("a", "b"):
        before, after = (_measured(model, x, {}), _measured(model, x, {name: 3.0}))
        same = all(torch.allclose(one, two, atol=1e-3) for one, two in zip(before, after, strict=True))
        assert same or name not in found


def _measured(model: nn.Module, x: Tensor, factors: dict[str, float]) -> list[Tensor]:
    """What the network returns with each output of these layers multiplied by its own, its norms by the batch."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, factor in factors.items():
            for value in model.get_submodule(name).parameters():
                value.mul_(torch.linspace(factor, 4 * factor, len(value)).view(-1, *(1,) * (value.ndim - 1)))
        found = model.train()(x)
    model.eval().load_state_dict(state)
    return list(found) if isinstance(found, tuple) else [found]
