"""Interpolated n-grams over bytes: the loss, in bits per byte, that counting alone reaches.

Witten-Bell smoothing, method C of The Zero-Frequency Problem: Estimating the Probabilities of Novel Events in Adaptive
Text Compression (Witten and Bell, IEEE Trans. Inf. Theory 37(4), 1991), interpolated down to the uniform law:

    p_0(x) = 1 / 256
    p_n(x | c) = (count(c x) + types(c) p_{n-1}(x | c')) / (count(c .) + types(c))                    (1)

c is the n - 1 bytes before x, c' is c without its oldest byte, types(c) is how many different bytes followed c; a
context never seen in training gives p_{n-1} unchanged. "Order n" is the length of the n-gram: order 1 is the unigram,
order 3 conditions on 2 bytes. The first held-out bytes take their context from the end of the training bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from math import log2

import numpy as np
from numpy.typing import NDArray

PAPERS: dict[str, str] = {}

_MOST = 8  # bytes of an n-gram that fit one uint64


def bits_per_byte(train: bytes, held_out: bytes, order: int = 5) -> list[float]:
    """Mean bits per held-out byte of the orders 0 .. order (so `[1]` is the unigram, `[order]` the last).

    order: in [0, 8]. Memory: about 60 bytes a training byte. ValueError when either text is empty.
    """
    if not 0 <= order <= _MOST:
        raise ValueError(f"order must be in [0, {_MOST}]; got {order}")
    if not train or not held_out:
        raise ValueError(f"n-grams need training and held-out bytes; got {len(train)} and {len(held_out)}")
    text = np.frombuffer(train + held_out, dtype=np.uint8)
    law = np.full(len(held_out), 1 / 256)
    bits = [8.0]
    for n in range(1, order + 1):
        law = _interpolate(text, len(train), n, law)
        bits.append(float(-np.log2(law).mean()))
    return bits


def reference(train: bytes, held_out: bytes, order: int) -> float:
    """Equation (1) byte by byte, with dictionaries: the oracle of the fast form."""
    text = train + held_out
    followers: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
    for n in range(1, order + 1):
        for end in range(n - 1, len(train)):
            followers[train[end - n + 1 : end]][train[end]] += 1
    bits = 0.0
    for place in range(len(train), len(text)):
        p = 1 / 256
        for n in range(1, order + 1):
            context = text[place - n + 1 : place]
            if place >= n - 1 and context in followers:
                seen = followers[context]
                p = (seen[text[place]] + len(seen) * p) / (seen.total() + len(seen))
        bits -= log2(p)
    return bits / len(held_out)


def _interpolate(text: NDArray[np.uint8], cut: int, n: int, lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """One level of (1). text: training bytes up to `cut`, then held-out ones. lower: p_{n-1} of each held-out byte."""
    if cut < n:
        return lower
    grams = _grams(text, n)  # grams[i] ends at byte i + n - 1
    kinds, counts = np.unique(grams[: cut - n + 1], return_counts=True)
    contexts, first, types = np.unique(kinds >> np.uint64(8), return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first)
    asked = grams[cut - n + 1 :]
    gram_at, gram_seen = _find(kinds, asked)
    context_at, context_seen = _find(contexts, asked >> np.uint64(8))
    count = np.where(gram_seen, counts[gram_at], 0)
    weight = types[context_at]
    return np.where(context_seen, (count + weight * lower) / (totals[context_at] + weight), lower)


def _grams(text: NDArray[np.uint8], n: int) -> NDArray[np.uint64]:
    grams = np.zeros(len(text) - n + 1, dtype=np.uint64)
    for place in range(n):
        grams = (grams << np.uint64(8)) | text[place : len(text) - n + 1 + place]
    return grams


def _find(sorted_values: NDArray[np.uint64], asked: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each asked value stands (clipped into range), and whether it is there."""
    at = np.searchsorted(sorted_values, asked).clip(max=len(sorted_values) - 1)
    return at, sorted_values[at] == asked
