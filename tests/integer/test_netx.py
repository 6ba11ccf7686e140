"""lava-dl's netx files: read as they are written, run as Loihi runs them, damaged ones refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isofire.errors import CheckpointError, ModelError
from isofire.export import read_bundle, write_bundle
from isofire.integer import read_netx

h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed", exc_type=ImportError)

NEURON = {"type": "CUBA", "iDecay": 1024, "vDecay": 511, "vThMant": 200, "refDelay": 1, "gradedSpike": False}


def block(group: Any, kind: str, shape: tuple[int, ...], neuron: dict[str, Any] | None = None, **values: Any) -> None:
    """A block, data set by data set, as lava-dl's `export_hdf5` of blocks writes it."""
    group.create_dataset("type", (1,), "S10", [kind.encode("ascii")])
    group.create_dataset("shape", data=np.array(shape))
    for key, value in values.items():
        group.create_dataset(key, data=value)
    for key, value in (NEURON | (neuron or {})).items():
        group.create_dataset(f"neuron/{key}", data=value)


def golden(path: Path, **neuron: Any) -> Path:
    """The two neurons of tests/integer/nets.py."""
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        block(layer.create_group("0"), "dense", (2,), neuron, weight=np.array([[124.0, -60.0], [36.0, 100.0]]))
    return path


def test_the_golden_neurons_of_lava_fire_in_the_same_steps(tmp_path: Path) -> None:
    network = read_netx(golden(tmp_path / "net.net"))
    x = torch.tensor([[1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]]).T.unsqueeze(1)
    fired = network.aligned(x).spikes["layer0"][:, 0]
    assert [t for t in range(12) if fired[t, 0]] == [3, 4, 6]
    assert [t for t in range(12) if fired[t, 1]] == [2, 4, 6, 8]
    # a step later on the chip, as lava's Dense is
    assert [t for t in range(12) if network.run(x).spikes["layer0"][t, 0, 0]] == [4, 5, 7]


def images(path: Path) -> Path:
    rng = np.random.default_rng(0)
    kernels = 2.0 * rng.integers(-60, 61, (3, 2, 3, 3))
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        block(layer.create_group("0"), "input", (2, 6, 5))
        block(
            layer.create_group("1"), "conv", (3, 4, 3), {"vThMant": 60}, weight=kernels,
            inChannels=2, outChannels=3, kernelSize=np.array([3, 3]), stride=np.array([1, 1]),
            padding=np.array([0, 0]), dilation=np.array([1, 1]), groups=1, bias=np.array([3.0, 0.0, -2.0]),
        )  # fmt: skip
        layer.create_group("2").create_dataset("type", (1,), "S10", [b"flatten"])
        block(
            layer.create_group("3"), "dense", (4,), {"vThMant": 80}, weight=2.0 * rng.integers(-60, 61, (4, 36)),
            delay=np.zeros(4),
        )  # fmt: skip
    return path


