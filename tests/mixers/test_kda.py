import pytest
import torch

from .support import close, mixer, normal, run


def test_with_decays_that_all_channels_share_it_is_the_gated_delta_rule():
    """Weights of gated_deltanet, whose decay is one number per head, give its outputs up to the output gate."""
    kda, gated = mixer("kda"), mixer("gated_deltanet")
    with torch.no_grad():
        kda.decay.map[1].weight.copy_(kda.decay.map[1].weight[:1].expand(8, 8))
        kda.decay.bias.fill_(-2.0)
        gated.decay_bias.fill_(-2.0)
        gated.log_a.copy_(kda.decay.log_a[:, 0])
        gated.qkv.weight.copy_(kda.inputs.project.weight)
        gated.conv_weight.copy_(kda.inputs.conv_weight)
        shared = kda.decay.map[1].weight[:1] @ kda.decay.map[0].weight
        gated.rates.weight.copy_(torch.cat([shared, kda.beta.weight]))
        kda.gate[1].weight.zero_()
        kda.gate[1].bias.fill_(50.0)  # open
        gated.gate.weight.zero_()
        gated.norm.weight.mul_(2.0)
        gated.out.weight.copy_(kda.out.weight)
    x = normal(2, 100, 8)
    gated._output = lambda y, _: gated.out(gated.norm(y).flatten(-2)) / 2
    close(run(kda, x), run(gated, x))


def test_channels_forget_at_rates_of_their_own():
    made = mixer("kda")
    _, log_decay = made._rates(normal(1, 50, 8))
    assert log_decay.shape == (1, 50, 1, 8) and (log_decay < 0).all()
    assert log_decay.std(-1).min() > 0


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="rank >= 1; got 0"):
        mixer("kda", rank=0)
    with pytest.raises(ValueError, match=r"0 < beta_max <= 2; got 2\.5"):
        mixer("kda", beta_max=2.5)
