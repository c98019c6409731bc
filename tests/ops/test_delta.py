"""Delta scans against their loops: beta up to 2, decays per head and channel, chunks, steps, trees, gradients."""

import pytest
import torch
from torch.nn.functional import normalize

from runnel.lineage import Lineage
from runnel.ops.delta import delta_reference, delta_scan, dplr_reference, dplr_scan

from .support import check_tree, normal, same_with_gradients

DECAYS = {"none": 0.0, "mild": 0.05, "strong": 3.0, "brutal": 1e4}


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().requires_grad_()


def delta_inputs(length: int, strength: float, channels: bool = False, beta_max: float = 2.0):
    q, k = normal(2, length, 2, 3), leaf(normalize(normal(2, length, 2, 3, seed=1), dim=-1))
    v, beta = normal(2, length, 2, 4, seed=2), leaf(beta_max * normal(2, length, 2, seed=3).sigmoid())
    raw = normal(2, length, 2, 3, seed=4) if channels else normal(2, length, 2, seed=4)
    return [q, k, v, beta, leaf(-strength * raw**2), normal(2, 2, 3, 4, seed=5)]


def dplr_inputs(length: int, strength: float, channels: bool = True):
    q, k, v = normal(2, length, 2, 3), normal(2, length, 2, 3, seed=1), normal(2, length, 2, 4, seed=2)
    unit = normalize(normal(2, length, 2, 3, seed=3), dim=-1)
    rate = normal(2, length, 2, 3, seed=4).sigmoid()
    raw = normal(2, length, 2, 3, seed=5) if channels else normal(2, length, 2, seed=5)
    return [q, k, v, leaf(-unit), leaf(rate * unit), leaf(-strength * raw**2), normal(2, 2, 3, 4, seed=6)]


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("length", [1, 2, 16, 17, 64, 65, 150])
def test_delta_equals_the_loop(channels, strength, length):
    args = delta_inputs(length, strength, channels)
    same_with_gradients(delta_scan(*args, Lineage.sequence(2, length)), delta_reference(*args), args)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("length", [1, 2, 16, 17, 64, 65, 150])
def test_dplr_equals_the_loop(channels, strength, length):
    args = dplr_inputs(length, strength, channels)
    same_with_gradients(dplr_scan(*args, Lineage.sequence(2, length)), dplr_reference(*args), args)


@pytest.mark.parametrize("strength", DECAYS.values(), ids=DECAYS)
def test_trees(strength):
    *tokens, memory = delta_inputs(9, strength)
    check_tree(delta_scan, delta_reference, tokens, memory)
    *tokens, memory = dplr_inputs(9, strength)
    check_tree(dplr_scan, dplr_reference, tokens, memory)


def test_beta_of_two_reflects():
    """With beta = 2, a unit key and no decay the transition is a reflection: twice the same key changes nothing."""
    key = normalize(normal(1, 1, 1, 3, grad=False), dim=-1).expand(1, 2, 1, 3)
    memory = normal(1, 1, 3, 4, grad=False)
    zeros = torch.zeros(1, 2, 1, dtype=torch.float64)
    _, after = delta_scan(key, key, key.new_zeros(1, 2, 1, 4), zeros + 2, zeros, memory, Lineage.sequence(1, 2))
    torch.testing.assert_close(after, memory, rtol=1e-12, atol=1e-12)


def test_gated_delta_is_a_case_of_dplr():
    """S (a I - a b k k^T) + b v k^T, written as diagonal plus low rank."""
    q, k, v, beta, log_decay, memory = delta_inputs(40, 0.1)
    lineage = Lineage.sequence(2, 40)
    read = -(log_decay.exp() * beta)[..., None] * k
    general = dplr_scan(q, k, beta[..., None] * v, read, k, log_decay, memory, lineage)
    same_with_gradients(
        delta_scan(q, k, v, beta, log_decay, memory, lineage), general, [q, k, v, beta, log_decay, memory]
    )
