"""What the benchmarks share: `runnel.bench.side_by_side`."""

from runnel.bench.side_by_side import *  # noqa: F403
