"""Stacking: convex weights of forecasts from the products of their errors on several folds.

A fold is an (M, M) matrix E of mean products of errors of M forecasts: weights w of sum one have the error w^T E w.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

STEPS, SETTLED = 5000, 1e-9
CHUNK = 100_000


def products(forecasts: Float[Tensor, "M N"], target: Float[Tensor, "N"]) -> Float[Tensor, "M M"]:
    """Mean products of errors: w^T E w is the error of the blend, as the weights sum to one."""
    known = ~target.isnan()
    total = torch.zeros(len(forecasts), len(forecasts), dtype=torch.float64)
    for part, truth in zip(forecasts[:, known].split(CHUNK, 1), target[known].split(CHUNK), strict=True):
        errors = (part - truth).double()
        total += errors @ errors.T
    return total / known.sum()


def chosen_pull(grams: list[Tensor], pulls: tuple[float, ...]) -> float:
    """The pull whose weights do best on folds that they were not learned from; the strongest with a single fold."""
    if len(grams) == 1:
        return max(pulls)
    errors = []
    for pull in pulls:
        weights = [convex_weights(grams[:out] + grams[out + 1 :], pull) for out in range(len(grams))]
        errors.append(sum(float(w @ g @ w / g.mean()) for w, g in zip(weights, grams, strict=True)))
    return pulls[errors.index(min(errors))]


def convex_weights(grams: list[Tensor], pull: float) -> Float[Tensor, "M"]:
    """The weights of all folds together; the error of the even mean is the mean of all products of errors.

    pull: times |w - 1/M|^2, which is |w|^2 and a constant, as the weights sum to one.
    """
    gram = torch.stack([gram / gram.mean() for gram in grams]).mean(0)
    return simplex(gram + pull * torch.eye(len(gram), dtype=gram.dtype))


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
