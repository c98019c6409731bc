import torch
from torch.nn.functional import elu

from .support import close, mixer, normal, run


def test_equals_the_quadratic_form():
    """Eq. 8 of the paper: attention with weights phi(q).phi(k), normalised."""
    made = mixer("linear_attention", head_dim=8, conv=1)
    x = normal(2, 30, 8)
    q, k, v = made.qkv(x * made.conv_weight[:, 0]).chunk(3, dim=-1)
    scores = ((elu(q) + 1) @ (elu(k) + 1).mT).tril()
    close(run(made, x), made.out(scores / scores.sum(-1, keepdim=True) @ v))


def test_constant_values_come_back():
    """A convex combination of equal values is that value, at ten thousand tokens too."""
    made = mixer("linear_attention", head_dim=8, conv=1)
    with torch.no_grad():
        made.conv_weight.fill_(1.0)
        made.qkv.weight[16:] = 0
        made.qkv.weight[16:, 0] = 1.0
        made.out.weight.copy_(torch.eye(8))
        x = normal(1, 10_000, 8)
        x[:, :, 0] = 0.7
        close(run(made, x), torch.full_like(x, 0.7))
