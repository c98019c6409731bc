import torch
from torch.nn.functional import logsigmoid, silu

from runnel.ops import conv

from .support import close, mixer, normal, run


def test_the_stabiliser_changes_nothing():
    """The paper's claim for eq. 15-17: with plain exponentials (eq. 8-10) h is the same."""
    made = mixer("slstm", head_dim=8)
    x = normal(2, 12, 8)
    smooth = conv.reference(x, made.conv_weight, None, torch.zeros(2, 3, 8, dtype=torch.float64))[0]
    gates = torch.cat([made.z_and_o(x), made.i_and_f(silu(smooth))], dim=-1).unflatten(-1, (4, 8)) + made.bias
    h, c, n, outputs = torch.zeros(2, 8, dtype=torch.float64), 0, 0, []
    for t in range(12):
        z, o, i, f = (gates[:, t] + (h @ made.recurrent[0]).unflatten(-1, (4, 8))).unbind(1)
        c = f.sigmoid() * c + i.exp() * z.tanh()
        n = f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
        outputs.append(h)
    close(run(made, x), made._output(torch.stack(outputs, dim=1)))


def test_huge_gates_do_not_overflow():
    """Input gates of exp(+-1e4) in float32: finite, and the state is the average of what was let in."""
    made = mixer("slstm").float()
    for sign in (1.0, -1.0):
        with torch.no_grad():
            made.bias[2] = sign * 1e4
        x = normal(1, 30, 8).float().requires_grad_()
        y = run(made, x)
        assert y.isfinite().all() and torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_forget_gates_begin_spread():
    made = mixer("slstm", head_dim=8)
    assert logsigmoid(made.bias[3]).exp().min() > 0.9
