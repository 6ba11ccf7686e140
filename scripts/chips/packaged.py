"""The packaged CIFAR-10 network in integers of its own, and in C: `python -m scripts.chips.packaged --root DATA`.

Weights of 4 bits (LSQ); stem and readout stay in full precision. Every layer's spikes of N test images are compared:
integers with the float32 and the float64 network, and the compiled C program with the integers. Some minutes on a core
for 1,000 images; what it found is stored in results/ (`FILE`).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from scripts.chips.trained import FOLDER
from torch import Tensor

import isofire
from isofire.data import load
from isofire.export import write_c
from isofire.files import write_text
from isofire.integer import IntegerNetwork, differences, lower
from isofire.json_text import to_json_text
from isofire.models import pretrained
from isofire.study import environment

FILE = FOLDER / "packaged.json"
SPEC: dict[str, Any] = {"weights": {"method": "lsq", "bits": 4}}
CALIBRATION, BATCH = 512, 50
DRIVER = """#include "network.h"
#include <stdio.h>
static network_state state;
int main(void) {
    static int32_t input[NETWORK_INPUTS];
    static int64_t output[NETWORK_OUTPUTS];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        network_reset(&state);
        for (int step = 0; step < STEPS; step++) {
            if (network_step(&state, input, output)) return 1;
            WRITE
        }
    }
    return 0;
}
"""


class Program:
    """The network's C program, with a main of its own that writes every layer's spikes."""

    def __init__(self, network: IntegerNetwork, codes: Tensor, folder: Path) -> None:
        self.network, self.run = network, folder / "run"
        made = write_c(folder / "c", network, codes[:, :1])
        writes = "".join(f"fwrite(state.s{k}, sizeof state.s{k}, 1, stdout);" for k in range(len(network.order)))
        (made / "driver.c").write_text(DRIVER.replace("STEPS", str(len(codes))).replace("WRITE", writes))
        strict = ["cc", "-std=c99", "-Wall", "-Werror", "-O2"]
        subprocess.run([*strict, "network.c", "driver.c", "-o", str(self.run)], cwd=made, check=True)
        self.about = re.match(r"/\* Written by isofire\. (.*) \*/", (made / "network.h").read_text()).group(1)  # type: ignore[union-attr]

    def spikes(self, codes: Tensor) -> Tensor:
        """Of every layer, one after the other: uint8 [N, T, neurons]; codes [T, N, ...] are the same in every step."""
        given = codes[0].to(torch.int32).contiguous().numpy().tobytes()
        done = subprocess.run([str(self.run)], input=given, capture_output=True, check=True)
        return torch.frombuffer(bytearray(done.stdout), dtype=torch.uint8).view(codes.shape[1], len(codes), -1)


def count(images: int, root: str) -> dict[str, Any]:
    """Neuron-steps and what differs, layer by layer."""
    train, test = (load("cifar10", split, root=root) for split in ("train", "test"))
    quantized = isofire.quantize_(
        pretrained("sew_resnet8-cifar10"), isofire.QuantSpec.from_dict(SPEC), train.first(CALIBRATION)
    )
    batches = [inputs for inputs, _ in test.first(images).batches(BATCH)]
    network = lower(quantized, batches[0])
    found = differences(quantized, network, batches)
    with tempfile.TemporaryDirectory() as folder:
        program = Program(network, network.codes(batches[0]), Path(folder))
        differ = 0
        for inputs in batches:
            codes = network.codes(inputs)
            mine = network.run(codes).spikes
            every = torch.cat([mine[name].transpose(0, 1).flatten(2) for name in network.order], 2)
            differ += int((program.spikes(codes) != every).sum())
    return {
        "images": found.images, "layers": {name: asdict(layer) for name, layer in found.layers.items()},
        "c_program": {"differ": differ, "about": program.about}, "notes": network.notes,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="where CIFAR-10 is")
    parser.add_argument("--images", type=int, default=1000, help="others than 1,000 are printed, not stored")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {"spec": SPEC, "calibration": CALIBRATION, **count(args.images, args.root)}
    print(to_json_text(found))
    if args.images == 1000:
        write_text(FILE, to_json_text({"version": 1, "environment": environment("cpu"), **found}))


if __name__ == "__main__":
    main()
