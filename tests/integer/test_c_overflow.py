"""C programs beside the engine where states leave their widths: the same numbers, or an error in the same step."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isofire.errors import ModelError
from isofire.export import write_c
from isofire.integer import (
    INPUT,
    Connection,
    DecayRule,
    Encoder,
    IntegerNetwork,
    NeuronRules,
    Population,
    StateTable,
    lower,
)
from isofire.neurons import IF, PerStep

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
DRIVER = """#include "network.h"
#include <stdio.h>
static network_state state;
int main(void) {
    static int32_t input[NETWORK_INPUTS];
    static int64_t output[NETWORK_OUTPUTS];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        const int32_t error = network_step(&state, input, output);
        printf("%d", (int)error);
        for (int k = 0; k < NETWORK_OUTPUTS; k++) printf(" %lld", error ? 0 : (long long)output[k]);
        printf("\\n");
    }
    return 0;
}
"""


class Program:
    """A network's C program, run on one image, step by step, under a sanitizer of undefined behaviour."""

    def __init__(self, network: IntegerNetwork, codes: Tensor, folder: Path) -> None:
        made = write_c(folder / "c", network, codes[:1, :1] * 0)
        (made / "driver.c").write_text(DRIVER)
        strict = ["cc", "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1"]
        strict += ["-fsanitize=undefined", "-fno-sanitize-recover"]
        subprocess.run([*strict, "network.c", "driver.c", "-o", "run"], cwd=made, check=True)
        self.path = made / "run"

    def __call__(self, image: Tensor) -> list[list[int]]:
        given = image.to(torch.int32).numpy().astype(np.int32).tobytes()
        done = subprocess.run([str(self.path)], input=given, capture_output=True, check=True)
        return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def refused_at(network: IntegerNetwork, image: Tensor) -> int | None:
    """The step in which the engine refuses; None if it does not."""
    for steps in range(1, len(image) + 1):
        try:
            network.run(image[:steps, None])
        except ModelError:
            return steps - 1
    return None


def agree(network: IntegerNetwork, codes: Tensor, folder: Path) -> tuple[int, int]:
    """Images that ran to their end, and that were refused; every one as the engine has it."""
    program, whole, refused = Program(network, codes, folder), 0, 0
    for n in range(codes.shape[1]):
        image = codes[:, n]
        found, at = program(image), refused_at(network, image)
        good = len(image) if at is None else at
        assert [row[0] != 0 for row in found] == [t >= good for t in range(len(image))]
        if good:
            last = network.run(image[:good, None]).spikes[network.order[-1]][:, 0]
            assert [row[1:] for row in found[:good]] == last.tolist()
        whole, refused = whole + (at is None), refused + (at is not None)
    return whole, refused


