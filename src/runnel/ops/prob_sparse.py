"""ProbSparse attention ("Informer", 2020, arXiv:2012.07436): only the queries with something to say are answered.

    M(q) = max_j q . k_j / sqrt(K) - mean_j q . k_j / sqrt(K), over sampled keys j     (1)
    the queries of the largest M: softmax attention over all keys they see             (2)
    every other query: the mean of the values; causal: their sum up to the query       (3)

About c ln T keys are sampled and c ln T queries answered, so that cost grows with T ln T. The sample is drawn once for
a length: the same input has the same output.
"""

from __future__ import annotations

from math import ceil, inf, log

import torch
from jaxtyping import Float, Int
from torch import Tensor


def reference(
    q: Float[Tensor, "T K"], k: Float[Tensor, "T K"], v: Float[Tensor, "T V"], factor: float, causal: bool
) -> Float[Tensor, "T V"]:
    """The literal loop for one head."""
    length, scale = len(q), q.shape[1] ** -0.5
    keys = sampled(length, factor).tolist()
    told = []
    for t in range(length):
        scores = torch.stack([q[t] @ k[j] * scale for j in keys[t]])
        told.append(float(scores.max() - scores.mean()))
    answered = sorted(range(length), key=lambda t: -told[t])[: _few(length, factor)]
    rows = []
    for t in range(length):
        seen = range(t + 1) if causal else range(length)
        if t in answered:
            weights = torch.stack([q[t] @ k[j] * scale for j in seen]).softmax(0)
            rows.append(sum(w * v[j] for w, j in zip(weights, seen, strict=True)))
        else:
            rows.append(sum(v[j] for j in seen) / (1 if causal else length))
    return torch.stack(rows)


def prob_sparse(
    q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T V"], factor: float, causal: bool
) -> Float[Tensor, "B H T V"]:
    """Equations (1) to (3)."""
    length, scale = q.shape[2], q.shape[3] ** -0.5
    keys = sampled(length, factor).to(q.device)
    scores = torch.einsum("bhtk,bhtsk->bhts", q, k[:, :, keys]) * scale
    best = (scores.amax(-1) - scores.mean(-1)).topk(_few(length, factor)).indices  # (B, H, u), eq. (1)
    asking = q.gather(2, best[..., None].expand(-1, -1, -1, q.shape[3])) * scale
    full = asking @ k.transpose(2, 3)  # (B, H, u, T)
    if causal:
        full = full.masked_fill(torch.arange(length, device=q.device) > best[..., None], -inf)
    answers = full.softmax(-1) @ v  # eq. (2)
    rest = v.cumsum(2) if causal else v.mean(2, keepdim=True).expand_as(v)  # eq. (3)
    return rest.scatter(2, best[..., None].expand_as(answers), answers)


def sampled(length: int, factor: float) -> Int[Tensor, "T S"]:
    """The keys that every query is judged by."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(length, (length, _few(length, factor)), generator=generator)


def _few(length: int, factor: float) -> int:
    """About c ln T, at least one and at most all."""
    return min(length, max(1, ceil(factor * log(length)))) if length > 1 else 1
