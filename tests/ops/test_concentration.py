"""Meters of concentration on matrices whose values are known, and moment matching on Gaussian inputs."""

import math

import pytest
import torch

from runnel.ops.concentration import entropy, matched_scale, spectral_gap

from .support import close, normal


def test_entropy_and_gap_of_known_matrices():
    eye, uniform = torch.eye(8, dtype=torch.float64), torch.full((8, 8), 1 / 8, dtype=torch.float64)
    swap = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)  # eigenvalues 1 and 0.6
    close(entropy(torch.stack([eye, uniform])), torch.tensor([0.0, 3.0], dtype=torch.float64))
    close(spectral_gap(torch.stack([eye, uniform])), torch.tensor([0.0, 1.0], dtype=torch.float64))
    close(spectral_gap(swap), torch.tensor(0.4, dtype=torch.float64))


def test_sharper_softmax_has_less_entropy():
    scores = normal(64, 64, grad=False)
    found = [float(entropy((scores * sharpness).softmax(-1))) for sharpness in (0.1, 1.0, 10.0)]
    assert math.log2(64) > found[0] > found[1] > found[2] > 0


def test_the_papers_line_at_width_64():
    """The authors fit sigma~^2 = (sigma_q^2 sigma_k^2 + 0.355) / (2 * 0.1486): 2.136 at variance 1."""
    assert matched_scale(64, 1.0) == pytest.approx(math.sqrt((1 + 0.35487) / (2 * 0.148552)), rel=0.03)


@pytest.mark.parametrize(("width", "variance"), [(8, 1.0), (64, 1.0), (64, 4.0)])
def test_log_variances_match_after_moment_matching(width, variance):
    """Logits of softmax, and logs of weights of exponential features, of the same Gaussian queries and keys."""
    q, k = normal(400, width, grad=False), normal(400, width, seed=1, grad=False)
    softmax = variance**0.5 * q @ k.T / width**0.5
    scale = matched_scale(width, variance)
    linear = (scale * (q[:, None] + k)).logsumexp(-1)
    unmatched = (q[:, None] + k).logsumexp(-1)
    assert float(linear.var()) == pytest.approx(float(softmax.var()), rel=0.1)
    assert unmatched.var() < softmax.var() / 2, "without matching the weights are all alike"
