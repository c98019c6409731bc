"""Sampling maths: truncations of a law given by logits, and noise that is a pure function of (seed, position).

Gumbel-max ("A* Sampling", 2014, arXiv:1411.0030, section 2): with G_v independent and Gumbel(0), argmax_v (logits_v +
G_v) is a draw from softmax(logits). Because the noise of a token depends on nothing but its row's seed and its
position, the same token is drawn however the logits were computed: alone, in a batch, step by step or on a draft tree.

Truncations act on the last axis of logits and set what they remove to -inf; they never remove the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from runnel import native


def uniform(
    seeds: Sequence[int], positions: Sequence[int], outcomes: int, stream: int = 0
) -> Float64[Tensor, "N {outcomes}"]:
    """Noise in (0, 1) on the CPU; row n depends on (seeds[n], positions[n]) only, and on the stream: noise of different
    streams is independent.

    seeds and positions in [0, 2^63), stream in [0, 2^128). The generator is Philox, counter-based, keyed by the pair
    ("Parallel random numbers: as easy as 1, 2, 3", 2011).
    """
    return (
        native.uniform(seeds, positions, outcomes, stream)
        if native.available()
        else _uniform(seeds, positions, outcomes, stream)
    )


def _uniform(seeds: Sequence[int], positions: Sequence[int], outcomes: int, stream: int) -> Tensor:
    keys = [np.array(pair, dtype=np.uint64) for pair in zip(seeds, positions, strict=True)]
    begin = np.array([0, 0, stream >> 64, stream % 2**64], dtype=np.uint64)
    raw = np.stack([np.random.Philox(key=key, counter=begin).random_raw(outcomes) for key in keys])
    return torch.from_numpy(((raw >> np.uint64(12)) + 0.5) * 2.0**-52)  # 52 bits and a half: never 0, never 1


def gumbel(
    seeds: Sequence[int], positions: Sequence[int], outcomes: int, stream: int = 0
) -> Float64[Tensor, "N {outcomes}"]:
    """Gumbel(0) noise, keyed as that of `uniform`."""
    return -(-uniform(seeds, positions, outcomes, stream).log()).log()


def certain(scores: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
    """The log-probabilities of the law that always takes the largest score, the lowest of equal ones."""
    return torch.full_like(scores, -math.inf).scatter_(-1, scores.argmax(-1, keepdim=True), 0.0)


def tempered(
    logits: Float[Tensor, "*B V"],
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Tensor, "*B V"]:
    """Logits of the law at a temperature > 0, truncated in this order; -inf for what is cut off."""
    scores = logits / temperature
    if top_k is not None:
        scores = keep_top_k(scores, top_k)
    if top_p is not None:
        scores = keep_top_p(scores, top_p)
    if min_p is not None:
        scores = keep_min_p(scores, min_p)
    return scores


def keep_top_k(logits: Float[Tensor, "*B V"], k: int) -> Float[Tensor, "*B V"]:
    """Keep the k largest, and whatever ties with the k-th."""
    return logits.masked_fill(logits < logits.topk(min(k, logits.shape[-1])).values[..., -1:], -math.inf)


def keep_top_p(logits: Float[Tensor, "*B V"], p: float) -> Float[Tensor, "*B V"]:
    """Keep the smallest set of likeliest outcomes whose probability reaches p in (0, 1]. Ties go to the lower index."""
    if p == 1:
        return logits  # said apart: the rounding of the sum must not cost the tail
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    likelier = probabilities.cumsum(-1) - probabilities
    likelier[..., 0] = 0.0
    removed = torch.empty_like(likelier, dtype=torch.bool).scatter_(-1, order, likelier >= p)
    return logits.masked_fill(removed, -math.inf)


def keep_min_p(logits: Float[Tensor, "*B V"], p: float) -> Float[Tensor, "*B V"]:
    """Keep what is at least p in [0, 1] times as likely as the likeliest."""
    if p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def counts_of(tokens: Sequence[int], outcomes: int) -> Float64[Tensor, "{outcomes}"]:
    """How often each outcome is among the tokens."""
    return torch.bincount(torch.tensor(tokens, dtype=torch.long), minlength=outcomes).double()
