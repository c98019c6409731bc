import torch
from torch.nn.functional import silu

from .support import close, mixer, normal, run


def test_equals_the_masked_attention_of_the_duality():
    """Y = (L * C B^T) (dt X), L_ts the product of decays after s up to t: the quadratic form of the paper's title."""
    made = mixer("mamba2", head_dim=4)
    u = normal(2, 70, 8)
    z, mixed, dt = made._input(u)
    padded = torch.nn.functional.pad(mixed, (0, 0, 3, 0))
    mixed = sum(padded[:, w : w + 70] * made.conv_weight[:, w] for w in range(4)) + made.conv_bias
    x, b, c = made._split(silu(mixed))
    log_a = (-dt * made.log_a.exp()).cumsum(1)
    decay = (log_a[:, :, None] - log_a[:, None]).exp().permute(0, 3, 1, 2).tril()
    scores = decay * (c[:, :, 0] @ b[:, :, 0].mT)[:, None]
    y = (scores @ (dt[..., None] * x).transpose(1, 2)).transpose(1, 2) + made.skip * x
    close(run(made, u), made.out(made.norm(y.flatten(-2), silu(z))))


def test_state_does_not_grow():
    made = mixer("mamba2", d_model=32, d_state=16)
    assert made.init_state(1).memory.shape == (1, made.heads, 16, made.width)
    assert made.heads * made.width == 64
