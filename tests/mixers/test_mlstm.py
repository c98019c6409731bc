import torch
from torch.nn.functional import logsigmoid

from runnel.ops import conv
from runnel.ops.matrix_cell import Tokens

from .support import close, mixer, normal, run


def projected(made, x):
    tail = torch.zeros(x.shape[0], made.conv_weight.shape[1] - 1, 8, dtype=x.dtype)
    return made._project(x, conv.reference(x, made.conv_weight, None, tail)[0])


def test_equals_the_parallel_form_without_a_stabiliser():
    """D_tj = product of forget gates after j, times exp(i_j); the normaliser is max(|sum of the row|, 1)."""
    made = mixer("mlstm", head_dim=4)
    with torch.no_grad():
        made.gates.weight.copy_(normal(4, 8))
    x = normal(2, 40, 8)
    q, k, v, i, log_f = projected(made, x)
    forgotten = log_f.cumsum(1)
    decay = (forgotten[:, :, None] - forgotten[:, None] + i[:, None]).exp().permute(0, 3, 1, 2).tril()
    scores = torch.einsum("bthk,bjhk->bhtj", q, k) * decay
    y = scores @ v.transpose(1, 2) / scores.sum(-1, keepdim=True).abs().clamp(min=1)
    close(run(made, x), made._output(y.transpose(1, 2), x))


def test_huge_gates_do_not_overflow():
    """Input gates of exp(+-1e4) in float32: finite outputs and gradients; a closed gate lets nothing through."""
    made = mixer("mlstm").float()
    x = normal(1, 30, 8).float().requires_grad_()
    for gate in (1e4, -1e4):
        with torch.no_grad():
            made.i_bias.fill_(gate)
        y = run(made, x)
        assert y.isfinite().all() and torch.autograd.grad(y.sum(), x)[0].isfinite().all()
        assert (y.abs().max() < 1e-20) == (gate < 0)


def test_forget_gates_begin_spread():
    made = mixer("mlstm", head_dim=2)
    assert logsigmoid(made.f_bias).exp().min() > 0.9 and made.f_bias.unique().numel() == 4


def test_a_pair_is_stored_and_read_back():
    """The covariance rule: after strong writes under two keys, the first key gives its own value back."""
    made = mixer("mlstm", head_dim=8)
    q = k = torch.eye(8, dtype=torch.float64)[None, [2, 5, 2], None]
    v, gates = normal(1, 3, 1, 8), torch.tensor([[[3.0], [3.0], [-50.0]]], dtype=torch.float64)
    made._project = lambda x, smooth: Tokens(q, k, v, gates, torch.zeros_like(gates))
    made._output = lambda y, x: y[:, :, 0]
    close(run(made, normal(1, 3, 8))[:, -1], v[:, 0, 0])
