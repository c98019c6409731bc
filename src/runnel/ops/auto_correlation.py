"""Auto-correlation ("Autoformer", 2021, arXiv:2106.13008): stretches of a sequence matched as a whole, not row by row.

R(tau) = sum_t q_{t+tau} . k_t, indices round the window                           (1)
y_t = sum over the best tau of softmax(R(tau)) v_{t+tau}                           (2)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from jaxtyping import Float
from torch import Tensor


def reference(q: Sequence[float], k: Sequence[float], v: Sequence[float], keep: int) -> list[float]:
    """Equations (1) and (2) by direct sums, for one feature."""
    length = len(q)
    scores = [sum(q[(t + tau) % length] * k[t] for t in range(length)) for tau in range(length)]
    best = sorted(range(length), key=lambda tau: -scores[tau])[:keep]
    weights = torch.tensor([scores[tau] for tau in best], dtype=torch.float64).softmax(0).tolist()
    return [sum(w * v[(t + tau) % length] for w, tau in zip(weights, best, strict=True)) for t in range(length)]


def delays(length: int, factor: float) -> int:
    """How many delays (2) keeps."""
    return min(length, max(1, int(factor * log(length))))


def aggregated(
    q: Float[Tensor, "B T D"], k: Float[Tensor, "B T D"], v: Float[Tensor, "B T D"], keep: int
) -> Float[Tensor, "B T D"]:
    """Equations (1) and (2); R is the mean over D."""
    length = q.shape[1]
    spectrum = torch.fft.rfft(q, dim=1) * torch.fft.rfft(k, dim=1).conj()
    score, delay = torch.fft.irfft(spectrum, length, dim=1).mean(-1).topk(keep)  # (B, keep)
    place = (torch.arange(length, device=q.device) + delay[..., None]) % length  # (B, keep, T)
    rolled = v[torch.arange(len(v), device=q.device)[:, None, None], place]
    return torch.einsum("bk,bktd->btd", score.softmax(-1), rolled)
