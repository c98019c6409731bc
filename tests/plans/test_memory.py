"""The memory that a calibrated plan foresees is what the tensors take, on one process and on two."""

import many
import pytest

from runnel.cli.plan import measured, workload
from runnel.plans import Cluster, Device
from runnel.plans.redundant_sharding import Layout, estimate
from runnel.train import Mesh

D_MODEL, VOCAB, LENGTH, ROWS = 32, 96, 2048, 2
HERE = Device(8e9, 1e11, 1e9, 1e9, 2, 0.0, efficiency=1.0)


@pytest.mark.parametrize("pattern", ["gla*2", "(mamba2, attention)", "mingru*3"])
def test_foreseen_is_measured(pattern):
    work, config = measured(workload(pattern, D_MODEL, None, VOCAB, LENGTH, ROWS), pattern, None)
    for count, mesh, layout in (
        (1, None, Layout(1, 1, 1, 1, False)),
        (2, Mesh(data=2), Layout(1, 1, 1, 1, False)),
        (2, Mesh(data=2), Layout(1, 2, 2, 2, False)),
    ):
        foreseen = estimate(work, Cluster(HERE, count), layout, config).memory
        job = (pattern, D_MODEL, VOCAB, LENGTH, ROWS, mesh, layout.parameters > 1)
        for found in many.run(count, "memory:held", *job):
            for part in ("parameters", "gradients", "optimizer"):
                assert foreseen[part] == pytest.approx(found[part], rel=0.05), (layout, part)
            assert sum(foreseen.values()) == pytest.approx(sum(found.values()), rel=0.05), layout
