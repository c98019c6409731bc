"""Randomness as a pure function of (seed, place): nothing is drawn in order, so resuming is knowing an index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TASK, TRAIN, VALID = 0, 1, 2
"""What random numbers are for: the task itself (its chain, its coefficients), training batches, held-out batches."""

_ROUNDS = 6


def generator(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """Independent random numbers for each (seed, purpose, index). ValueError for a negative seed or index."""
    if seed < 0 or index < 0:
        raise ValueError(f"seed and batch index must be >= 0; got seed {seed}, index {index}")
    return np.random.default_rng([seed, purpose, index])


def permute(places: NDArray[np.int64], size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where a shuffle of range(size), a new one for each (seed, epoch), puts these places; no table of `size` is made.

    A Feistel network is a bijection of [0, 4^k) whatever its round function is; stepping it again until the value falls
    below `size` makes it a bijection of range(size) (cycle walking; fewer than four steps on average).

    places: (n,) int64 in [0, size). Same shape back.
    """
    assert size >= 1 and bool(((places >= 0) & (places < size)).all())
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    keys = np.random.default_rng([seed, epoch]).integers(0, 2**63, size=_ROUNDS, dtype=np.uint64)
    out = _feistel(places.astype(np.uint64), half, keys)
    while (outside := out >= np.uint64(size)).any():
        out = np.where(outside, _feistel(out, half, keys), out)
    return out.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << half) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64; products wrap around on purpose."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
