"""Two-dimensional buckets: batches of samples whose inputs, and whose outputs, are about equally long.

Paper: "Training and Inference Efficiency of Encoder-Decoder Speech Models" (2025, 2503.05931), section 3.

    input edges: quantiles of the input lengths, each bucket holding the same sum of lengths          (1)
    output edges: the same within every input bucket                                                  (2)
    batch of a bucket: the largest that fits at the bucket's longest input and output, by bisection   (3)

| code | paper |
|---|---|
| inputs, outputs | buckets and sub-buckets of 2D bucketing |
| fits | one trial of the OOMptimizer, which a caller measures or computes |

Deviates: what fits is asked of the caller, where the paper allocates on a GPU until it fails. The encoder-heavy models
of the paper are not here: the models of this house have no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAPERS = {"Training and Inference Efficiency of Encoder-Decoder Speech Models": "2503.05931"}

Lengths = Sequence[tuple[int, int]]
"""Input and output length of every sample."""
Fits = Callable[[int, int, int], bool]
"""fits(samples, input length, output length): whether a batch of so many fits in memory; more never fits better."""


@dataclass(frozen=True)
class Config:
    """inputs: buckets by input length. outputs: sub-buckets of each by output length. seed: of the order."""

    inputs: int = 16
    outputs: int = 4
    seed: int = 0
    largest_batch: int = 1 << 16

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1 or self.largest_batch < 1:
            raise ValueError(
                f"buckets needs inputs, outputs and largest_batch >= 1; got {self.inputs}, {self.outputs}, "
                f"{self.largest_batch}"
            )


def batches(lengths: Lengths, fits: Fits, config: Config | None = None, epoch: int = 0) -> list[list[int]]:
    """Batches of sample indices in a random order, every sample once. ValueError when a sample does not fit alone."""
    config = config or Config()
    draw, found = np.random.default_rng([config.seed, epoch]), []
    for bucket in _buckets(np.array(lengths), config):
        longest = np.array(lengths)[bucket].max(0)
        size = largest_batch(int(longest[0]), int(longest[1]), fits, config.largest_batch)
        order = draw.permutation(bucket)
        found += [order[at : at + size].tolist() for at in range(0, len(order), size)]
    return [found[at] for at in draw.permutation(len(found))]


def largest_batch(inputs: int, outputs: int, fits: Fits, most: int) -> int:
    """Eq. (3), up to `most`."""
    if not fits(1, inputs, outputs):
        raise ValueError(f"a sample of {inputs} inputs and {outputs} outputs must fit in memory; it does not")
    low, high = 1, most + 1  # low fits, high is not tried
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle, inputs, outputs) else (low, middle)
    return low


def padding(lengths: Lengths, plan: Sequence[Sequence[int]]) -> float:
    """Share of the inputs' and outputs' places that hold nothing."""
    sizes = np.array(lengths)
    used = sum(int(sizes[batch].sum()) for batch in plan)
    made = sum(int(len(batch) * sizes[batch].max(0).sum()) for batch in plan)
    return 1 - used / made


def edges(lengths: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The longest length of every bucket but the last: equal sums of lengths, eq. (1)."""
    ordered = np.sort(lengths)
    share = ordered.cumsum() / ordered.sum()
    return np.unique(ordered[np.searchsorted(share, np.arange(1, count) / count)])


def _buckets(lengths: NDArray[np.int64], config: Config) -> list[NDArray[np.int64]]:
    by_input = np.searchsorted(edges(lengths[:, 0], config.inputs), lengths[:, 0])
    found = []
    for bucket in np.unique(by_input):
        members = np.flatnonzero(by_input == bucket)
        outputs = lengths[members, 1]
        by_output = np.searchsorted(edges(outputs, config.outputs), outputs)
        found += [members[by_output == part] for part in np.unique(by_output)]
    return found


def reference(lengths: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """The bucket of every length: the first whose bound it does not exceed."""
    return [next((i for i, bound in enumerate(bounds) if length <= bound), len(bounds)) for length in lengths]
