import torch
from torch.nn.functional import softplus

from runnel import Lineage

from .support import close, mixer, normal, run


def test_decays_begin_on_the_papers_ring():
    """With the recurrence gate fully open, a is in [0.9, 0.999] before the power of c."""
    made = mixer("rg_lru", d_model=512)
    root = (-softplus(made.decay)).exp()
    assert root.min() >= 0.9 - 1e-6 and root.max() <= 0.999 + 1e-6
    close(root.square().mean(), torch.tensor((0.81 + 0.998001) / 2, dtype=torch.float64), bound=0.01)


def test_the_first_token_of_every_document_is_written_whole():
    """Also inside a packed row: h is i * u there, and later tokens are scaled by sqrt(1 - a^2)."""
    made = mixer("rg_lru", conv=1)
    x = normal(1, 6, 8)
    seen = []
    made._output = lambda h, y: seen.append(h) or h
    made(x, made.init_state(1), Lineage.packed(torch.tensor([[0, 0, 0, 1, 1, 1]])))
    u = made.x_and_y(x).chunk(2, dim=-1)[0] * made.conv_weight[:, 0]
    close(seen[0][:, [0, 3]], (made._gates(u)[1] * u)[:, [0, 3]])


def test_closed_recurrence_gates_keep_gradients_finite():
    """r at exp(-1e4): a = 1, nothing is written, and no gradient of the square root blows up."""
    made = mixer("rg_lru").float()
    with torch.no_grad():
        made.gate_bias[0] = -1e4
    x = normal(1, 20, 8).float().requires_grad_()
    grads = torch.autograd.grad(run(made, x).sum(), [x, *made.parameters()])
    assert all(g.isfinite().all() for g in grads)
