import pytest
import torch

from .support import close, mixer, normal, run


def test_with_mu_of_one_it_sees_one_token_and_with_zero_only_the_one_before():
    made, x = mixer("channel_mix"), normal(1, 10, 8)
    with torch.no_grad():
        made.mu.fill_(1.0)
        alone = made.r(x).sigmoid() * made.out(made.k(x).clamp(min=0) ** 2)
        close(run(made, x), alone)
        made.mu.fill_(0.0)
        close(run(made, x)[:, 1:], alone[:, :-1])


def test_no_hidden_channels():
    with pytest.raises(ValueError, match="channel_mix needs hidden >= 1; got 0"):
        mixer("channel_mix", hidden=0)
