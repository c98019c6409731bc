"""Stacking: which of several forecasts to average, from the products of their errors on several folds.

A fold is an (M, M) matrix E of mean products of errors of M forecasts: weights w of sum one have the error w^T E w.

    order = members by the mean over folds of log E_mm                                 (1)
    w_k = 1/k on the first k of the order                                              (2)
    k = argmin of the mean over folds f of log w_k^T E_f w_k, the order made without f  (3)

Logarithms let folds of large errors count as much as those of small ones.
"""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 100_000


def products(forecasts: Float[Tensor, "M N"], target: Float[Tensor, "N"]) -> Float[Tensor, "M M"]:
    """Mean products of errors: w^T E w is the error of the blend, as the weights sum to one."""
    known = ~target.isnan()
    total = torch.zeros(len(forecasts), len(forecasts), dtype=torch.float64)
    for part, truth in zip(forecasts[:, known].split(CHUNK, 1), target[known].split(CHUNK), strict=True):
        errors = (part - truth).double()
        total += errors @ errors.T
    return total / known.sum()


def trimmed(grams: list[Float[Tensor, "M M"]]) -> Float[Tensor, "M"]:
    """The weights (2) with k of (3); of a single fold all members, as nothing is left to choose k by."""
    count = len(grams[0])
    if len(grams) == 1:
        return torch.full((count,), 1 / count, dtype=grams[0].dtype)
    losses = torch.zeros(count, dtype=grams[0].dtype)
    for out, gram in enumerate(grams):
        order = _order(grams[:out] + grams[out + 1 :])
        losses += gram[order][:, order].cumsum(0).cumsum(1).diagonal().log() - 2 * _sizes(count).log()
    weights = torch.zeros(count, dtype=grams[0].dtype)
    kept = _order(grams)[: int(losses.argmin()) + 1]
    weights[kept] = 1 / len(kept)
    return weights


def _order(grams: list[Tensor]) -> Int[Tensor, "M"]:
    """Equation (1)."""
    return torch.stack([gram.diagonal().log() for gram in grams]).mean(0).argsort(stable=True)


def _sizes(count: int) -> Float[Tensor, "M"]:
    return torch.arange(1, count + 1, dtype=torch.float64)


def reference(grams: list[list[list[float]]]) -> list[float]:
    """The weights by (1) to (3), sum by sum."""

    def order(folds: list[list[list[float]]]) -> list[int]:
        return sorted(range(len(grams[0])), key=lambda m: sum(log(fold[m][m]) for fold in folds))

    def loss(k: int) -> float:
        total = 0.0
        for out, fold in enumerate(grams):
            first = order(grams[:out] + grams[out + 1 :])[:k]
            total += log(sum(fold[a][b] for a in first for b in first) / k**2)
        return total

    best = min(range(1, len(grams[0]) + 1), key=loss)
    kept = order(grams)[:best]
    return [1 / best if member in kept else 0.0 for member in range(len(grams[0]))]
