import math

import torch

from .support import mixer, normal, run


def test_decays_are_bounded_as_the_paper_says():
    """w in (exp(-e^-0.5), 1): about 0.545 to 1, whatever the input (section 4)."""
    made = mixer("rwkv7")
    with torch.no_grad():
        made.decay[2].weight.mul_(10)
    x = 100 * normal(1, 50, 8)
    log_decay = made._project(x, torch.zeros_like(x))[5]
    assert log_decay.max() <= 0 and log_decay.min() >= -math.exp(-0.5)
    assert log_decay.min() < -0.5 and log_decay.max() > -0.01


def test_token_shift_reads_the_token_before():
    """With mu = 1 everywhere the layer sees only the previous token: the first output sees zeros."""
    made = mixer("rwkv7")
    with torch.no_grad():
        made.mu.fill_(1.0)
    x, y = normal(1, 6, 8), normal(1, 6, 8)
    y[:, -1] += 1.0
    torch.testing.assert_close(run(made, x), run(made, y), rtol=1e-12, atol=1e-12)
