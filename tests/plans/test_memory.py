"""The memory that a measured plan foresees is what the tensors of the fullest rank take, however the work is cut."""

import many
import pytest

from runnel.plans import Cluster, Device
from runnel.plans._layouts import Layout, estimate
from runnel.train import Mesh

D_MODEL, VOCAB, LENGTH, ROWS = 32, 96, 2048, 4
HERE = Device(8e9, 1e11, 1e9, 1e9, 4, 0.0, efficiency=1.0)
CASES = [
    (1, None, Layout(1, 1, 1, 1, False)),
    (1, None, Layout(1, 1, 1, 1, True)),
    (2, Mesh(data=2), Layout(1, 1, 1, 1, False)),
    (2, Mesh(data=2), Layout(1, 2, 2, 2, False)),
    (2, Mesh(sequence=2), Layout(2, 1, 1, 1, False)),
    (2, Mesh(sequence=2), Layout(2, 2, 2, 2, True)),
]
OF_FOUR = [
    (4, Mesh(data=4), Layout(1, 4, 4, 4, False)),
    (4, Mesh(data=2, sequence=2), Layout(2, 1, 1, 1, False)),
    (4, Mesh(data=2, sequence=2), Layout(2, 4, 4, 4, True)),
    (4, Mesh(sequence=4), Layout(4, 1, 1, 1, False)),
]


def check(pattern, cases, count):
    work, config = many.again(count, "memory:foreseen", pattern, D_MODEL, VOCAB, LENGTH, ROWS)[0]
    assert work.measured.sending.add > 0  # seconds, of which no test knows how many
    for processes, mesh, layout in cases:
        foreseen = estimate(work, Cluster(HERE, processes), layout, config).memory
        job = (pattern, D_MODEL, VOCAB, LENGTH, ROWS, mesh, layout.parameters > 1, layout.recompute)
        ranks = many.again(processes, "memory:held", *job)
        found = {part: max(rank[part] for rank in ranks) for part in ranks[0]}
        for part in ("parameters", "gradients", "optimizer"):
            assert foreseen[part] == pytest.approx(found[part], rel=0.05), (layout, part)
        kept = foreseen["activations"] + foreseen["logits"] + foreseen["states"]
        assert kept == pytest.approx(found["activations"], rel=0.05), layout


@pytest.mark.parametrize("pattern", ["gla*2", "(mamba2, attention)", "mingru*3"])
def test_foreseen_is_measured(pattern):
    check(pattern, CASES, 2)


@pytest.mark.thorough
@pytest.mark.parametrize("pattern", ["(mamba2, attention)", "(gated_deltanet, mingru)"])
def test_foreseen_is_measured_on_four(pattern):
    check(pattern, OF_FOUR, 4)
