import pytest
import torch
from torch import nn

from .support import close, mixer, normal, run


def test_equals_pytorchs_multihead_attention_without_positions():
    """With one far-apart rotation base, no query norm and positions at rest, it is nn.MultiheadAttention."""
    made = mixer("attention", head_dim=4, qk_norm=False, rope_base=float("inf"))
    x = normal(2, 1, 8).expand(2, 1, 8)
    torch_form = nn.MultiheadAttention(8, 2, bias=False, batch_first=True).double()
    with torch.no_grad():
        torch_form.in_proj_weight.copy_(made.qkv.weight)
        torch_form.out_proj.weight.copy_(made.out.weight)
    close(run(made, x), torch_form(x, x, x, need_weights=False)[0])


def test_order_matters_only_through_positions():
    """Permuting the past of the last token changes its output: rope carries the order."""
    made = mixer("attention")
    x = normal(1, 5, 8)
    assert not torch.allclose(run(made, x)[:, -1], run(made, x[:, [1, 0, 3, 2, 4]])[:, -1])


def test_window_forgets_exactly():
    made = mixer("attention", window=3)
    x, y = normal(1, 9, 8), normal(1, 9, 8)
    y[:, :6] = normal(1, 6, 8, seed=9)
    close(run(made, x)[:, -1], run(made, y)[:, -1])
    assert not torch.allclose(run(made, x)[:, -2], run(made, y)[:, -2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 3}, "head_dim must divide d_model; got head_dim 3, d_model 8"),
        ({"kv_heads": 3, "head_dim": 2}, "kv_heads that divide 4"),
        ({"window": 0}, "window >= 1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        mixer("attention", **options)
