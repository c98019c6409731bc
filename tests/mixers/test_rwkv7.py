import math

import torch

import runnel

from .support import mixer, normal, run


def test_decays_are_bounded_as_the_paper_says():
    """w in (exp(-e^-0.5), 1): about 0.545 to 1, whatever the input (section 4)."""
    made = mixer("rwkv7")
    with torch.no_grad():
        made.decay[2].weight.mul_(10)
    x = 100 * normal(1, 50, 8)
    log_decay = made._project(x, torch.zeros_like(x), {})[5]
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


def test_later_layers_mix_with_the_values_of_the_first():
    """A gate that is open, sigmoid(large) = 1, takes nothing but the first layer's values; one that is shut, none."""
    model = runnel.build("(rwkv7+none)*3", vocab_size=5, d_model=8).double()
    first, *later = model.mixers
    assert (first.gives, first.takes) == ({"value": 8}, ()) and not hasattr(first, "mix")
    x, zero = normal(1, 6, 8), torch.zeros(1, 6, 8, dtype=torch.float64)
    for made in later:
        assert (made.gives, made.takes) == ({}, ("value",))
        with torch.no_grad():
            made.mix_bias.fill_(40.0)
            assert run(made, x, value=zero).abs().max() < 1e-12
            made.mix_bias.fill_(-40.0)
            torch.testing.assert_close(run(made, x, value=zero), run(made, x, value=normal(1, 6, 8, seed=1)))
