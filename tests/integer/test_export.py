"""Networks taken away: a bundle that numpy reads, a C program that strict compilers take; equal numbers."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isofire
from isofire.errors import DataError, ModelError, OutputError, SpecError
from isofire.export import read_bundle, write_bundle, write_c
from isofire.export.bundle import sum_of
from isofire.integer import INPUT, Connection, HardwareSpec, IntegerNetwork, Population, lower
from isofire.neurons import IF, LIF, CubaLIF, PerStep, Recurrent, Repeat


def images(count: int = 40) -> Tensor:
    return next(iter(isofire.data.load("digits", "test").first(count).batches(count)))[0]


def digits_network(neuron: Any, bits: int | None = 9, **spec: Any) -> IntegerNetwork:
    torch.manual_seed(1)
    model = nn.Sequential(
        Repeat(4), PerStep(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)), neuron(),
        PerStep(nn.AvgPool2d(2), nn.Conv2d(8, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)), neuron(),
        PerStep(nn.Flatten(), nn.Linear(32, 10)),
    )  # fmt: skip
    for _ in range(10):
        model.train()(images())
    spec = {"weights": {"method": "lsq", "bits": 4}, "first_layer": "quantize", "last_layer": "quantize"} | spec
    return lower(isofire.quantize_(model, isofire.QuantSpec(**spec), images()), images(), input_bits=bits)


def rows_network(neuron: Any, bits: int | None = 4) -> IntegerNetwork:
    """Digits row by row, 8 steps of 8 pixels, through a recurrent layer."""
    torch.manual_seed(1)
    net: nn.Module = nn.Sequential(
        PerStep(nn.Linear(8, 24)), Recurrent(neuron(), nn.Linear(24, 24)), PerStep(nn.Linear(24, 10))
    )  # fmt: skip
    if bits is not None:
        spec = isofire.QuantSpec(weights={"method": "lsq", "bits": bits}, first_layer="quantize", last_layer="quantize")
        net = isofire.quantize_(net, spec, inputs("recurrent"))
    return lower(net, inputs("recurrent"), input_bits=9)


def inputs(kind: str, count: int = 40) -> Tensor:
    """What a network of `NETWORKS` takes."""
    given = images(count)
    return given[:, 0].permute(1, 0, 2) if kind.startswith("recurrent") else given


FLOATS = {"first_layer": "float", "last_layer": "float"}
POST = {"bits": 4, "range": [-1, 1], "placement": "post_reset"}
PRE = {"bits": 5, "range": [-2, 2], "placement": "pre_fire"}
CHANNELS = torch.linspace(1.5, 4.0, 8).view(8, 1, 1)
NETWORKS: dict[str, Any] = {
    "lif": lambda: digits_network(lambda: LIF(2.0)),
    "lif-post": lambda: digits_network(lambda: LIF(2.0), membrane=POST),
    "lif-post-2": lambda: digits_network(lambda: LIF(2.0), membrane=POST | {"bits": 2}),
    "lif-post-3": lambda: digits_network(
        lambda: LIF(2.0), membrane=POST | {"bits": 3, "granularity": "channel", "range": "minmax"}
    ),
    "lif-pre-3": lambda: digits_network(lambda: LIF(2.0, v_threshold=0.5), membrane=PRE | {"bits": 3}),
    "current-post-2": lambda: digits_network(lambda: CubaLIF(4.0, 2.0), membrane=POST | {"bits": 2}),
    "lif-pre-soft": lambda: digits_network(lambda: LIF(3.0, v_reset=None), membrane=PRE),
    "current-before": lambda: digits_network(lambda: CubaLIF(4.0, 2.0)),
    "current-after": lambda: digits_network(lambda: CubaLIF(3.0, 5.0, synapse="after_decay", v_reset=None)),
    "current-late": lambda: digits_network(lambda: CubaLIF(CHANNELS, 2.5, synapse="before_input", decay_input=True)),
    "subtracts": lambda: digits_network(lambda: CubaLIF(4.0, 2.0, v_reset=None, v_subtract=1.25)),
    "if-several": lambda: digits_network(lambda: IF(v_reset=None, several=True, v_floor=-0.5)),
    "wide": lambda: digits_network(lambda: LIF(2.0), bits=None, **FLOATS),
    "recurrent": lambda: rows_network(lambda: LIF(2.0)),
    "recurrent-current": lambda: rows_network(lambda: CubaLIF(4.0, 2.0, v_reset=None, v_subtract=0.75)),
    "recurrent-late": lambda: rows_network(lambda: CubaLIF(3.0, 2.0, synapse="before_input")),
    "recurrent-floats": lambda: rows_network(lambda: IF(), bits=None),
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_c_program_gives_every_golden_number(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    codes = network.codes(inputs(kind, 12))
    assert all(spikes.double().mean() > 0 for spikes in network.run(codes).spikes.values())
    folder = write_c(tmp_path / "net", network, codes, "digits")
    strict = ["cc", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-O2"]
    strict += ["-fsanitize=undefined", "-fno-sanitize-recover"]
    files = [str(folder / "digits.c"), str(folder / "digits_test.c")]
    subprocess.run([*strict, *files, "-o", str(tmp_path / "run")], check=True)
    done = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n")


def compiles_for_32_bits(folder: Path) -> bool:
    """Whether the compiler has what a 32-bit program needs (gcc-multilib)."""
    (folder / "none.c").write_text("#include <stdint.h>\nint main(void) { return 0; }\n")
    done = subprocess.run(["cc", "-m32", "none.c", "-o", "none"], cwd=folder, capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    "kind", ["lif-post", "lif-post-3", "if-several", "current-before", "current-late", "wide", "recurrent"]
)
def test_the_c_program_is_the_same_on_32_bits(kind: str, tmp_path: Path) -> None:
    if not compiles_for_32_bits(tmp_path):
        pytest.skip("this compiler makes no 32-bit programs (gcc-multilib)")
    network = NETWORKS[kind]()
    folder = write_c(tmp_path / "net", network, network.codes(inputs(kind, 4)), "digits")
    files = [str(folder / "digits.c"), str(folder / "digits_test.c")]
    strict = ["cc", "-m32", "-std=c99", "-Wall", "-Werror", "-O2"]
    subprocess.run([*strict, *files, "-o", str(tmp_path / "run")], check=True)
    done = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n")


def test_spikes_take_a_byte_where_neurons_fire_once_a_step(tmp_path: Path) -> None:
    network = NETWORKS["lif"]()
    header = (write_c(tmp_path / "net", network, network.codes(images()[:1])) / "network.h").read_text()
    sizes = [part.size for part in network.populations.values()]
    assert all(f"uint8_t s{place}[{size}];" in header for place, size in enumerate(sizes))


@pytest.mark.parametrize("kind", ["lif-post-2", "lif-post-3", "lif-pre-3", "lif-post", "current-post-2"])
def test_membranes_on_levels_take_the_bits_of_their_number(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    header = (write_c(tmp_path / "net", network, network.codes(images()[:1])) / "network.h").read_text()
    bits = {"lif-post": 4, "lif-post-3": 3, "lif-pre-3": 3}.get(kind, 2)
    for place, part in enumerate(network.populations.values()):
        assert f"uint8_t v{place}[{math.ceil(part.size * bits / 8) + 2}]; /* " in header
        # a current has no levels
        assert ("_t i0[" in header) == (kind == "current-post-2")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_header_says_how_much_memory_it_takes(kind: str, tmp_path: Path) -> None:
    """As the compiler counts it: the state, and all constants as the object file holds them."""
    network = NETWORKS[kind]()
    folder = write_c(tmp_path / "net", network, network.codes(inputs(kind, 1)))
    header = (folder / "network.h").read_text()
    state, weights, others = (
        int(number.replace(",", ""))
        for number in re.findall(r"(?:State|weights|Other constants): ([\d,]+) bytes", header)
    )
    if shutil.which("nm") is None or sys.platform != "linux":
        pytest.skip("needs nm of binutils")
    size = '#include "network.h"\n#include <stdio.h>\nint main(void) { printf("%d", (int)sizeof(network_state)); }\n'
    (folder / "size.c").write_text(size)
    subprocess.run(["cc", "-std=c99", "size.c", "-o", "size"], cwd=folder, check=True)
    assert int(subprocess.run([str(folder / "size")], capture_output=True, check=True).stdout) == state
    subprocess.run(["cc", "-std=c99", "-O0", "-c", "network.c"], cwd=folder, check=True)
    table = subprocess.run(["nm", "-S", "network.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert sum(int(line.split()[1], 16) for line in table.splitlines() if " r " in line) == weights + others
    assert weights == sum(
        math.prod(link.weight.shape)
        * (1 if int(link.weight.abs().max()) < 128 else 2 if int(link.weight.abs().max()) < 2**15 else 4)
        for link in network.connections
    )


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_specks_arithmetic_has_a_c_program(tmp_path: Path) -> None:
    torch.manual_seed(0)

    def neurons() -> IF:
        return IF(v_reset=None, several=True, v_floor=-1.0, v_threshold=0.1)

    net = nn.Sequential(
        PerStep(nn.Conv2d(1, 4, 3, bias=False)), neurons(), PerStep(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)),
        neurons(),
    ).eval()  # fmt: skip
    x = torch.randint(0, 3, (8, 4, 1, 8, 8)).float()
    network = lower(net, x, hardware="speck2f", approximate=True)
    assert all(spikes.max() > 1 for spikes in network.run(network.codes(x)).spikes.values())
    folder = write_c(tmp_path / "speck", network, network.codes(x))
    strict = ["cc", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-fsanitize=undefined"]
    subprocess.run([*strict, "network.c", "network_test.c", "-o", "run"], cwd=folder, check=True)
    assert subprocess.run([str(folder / "run")], capture_output=True, text=True, check=True).stdout == "equal\n"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_changed_weight_is_seen_by_the_golden_vectors(tmp_path: Path) -> None:
    network = NETWORKS["lif"]()
    folder = write_c(tmp_path / "net", network, network.codes(images()[:4]), "digits")
    text = (folder / "digits.c").read_text()
    (folder / "digits.c").write_text(text.replace("w0[72] = {\n    ", "w0[72] = {\n    1 + ", 1))
    files = [str(folder / "digits.c"), str(folder / "digits_test.c")]
    subprocess.run(["cc", "-std=c99", *files, "-o", str(tmp_path / "run")], check=True)
    done = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "differs: image 0" in done.stdout


@pytest.mark.parametrize("kind", ["lif-post", "current-before"])
def test_the_digits_program_needs_less_than_64_kib_of_state(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    header = (write_c(tmp_path / "net", network, network.codes(images()[:1])) / "network.h").read_text()
    assert int(header.split("State: ")[1].split(" bytes")[0].replace(",", "")) < 65536


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_bundle_gives_the_network_back(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind]()
    codes = network.codes(inputs(kind, 3))
    again = read_bundle(write_bundle(tmp_path / "net", network, codes))
    assert torch.equal(again(inputs(kind)), network(inputs(kind)))
    assert again.notes == network.notes


def test_numpy_alone_reads_the_codes(tmp_path: Path) -> None:
    network = NETWORKS["lif"]()
    folder = write_bundle(tmp_path / "net", network, network.codes(images()[:2]))
    manifest = json.loads((folder / "manifest.json").read_text())
    about = manifest["connections"][0]["weight"]
    content = (folder / about["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == about["sha256"]
    # codes of 4 bits take 4 bits
    assert about["bits"] <= 4
    packed = np.load(folder / about["file"])
    bits = np.unpackbits(packed)[: 72 * about["bits"]].reshape(72, about["bits"])
    values = bits @ (1 << np.arange(about["bits"])[::-1]) + about["least"]
    assert values.tolist() == network.connections[0].weight.flatten().tolist()
    # those of the readout too, whose outputs have steps of their own
    assert manifest["connections"][-1]["weight"]["bits"] <= 4


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    network = NETWORKS["lif"]()
    folder = write_bundle(tmp_path / "net", network, network.codes(images()[:2]))
    file = folder / "connection0.weight.npy"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(DataError, match=r"connection0\.weight\.npy is damaged"):
        read_bundle(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"cannot read .*connection0\.weight\.npy: No such file"):
        read_bundle(folder)
    file.write_bytes(good)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["layers"][0]["reset"] = "subtract"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json is damaged: its sha256 is another"):
        read_bundle(folder)
    manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="does not give its golden vectors"):
        read_bundle(folder)
    del manifest["layers"][0]["shape"]
    manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="damaged"):
        read_bundle(folder)


def _with_another(place: tuple[Any, ...], value: Any, tmp_path: Path, *, sealed: bool) -> Path:
    """A bundle whose manifest holds another value at a place; sealed, its sha256 is that of the changed manifest."""
    network = NETWORKS["lif"]()
    folder = write_bundle(tmp_path / "net", network, network.codes(images()[:1]))
    manifest = at = json.loads((folder / "manifest.json").read_text())
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    if sealed:
        manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("input", "encoder", "step"), 0.5),
        (("readout", "scale"), 2.0),
        (("layers", 0, "scale", "least"), 3),
        (("notes",), {}),
    ],
)
def test_no_number_of_a_manifest_can_change_unseen(place: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    """What golden vectors do not reach: how inputs become codes, and what outputs count."""
    folder = _with_another(place, value, tmp_path, sealed=False)
    with pytest.raises(DataError, match="its sha256 is another"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("most_steps", "x", "most_steps of its manifest"), ("most_steps", -5, "most_steps must be at least 1"),
        ("latency", {"moon": 3}, "name 'moon', which is no layer"), ("latency", {"2": "x"}, "latency of its manifest"),
        ("notes", 7, "notes of its manifest"), ("notes", {"moon": ["x"]}, "name 'moon', which is no layer"),
        ("golden.layers", {}, "golden vectors are of other layers"), ("golden.readout", None, r"golden .*\(readout\)"),
        ("golden.layers.0.currents", None, r"golden .*currents\)"),
    ],
)  # fmt: skip
def test_a_manifest_signed_anew_still_says_what_it_should(key: str, value: Any, said: str, tmp_path: Path) -> None:
    network = NETWORKS["current-before"]()
    folder = write_bundle(tmp_path / "net", network, network.codes(images()[:1]))
    manifest = at = json.loads((folder / "manifest.json").read_text())
    *tables, last = key.split(".")
    for table in tables:
        at = list(at.values())[int(table)] if table.isdigit() else at[table]
    at[last] = value
    manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=said):
        read_bundle(folder)


def test_golden_vectors_hold_synaptic_currents_and_bundles_without_them_are_read(tmp_path: Path) -> None:
    network = NETWORKS["current-before"]()
    codes = network.codes(images()[:2])
    folder = write_bundle(tmp_path / "net", network, codes)
    manifest = json.loads((folder / "manifest.json").read_text())
    name = network.order[0]
    about = manifest["golden"]["layers"][name].pop("currents")
    packed, bits = np.unpackbits(np.load(folder / about["file"])), about["bits"]
    count = int(np.prod(about["shape"]))
    values = packed[: count * bits].reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64)[::-1])
    current = network.run(codes, states=True).currents[name]
    assert (values + about["least"]).reshape(about["shape"]).tolist() == current.tolist()
    manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_bundle(folder).order == network.order


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"PK\x03\x04", np.lib.format.MAGIC_PREFIX + b"\x01\x00v\x00{'descr': '|u1', 'fortran_or"],
)
def test_a_file_signed_anew_that_is_no_array_is_refused(content: bytes, tmp_path: Path) -> None:
    network = NETWORKS["lif"]()
    folder = write_bundle(tmp_path / "net", network, network.codes(images()[:1]))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "connection0.weight.npy").write_bytes(content)
    manifest["connections"][0]["weight"]["sha256"] = hashlib.sha256(content).hexdigest()
    manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"connection0\.weight\.npy is no \.npy file"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("layers", 0, "threshold", "shape", 0), 1e308, "float"),
        (("layers", 0, "threshold", "shape", 0), -1, "int.* >= 0"),
        (("connections", 0, "weight", "least"), 2**63, "least"), (("connections", 0, "weight", "least"), 0.5, "least"),
        (("connections", 0, "weight", "kind"), "x", "kind"),
        (("layers", 0, "rules", "decay", "bits"), -1, r"must lie in 1\.\.24, got -1"),
    ],
)  # fmt: skip
def test_values_that_no_number_can_be_are_refused_by_name(
    place: tuple[Any, ...], value: Any, said: str, tmp_path: Path
) -> None:
    folder = _with_another(place, value, tmp_path, sealed=True)
    with pytest.raises(DataError, match=said):
        read_bundle(folder)


@pytest.mark.parametrize(("key", "value"), [("bits", 60), ("bits", 1), ("shape", [10**9, 10**3]), ("shape", [1])])
def test_more_numbers_than_a_file_holds_are_refused_before_they_take_memory(
    key: str, value: Any, tmp_path: Path
) -> None:
    network = NETWORKS["lif"]()
    folder = write_bundle(tmp_path / "net", network, network.codes(images()[:1]))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["connections"][0]["weight"][key] = value
    manifest["sha256"] = sum_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="does not hold"):
        read_bundle(folder)


def test_a_network_of_a_chips_rules_is_bundled_but_not_written_in_c(tmp_path: Path) -> None:
    chip = HardwareSpec.load("loihi1")
    neurons = Population(chip.neuron, (2,), threshold=200, reset="zero", decay=511, synapse_decay=1024)
    to = Connection(sources=(INPUT,), target="hidden", weight=torch.tensor([[124, -60], [36, 100]]), shift=6)
    network = IntegerNetwork({"hidden": neurons}, [to], (2,))
    codes = torch.randint(0, 2, (9, 1, 2))
    again = read_bundle(write_bundle(tmp_path / "loihi", network, codes))
    assert again.populations["hidden"].rules == chip.neuron
    with pytest.raises(ModelError, match="rules of a chip"):
        write_c(tmp_path / "c", network, codes)
    assert not (tmp_path / "c").exists()


def test_nothing_is_replaced_and_nothing_half_written(tmp_path: Path) -> None:
    network = NETWORKS["lif"]()
    (tmp_path / "net").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        write_bundle(tmp_path / "net", network, network.codes(images()[:1]))
    with pytest.raises(ModelError):
        write_bundle(tmp_path / "other", network, network.codes(images()[:1])[..., :3])
    with pytest.raises(SpecError, match="a name in C"):
        write_c(tmp_path / "c", network, network.codes(images()[:1]), "9lives")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_the_header_says_what_goes_in_comes_out_and_for_how_long(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 2, (5, 3, 6)).float()

    def header(name: str, neuron: Any, inputs: Tensor) -> str:
        network = lower(nn.Sequential(PerStep(nn.Linear(6, 8)), neuron).eval(), inputs)
        assert read_bundle(write_bundle(tmp_path / f"{name}-b", network, network.codes(inputs))).most_steps == (
            network.most_steps
        )
        return (write_c(tmp_path / name, network, network.codes(inputs)) / "network.h").read_text()

    counts = header("counts", LIF(2.0), x)
    assert "Input: counts x within 0..1, C order." in counts
    assert "Output: the last layer's spikes.\n" in counts
    # a membrane that keeps everything holds for as many steps as it was lowered for
    for name, neuron in (("if", IF()), ("slow", LIF(20.0)), ("current", CubaLIF(2.0, 20.0))):
        assert "States hold 5 steps after a reset; more may overflow.\n" in header(name, neuron, x)
    assert "Input: codes round(x * 2^32) within -2147483647..2147483647" in header("r", IF(), x * 0.45)
