import pytest
import torch

from runnel import Lineage
from runnel.ops.learner import Learner, Trained, learn

from .support import close, mixer, normal


def linear_memory(rates: torch.Tensor, tokens: list[torch.Tensor]):
    """A memory of one layer that begins at zero, gradients taken after every token."""
    batch, length, heads, width = tokens[0].shape
    zero = torch.zeros(heads, width + 1, width, dtype=torch.float64)
    rows = (zero.expand(batch, *zero.shape),)
    rates = rates.expand(batch, length, heads, 3)
    return learn(Learner((zero,)), *tokens, rates, 1, Trained(rows, rows, rows), Lineage.sequence(batch, length))


def test_a_linear_memory_without_momentum_is_the_gated_delta_rule():
    """M = a M - theta (M k - v) k^T: forgetting and correction side by side; the bias is one more key channel of 1."""
    q, k, v = [normal(2, 40, 2, 4, seed=s) for s in range(3)]
    rates = torch.tensor([0.1, -0.05, -1e9], dtype=torch.float64)
    y, _ = linear_memory(rates, [q, k, v])
    ones = torch.ones(2, 40, 2, 1, dtype=torch.float64)
    q, k = torch.cat([q, ones], -1), torch.cat([k, ones], -1)
    s, outputs = torch.zeros(2, 2, 5, 4, dtype=torch.float64), []
    for t in range(40):
        key = k[:, t, :, :, None]
        s = rates[1].exp() * s + 0.1 * key @ (v[:, t, :, None] - key.mT @ s)
        outputs.append((q[:, t, :, None] @ s)[:, :, 0])
    close(y, torch.stack(outputs, dim=1))


def test_momentum_goes_on_moving_the_memory_after_the_surprise():
    """After one pair, tokens of zero surprise: steps shrink by eta each, and sum up to 1 / (1 - eta) of the first."""
    k, v = torch.zeros(1, 200, 1, 4, dtype=torch.float64), torch.zeros(1, 200, 1, 4, dtype=torch.float64)
    k[:, 0, 0, 0], v[:, 0, 0, 1] = 1.0, 1.0
    eta = torch.tensor(0.8, dtype=torch.float64)
    rates = torch.zeros(1, 200, 1, 3, dtype=torch.float64)
    rates[:, 0, :, 0], rates[..., 2] = 0.1, eta.log()
    _, memory = linear_memory(rates, [k, k, v])
    close(memory.now[0][0, 0, 0, 1], torch.tensor(0.1, dtype=torch.float64) / (1 - eta))


def test_full_forgetting_empties_the_memory():
    made = mixer("titans")
    with torch.no_grad():
        made.rates.weight.zero_()
        made.rates_bias.copy_(torch.tensor([[-1e9], [-1e9], [-1e9]]))
    _, state = made(normal(1, 3, 8), made.init_state(1), Lineage.sequence(1, 3))
    for learned, first in zip(state.memory.now, made.initial, strict=True):
        close(learned[0] + first, torch.zeros_like(first))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="layers 0, expand 2, batch 16"):
        mixer("titans", layers=0)
    with pytest.raises(ValueError, match="theta_max > 0; got 0"):
        mixer("titans", theta_max=0)
