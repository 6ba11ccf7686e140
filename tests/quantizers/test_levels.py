"""Free levels and edges."""

from __future__ import annotations

import pytest
import torch
from scipy.cluster.vq import kmeans2

from isofire.errors import ModelError, SpecError
from isofire.quantizers import Levels, LQNet, RangeObserver, Table
from isofire.quantizers.lloyd import lloyd


def test_given_levels_and_edges() -> None:
    quantizer = Levels([-1.0, 0.0, 3.0], edges=[-0.9, 2.5])
    x = torch.tensor([-5.0, -0.9, -0.8999, 0.0, 2.5, 2.5001, 9.0])
    assert quantizer(x).tolist() == [-1, -1, 0, 0, 0, 3, 3]
    assert quantizer.codes(x).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert quantizer.bits == pytest.approx(1.58496, abs=1e-5)


def test_given_levels_stay_and_serve_any_number_of_channels() -> None:
    quantizer = Levels([-1.0, 1.0], granularity="channel", channel_axis=1)
    assert quantizer(torch.ones(2, 5, 3)).shape == (2, 5, 3)
    quantizer.calibrate(torch.full((2, 5, 3), 7.0))
    assert quantizer.levels().tolist() == [[-1, 1]] * 5


def test_a_table_per_channel_survives_a_state_dict() -> None:
    edges, levels = torch.tensor([[0.0], [0.5]]), torch.tensor([[-1.0, 1.0], [0.0, 1.0]])
    quantizer = Levels(2, granularity="channel", channels=2, channel_axis=1)
    quantizer.set_table(Table(edges, levels))
    x = torch.tensor([[0.4, 0.4], [0.0, 0.6]])
    assert quantizer(x).tolist() == [[1, 0], [-1, 1]]
    fresh = Levels(2, granularity="channel", channels=2, channel_axis=1)
    fresh.load_state_dict(quantizer.state_dict())
    assert torch.equal(fresh(x), quantizer(x))
    quantizer.calibrate(x)
    assert torch.equal(quantizer.levels(), levels)


def test_an_infinite_edge_shuts_a_bin_off() -> None:
    quantizer = Levels(3)
    quantizer.set_table(Table(torch.tensor([[-torch.inf, 0.0]]), torch.tensor([[-1.0, 0.0, 1.0]])))
    assert quantizer(torch.tensor([-3e38, 0.0, 1e-45])).tolist() == [0, 0, 1]


def test_gradient_passes_straight_through() -> None:
    for ste, expected in (("plain", [1, 1, 1, 1]), ("clipped", [0, 1, 1, 0])):
        x = torch.tensor([-2.0, -1.0, 0.3, 1.5]).requires_grad_()
        Levels([-1.0, 1.0], ste=ste)(x).sum().backward()
        assert x.grad.tolist() == expected


def test_lloyd_is_a_fixed_point_no_worse_than_scipys() -> None:
    x = torch.randn(1, 3000, generator=torch.Generator().manual_seed(3))
    for count in (2, 3, 4, 8):
        levels = lloyd(x, count)[0]
        edges = (levels[1:] + levels[:-1]) / 2
        place = torch.bucketize(x[0], edges)
        means = torch.stack([x[0][place == i].mean() for i in range(count)])
        torch.testing.assert_close(levels, means, rtol=1e-4, atol=1e-5)
        centres, label = kmeans2(x[0].numpy(), count, iter=300, seed=0, minit="++")
        other = float(((x[0].numpy() - centres[label]) ** 2).mean())
        assert float((x[0] - levels[place]).square().mean()) <= other * 1.02


def test_free_levels_beat_a_basis() -> None:
    # 2^K free levels can be whatever a basis spans
    x = torch.randn(4000, generator=torch.Generator().manual_seed(4)).abs() ** 2
    free, basis = Levels(4), LQNet(2, granularity="tensor", restarts=4)
    for quantizer in (free, basis):
        quantizer.calibrate(x)
    error = [float((quantizer.eval()(x) - x).square().mean()) for quantizer in (free, basis)]
    assert error[0] < error[1]


def test_fewer_values_than_levels() -> None:
    quantizer = Levels(4, granularity="channel")
    w = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    quantizer.calibrate(w)
    assert torch.equal(quantizer(w), w)


def test_from_an_observer() -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(5))
    layout = {"granularity": "channel", "channel_axis": 1}
    observer = RangeObserver(**layout)
    for part in x.split(16):
        observer.observe(part)
    streamed, whole = Levels(4, **layout), Levels(4, **layout)
    streamed.calibrate_from(observer)
    whole.calibrate(x)
    assert torch.equal(streamed.levels(), whole.levels())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": [1.0]}, "2 to 256 levels, got 1"),
        ({"levels": 257}, "2 to 256 levels, got 257"),
        ({"levels": True}, "levels"),
        ({"levels": [0.0, 0.0]}, "ascend strictly"),
        ({"levels": [1.0, 0.0]}, "ascend strictly"),
        ({"levels": [1.0, 1.0 + 1e-9]}, "as float32 numbers"),
        ({"levels": [0.0, float("nan")]}, "finite"),
        ({"levels": [0.0, 1e39]}, "2\\^126"),
        ({"levels": [0.0, 1.0], "edges": [0.1, 0.2]}, "2 levels have 1 edges"),
        ({"levels": [0.0, 1.0, 2.0], "edges": [0.5, 0.5]}, "edges must ascend"),
        ({"levels": 2, "edges": [0.5]}, "edges belong to given levels"),
        ({"levels": [0.0, 1.0], "ste": "soft"}, "ste must be"),
    ],
)
def test_wrong_settings(arguments: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Levels(**arguments)


def test_wrong_tables() -> None:
    quantizer = Levels(2)
    row = torch.tensor([[0.0, 1.0]])
    for table, message in (
        (Table(torch.zeros(1, 2), row), "one edge fewer"),
        (Table(torch.zeros(2, 1), row.repeat(2, 1)), "has one row"),
        (Table(torch.zeros(1, 1), row.flip(1)), "ascend"),
        (Table(torch.zeros(1, 1), row * torch.inf), "finite"),
        (Table(torch.full((1, 1), torch.nan), row), "finite"),
    ):
        with pytest.raises(SpecError, match=message):
            quantizer.set_table(table)
    with pytest.raises(ModelError, match="call calibrate"):
        quantizer.table()
