"""Shapes in signatures: checked here at every call, and never where the library is used."""

import subprocess
import sys

import jaxtyping
import pytest
import torch

from runnel.lineage import Lineage
from runnel.ops.attend import KeyValues, attend
from runnel.ops.outer import outer_scan
from runnel.ops.scan import diagonal_scan

PLAIN = Lineage.sequence(2, 3)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda: diagonal_scan(zeros(2, 3, 4), zeros(2, 3, 1), zeros(2, 4), PLAIN),  # b would broadcast silently
        lambda: diagonal_scan(zeros(2, 3, 4).long(), zeros(2, 3, 4), zeros(2, 4), PLAIN),
        lambda: outer_scan(*[zeros(2, 3, 1, 4)] * 3, zeros(2, 3, 1), zeros(2, 5, 4, 4), PLAIN),
        lambda: attend(*[zeros(2, 3, 4)] * 3, KeyValues.empty(2, 1, 4, zeros(1)), PLAIN),
    ],
)
def test_a_wrong_shape_does_not_pass_a_primitive(call):
    """Under `full_precision` too: the check stands inside it."""
    with pytest.raises(jaxtyping.TypeCheckError, match="whilst checking the parameters"):
        call()


def test_the_library_itself_checks_nothing():
    program = "import sys, runnel; runnel.build('mamba2', vocab_size=4, d_model=8); print('beartype' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "False"
