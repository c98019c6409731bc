"""Stacking: which of several forecasts to combine, and how, from the products of their errors on several folds.

A fold is an (M, M) matrix E of mean products of errors of M forecasts: weights w of sum one have the error w^T E w.

    order = members by the mean over folds of log E_mm                                 (1)
    e_k = 1/k on the first k of the order                                              (2)
    k = argmin of the mean over folds f of log e_k^T E_f e_k, the order made without f  (3)
    w = argmin over w >= 0, sum w = 1, on those k, of
        mean over folds of w^T E_f w / e_k^T E_f e_k + pull |w - e_k|^2                (4)

Logarithms and ratios let folds of large errors count as much as those of small ones. With pull = 1 a weight is moved
from the even mean by what it wins of the even mean's own error. (4) is solved by accelerated projected gradients.
"""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 100_000
STEPS, SETTLED = 5000, 1e-9


def products(forecasts: Float[Tensor, "M N"], target: Float[Tensor, "N"]) -> Float[Tensor, "M M"]:
    """Mean products of errors: w^T E w is the error of the blend, as the weights sum to one."""
    known = ~target.isnan()
    total = torch.zeros(len(forecasts), len(forecasts), dtype=torch.float64)
    for part, truth in zip(forecasts[:, known].split(CHUNK, 1), target[known].split(CHUNK), strict=True):
        errors = (part - truth).double()
        total += errors @ errors.T
    return total / known.sum()


def weights(grams: list[Float[Tensor, "M M"]], pull: float) -> Float[Tensor, "M"]:
    """Equation (4)."""
    kept = best(grams)
    parts = [gram[kept][:, kept] for gram in grams]
    blended = torch.stack([part / part.mean() for part in parts]).mean(0)  # the even mean's error is the mean of all
    found = torch.zeros(len(grams[0]), dtype=grams[0].dtype)  # |w - e|^2 is |w|^2 and a constant
    found[kept] = simplex(blended + pull * torch.eye(len(kept), dtype=blended.dtype))
    return found


def best(grams: list[Float[Tensor, "M M"]]) -> Int[Tensor, "k"]:
    """The members that are kept (3); of a single fold all of them, as nothing is left to choose k by."""
    count = len(grams[0])
    if len(grams) == 1:
        return torch.arange(count)
    losses = torch.zeros(count, dtype=grams[0].dtype)
    for out, gram in enumerate(grams):
        order = _order(grams[:out] + grams[out + 1 :])
        losses += gram[order][:, order].cumsum(0).cumsum(1).diagonal().log() - 2 * _sizes(count).log()
    return _order(grams)[: int(losses.argmin()) + 1]


def simplex(gram: Float[Tensor, "M M"]) -> Float[Tensor, "M"]:
    """argmin of w^T G w over w >= 0, sum w = 1, by FISTA; weights under a thousandth are left out."""
    weights = torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype)
    ahead, momentum, step = weights, 1.0, 1 / float(torch.linalg.eigvalsh(gram)[-1])
    for _ in range(STEPS):
        new = _projected(ahead - step * gram @ ahead)
        if float((new - ahead).abs().max()) < SETTLED:  # a step of the gradient moves nothing: the optimum
            weights = new
            break
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - weights)
        weights, momentum = new, following
    weights = torch.where(weights < 1e-3, 0.0, weights)
    return weights / weights.sum()


def _projected(v: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """The nearest point with entries >= 0 that sum to one."""
    falling, _ = v.sort(descending=True)
    excess = falling.cumsum(0) - 1
    count = int((falling * torch.arange(1, len(v) + 1) > excess).sum())
    return (v - excess[count - 1] / count).clamp(min=0)


def _order(grams: list[Tensor]) -> Int[Tensor, "M"]:
    """Equation (1)."""
    return torch.stack([gram.diagonal().log() for gram in grams]).mean(0).argsort(stable=True)


def _sizes(count: int) -> Float[Tensor, "M"]:
    return torch.arange(1, count + 1, dtype=torch.float64)


def reference(grams: list[list[list[float]]]) -> list[int]:
    """The members that are kept by (1) to (3), sum by sum, the best first."""

    def order(folds: list[list[list[float]]]) -> list[int]:
        return sorted(range(len(grams[0])), key=lambda m: sum(log(fold[m][m]) for fold in folds))

    def loss(k: int) -> float:
        total = 0.0
        for out, fold in enumerate(grams):
            first = order(grams[:out] + grams[out + 1 :])[:k]
            total += log(sum(fold[a][b] for a in first for b in first) / k**2)
        return total

    return order(grams)[: min(range(1, len(grams[0]) + 1), key=loss)]