def simulated(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """The two layers in Python's integers, loop by loop, without the delays between them."""
    with h5py.File(path) as file:
        conv, dense = (file["layer"][place]["weight"][()].astype(int) for place in ("1", "3"))
        bias = file["layer"]["1"]["bias"][()].astype(int)

    def zero(value: int, kept: int) -> int:
        return (abs(value) * kept >> 12) * (1 if value >= 0 else -1)

    state = [np.zeros((2, 36), dtype=int), np.zeros((2, 4), dtype=int)]
    found: list[list[list[int]]] = [[], []]
    before = [0] * 36
    for t in range(len(x) + 1):
        now = []
        for o in range(3):
            for r in range(4):
                for c in range(3):
                    now.append(int((conv[o] * x[t, :, r : r + 3, c : c + 3]).sum()) if t < len(x) else 0)
        arriving = [now, (dense @ np.array(before)).tolist()]
        for layer, (size, threshold) in enumerate(((36, 60), (4, 80))):
            fired = []
            for k in range(size):
                u, v = (int(part[k]) for part in state[layer])
                u = zero(u, 4096 - 1024) + (arriving[layer][k] << 6)
                v = zero(v, 4096 - 511) + u + ((int(bias[k // 12]) << 6) if layer == 0 else 0)
                fires = v > threshold << 6
                state[layer][0][k], state[layer][1][k] = u, 0 if fires else v
                fired.append(int(fires))
            found[layer].append(fired)
        before = found[0][-1]
    return [np.array(rows) for rows in found]


def test_convolutions_and_dense_layers_run_as_loops_over_their_numbers(tmp_path: Path) -> None:
    path = images(tmp_path / "net.net")
    network = read_netx(path)
    assert network.input_shape == (2, 6, 5)
    x = (np.random.default_rng(3).random((20, 2, 6, 5)) < 0.4).astype(int)
    trace = network.run(torch.from_numpy(x).unsqueeze(1))
    fired = trace.spikes["layer1"][:, 0].flatten(1).numpy()
    assert 0.02 < fired.mean() < 0.9
    # the input is a step on its way, in which biases act already
    first, second = simulated(path, np.concatenate([np.zeros((1, 2, 6, 5), dtype=int), x])[:20])
    assert np.array_equal(fired, first[:20])
    assert np.array_equal(trace.spikes["layer3"][:, 0].numpy(), second[:20])
    write_bundle(tmp_path / "codes", network, torch.from_numpy(x).unsqueeze(1))
    given = torch.from_numpy(x).unsqueeze(1).float()
    assert torch.equal(read_bundle(tmp_path / "codes")(given), network(given))


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        ({"type": "SDNN"}, "type 'SDNN'"), ({"refDelay": 3}, "refractory delay of 3"),
        ({"gradedSpike": True}, "graded spikes"), ({"vThMant": 1.5}, "vThMant must be whole"),
    ],
)  # fmt: skip
def test_neurons_that_are_not_known_are_named(neuron: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        read_netx(golden(tmp_path / "net.net", **neuron))


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        ({"vThMant": 0}, r"layer0: vThMant must lie in 1\.\.131,071, as the chip's do, got 0"),
        ({"vThMant": 200000}, "vThMant must lie .* got 200,000"), ({"vDecay": 5000}, r"vDecay must lie in 0\.\.4,096"),
        ({"iDecay": -1}, r"iDecay must lie in 0\.\.4,096, as the chip's do, got -1"),
    ],
)  # fmt: skip
def test_numbers_that_the_chip_does_not_have_are_named(neuron: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        read_netx(golden(tmp_path / "net.net", **neuron))


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([[3, -60], [36, 100]], "layer0 has weights of both signs, which are even on the chip, and 3 among them"),
        ([[256, -60], [36, 100]], r"layer0 has weights -60\.\.256; those of both signs lie in -256\.\.254"),
        ([[256, 60], [36, 100]], r"weights 36\.\.256; those of one sign lie in -255\.\.255"),
        ([[-256, -60], [-1, 0]], r"those of one sign lie in -255\.\.255"),
    ],
)
def test_weights_on_which_simulators_disagree_are_refused(weight: list[list[int]], said: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.net", "w") as file:
        block(file.create_group("layer").create_group("0"), "dense", (2,), weight=np.array(weight, dtype=float))
    with pytest.raises(ModelError, match=said):
        read_netx(tmp_path / "net.net")


@pytest.mark.parametrize("weight", [[[255, 1], [3, 0]], [[-255, -1], [0, -3]], [[254, -256], [-2, 0]]])
def test_weights_at_the_ends_of_their_ranges_are_read(weight: list[list[int]], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.net", "w") as file:
        block(file.create_group("layer").create_group("0"), "dense", (2,), weight=np.array(weight, dtype=float))
    assert read_netx(tmp_path / "net.net").connections[0].weight.tolist() == weight


def test_layers_whose_sizes_do_not_fit_are_refused(tmp_path: Path) -> None:
    def made(*blocks: tuple[str, tuple[int, ...], dict[str, Any]]) -> Path:
        with h5py.File(tmp_path / "net.net", "w") as file:
            layer = file.create_group("layer")
            for place, (kind, shape, more) in enumerate(blocks):
                block(layer.create_group(str(place)), kind, shape, **more)
        return tmp_path / "net.net"

    sizes = {"stride": np.array([1, 1]), "padding": np.array([0, 0]), "dilation": np.array([1, 1]), "groups": 1}
    kernel = {"weight": np.full((3, 2, 3, 3), 2.0), **sizes}
    six, four = {"weight": np.full((6, 4), 2.0)}, {"weight": np.full((3, 4), 2.0)}
    with pytest.raises(ModelError, match=r"layer1 has weights for 4 inputs, and layer0 gives \[6\]"):
        read_netx(made(("dense", (6,), six), ("dense", (3,), four)))
    with pytest.raises(ModelError, match=r"layer1 has weights for 2 channels, and input gives \[1, 6, 5\]"):
        read_netx(made(("input", (1, 6, 5), {}), ("conv", (3, 4, 3), kernel)))
    with pytest.raises(ModelError, match=r"layer1 has neurons \[3, 4, 4\], and its convolution gives \[3, 4, 3\]"):
        read_netx(made(("input", (2, 6, 5), {}), ("conv", (3, 4, 4), kernel)))
    with pytest.raises(ModelError, match=r"layer0: bias of shape \[5\] does not fit neurons \[6\]; export"):
        read_netx(made(("dense", (6,), six | {"bias": np.zeros(5)})))
    with pytest.raises(ModelError, match="layer0 has no weights"):
        read_netx(made(("dense", (1,), {"weight": np.zeros((0, 4))})))


def test_blocks_and_delays_that_are_not_known_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "pool.net", "w") as file:
        block(file.create_group("layer").create_group("0"), "pool", (2,))
    with pytest.raises(ModelError, match="block 'pool'"):
        read_netx(tmp_path / "pool.net")
    with h5py.File(tmp_path / "delay.net", "w") as file:
        group = file.create_group("layer").create_group("0")
        block(group, "dense", (2,), weight=np.ones((2, 3)), delay=np.array([0.0, 4.0]))
    with pytest.raises(ModelError, match="delays spikes by up to 4 steps"):
        read_netx(tmp_path / "delay.net")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = golden(tmp_path / "net.net")
    content = path.read_bytes()
    (tmp_path / "cut.net").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.net").write_text("layer")
    with h5py.File(tmp_path / "empty.net", "w") as file:
        file.create_group("other")
    with h5py.File(tmp_path / "half.net", "w") as file:
        group = file.create_group("layer").create_group("0")
        group.create_dataset("type", (1,), "S10", [b"dense"])
    with h5py.File(tmp_path / "link.net", "w") as file:
        file["layer"] = h5py.ExternalLink("net.net", "layer")
    for name in ("cut", "text", "empty", "half", "link", "none"):
        with pytest.raises(CheckpointError, match="netx file"):
            read_netx(tmp_path / f"{name}.net")


@pytest.mark.parametrize("weight", [np.inf, 1e300, 1000.0])
def test_weights_that_no_chip_holds_are_refused(weight: float, tmp_path: Path) -> None:
    path = tmp_path / "net.net"
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        block(layer.create_group("0"), "dense", (2,), weight=np.array([[weight, -60.0], [36.0, 100.0]]))
    with pytest.raises(ModelError, match=r"layer0: weight must lie within \+-256"):
        read_netx(path)