def drawn(seed: int) -> tuple[IntegerNetwork, Tensor]:
    """Two layers of narrow states and any of the rules that a C program knows, and codes from few to many."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *size: int) -> Tensor:
        return torch.randint(low, high + 1, size, generator=generator)

    def population(size: int) -> Population:
        bits, synapse = draw.choice([8, 11, 16, 20]), draw.choice(["none", "before", "after", "late"])
        decay = DecayRule(kind="fraction", bits=6, rounding="nearest")
        reset, several = draw.choice(["subtract", "zero"]), draw.random() < 0.5
        rules = NeuronRules(
            synapse=synapse, synapse_decay=None if synapse == "none" else decay,  # type: ignore[arg-type]
            decay=draw.choice([None, decay]), deliver="sum", increment="whole", state_bits=bits, overflow="refuse",
            current_overflow="refuse", compare=">=", threshold_bits=62, threshold_shift=0, reset=("subtract", "zero"),
            spikes=None if several else 1, output_spikes=None if several else 1, input_spikes=None, floor=True,
            bias_into="membrane" if synapse == "none" else "current",
        )  # fmt: skip
        top, table, more = 1 << (bits - 1), None, {}
        if draw.random() < 0.3:
            levels = whole(-top - 9, top + 9, 1, 5).sort().values
            table = StateTable(draw.choice(["pre_fire", "post_reset"]), (levels[:, 1:] + levels[:, :-1]) // 2, levels)  # type: ignore[arg-type]
        if reset == "subtract" and not several and draw.random() < 0.5:
            more["subtract"] = whole(1, top, size)
        return Population(
            rules, (size,), threshold=whole(max(1, top // 16), top // 2, size), bias=whole(-top // 16, top // 16, size),
            decay=0 if rules.decay is None else whole(0, 30, size), reset=reset,  # type: ignore[arg-type]
            synapse_decay=0 if synapse == "none" else whole(5, 50, size), table=table,
            floor=-whole(1, top, size) if draw.random() < 0.5 else None, **more,
        )  # fmt: skip

    first, second = population(5), population(3)
    scale = 1 << (first.rules.state_bits - 8)
    network = IntegerNetwork(
        {"a": first, "b": second},
        [
            Connection(sources=(INPUT,), target="a", weight=whole(-scale, scale, 5, 4)),
            Connection(sources=("a",), target="b", weight=whole(-9, 9, 3, 5), shift=draw.choice([0, 1])),
        ],
        (4,),
        encoder=Encoder(1.0, 6, None),
    )
    return network, whole(-draw.choice([1, 2, 30]), draw.choice([1, 2, 30]), 25, 6, 4)


def test_random_networks_give_the_engines_spikes_or_its_refusal(tmp_path: Path) -> None:
    counts = np.array([agree(*drawn(seed), tmp_path / str(seed)) for seed in range(24)]).sum(0)
    # both are seen often
    assert min(counts) > 20, counts


def speck() -> IntegerNetwork:
    torch.manual_seed(0)
    neuron: Any = lambda: IF(v_reset=None, several=True, v_threshold=0.4)  # noqa: E731
    net = nn.Sequential(PerStep(nn.Linear(8, 6, bias=False)), neuron(), PerStep(nn.Linear(6, 4, bias=False)), neuron())
    example = torch.randint(0, 16, (8, 20, 8)).float()
    return lower(net.eval(), example, hardware="speck2f", approximate=True)


def test_a_chips_16_bits_are_held_to_in_c(tmp_path: Path) -> None:
    network = speck()
    codes = torch.tensor([1, 15, 60, 200, 3000]).view(1, 5, 1).expand(4, 5, 8).contiguous()
    assert min(agree(network, codes, tmp_path)) > 0
    header = (tmp_path / "c" / "network.h").read_text()
    assert "int16_t v0[6];" in header
    assert "16 bits with sign" in header


def test_inputs_outside_of_the_headers_range_are_an_error(tmp_path: Path) -> None:
    network = speck()
    program = Program(network, torch.zeros(1, 1, 8).long(), tmp_path)
    assert "counts x within 0..16777215" in (tmp_path / "c" / "network.h").read_text()
    rows = program(torch.tensor([[0] * 8, [0] * 7 + [-1], [0] * 8]))
    # the error stays until a reset
    assert [row[0] for row in rows] == [0, -1, -1]
    assert program(torch.full((1, 8), 2**24))[0][0] == -1


def test_sums_that_no_program_can_hold_are_refused_when_it_is_written(tmp_path: Path) -> None:
    rules = speck().populations["1"].rules
    to = Connection(sources=(INPUT,), target="n", weight=torch.tensor([[1]]), shift=40)
    network = IntegerNetwork({"n": Population(rules, (1,), threshold=5, reset="zero")}, [to], (1,))
    with pytest.raises(ModelError, match=r"sums into 'n' could reach .*input_bits"):
        write_c(tmp_path / "c", network, torch.zeros(1, 1, 1).long())
    assert not (tmp_path / "c").exists()
