import pytest
import torch

from .support import close, mixer, normal, run


def test_equals_the_parallel_form_without_a_stabiliser():
    made, x = mixer("xlstm_large", heads=2, key_factor=1.0), normal(2, 30, 8)
    with torch.no_grad():
        made.gates.weight.copy_(normal(4, 8))
        made.i_bias.zero_()
    (q, k, v, i, log_f), o = made._project(x)
    forgotten = log_f.cumsum(1)
    decay = (forgotten[:, :, None] - forgotten[:, None] + i[:, None]).exp().permute(0, 3, 1, 2).tril()
    scores = torch.einsum("bthk,bjhk->bhtj", q, k) * decay
    y = scores @ v.transpose(1, 2) / scores.sum(-1, keepdim=True).abs().clamp(min=1)
    close(run(made, x), made._output(y.transpose(1, 2), o))


def test_gates_stay_within_the_cap():
    made, x = mixer("xlstm_large", cap=2.0), normal(1, 5, 8)
    with torch.no_grad():
        made.i_bias.fill_(1e6)
    assert float(made._project(x)[0].i.detach().max()) <= 2.0


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="divide the widths of its keys and values, 4 and 8; got 3"):
        mixer("xlstm_large", heads=3)
