import torch
from torch.nn.functional import silu

from .support import close, mixer, normal, run


def test_without_forgetting_it_is_unnormalised_linear_attention():
    made = mixer("gla", head_dim=8)
    with torch.no_grad():
        made.gate[1].weight.zero_()
        made.gate[1].bias.fill_(1e9)
    x = normal(2, 40, 8)
    q, k = made.qk(x).chunk(2, dim=-1)
    y = (q @ k.mT).tril() @ made.v(x) * made.key_width**-0.5
    close(run(made, x), made.out(made.norm(y) * silu(made.r(x))))


def test_gates_that_close_at_once_are_survived():
    """Log-decays of -1e6 a token: finite outputs and gradients, nothing remembered."""
    made = mixer("gla")
    with torch.no_grad():
        made.gate[1].bias.fill_(-1e6 * made.temperature)
    x = normal(1, 40, 8).requires_grad_()
    y = run(made, x)
    (gradient,) = torch.autograd.grad(y[:, -1].sum(), x)
    assert y.isfinite().all() and gradient.isfinite().all()
    assert gradient[:, :-1].abs().max() == 0 and gradient[:, -1].abs().max() > 0
