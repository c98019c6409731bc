import pytest
import torch

from .support import close, mixer, normal, run


def test_equals_masked_attention_without_softmax():
    made, x = mixer("minimax_attention", heads=2, head_dim=3, rate=0.7), normal(2, 20, 8)
    q, k, v = made._project(x)
    steps = torch.arange(20)
    distance = (steps[:, None] - steps).double()
    slopes = 0.7 * torch.tensor([2.0**-4, 2.0**-8]).double()
    decays = torch.where(distance >= 0, (-slopes[:, None, None] * distance).exp(), 0.0)
    y = torch.einsum("bthk,bshk,hts,bshv->bthv", q, k, decays, v)
    close(run(made, x), made._output(y, x))


def test_a_rate_of_zero():
    with pytest.raises(ValueError, match="needs rate > 0; got 0"):
        mixer("minimax_attention", rate=0)
