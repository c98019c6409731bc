"""Rotary positions: lengths are kept, and scores depend on distance only."""

import torch

from runnel.ops.rope import rope

from .support import close, normal


def test_scores_depend_on_distance_only():
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)
    scores = [(rope(q, torch.tensor([[p]])) * rope(k, torch.tensor([[p - 5]]))).sum() for p in (5, 17, 1_000, 100_000)]
    for score in scores[1:]:
        close(score, scores[0])
    close(rope(q, torch.tensor([[12]])).norm(), q.norm())


def test_rotation_by_the_papers_matrix():
    """Eq. 15 for one pair: the half-split layout pairs channel i with channel i + K/2."""
    x = normal(1, 1, 1, 4, grad=False)
    angle = torch.tensor([3.0, 3.0 / 100.0], dtype=torch.float64)
    a, b = x[0, 0, 0, :2], x[0, 0, 0, 2:]
    expected = torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()])
    close(rope(x, torch.tensor([[3]]))[0, 0, 0], expected)
