"""What a compiled graph writes down, without torch's compiler being imported for it."""

from __future__ import annotations

import subprocess
import sys

import torch

from isofire.neurons.constant import constant_in_graphs


def test_it_marks_as_torch_does() -> None:
    def ours() -> bool:
        return True

    def theirs() -> bool:
        return True

    assert constant_in_graphs(ours) is ours
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs) != {}


def test_the_compiler_is_not_imported_with_isofire() -> None:
    code = "import sys, isofire, isofire.cli.app; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
