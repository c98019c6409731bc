import pytest
import torch

from runnel import Lineage

from .support import close, mixer, normal, run


@pytest.mark.parametrize("block", [1, 16, 64, 200])
def test_blocks_of_any_size_equal_the_quadratic_form(block):
    """The paper's check: blocks of 1, 16, 64 and the whole length, outputs and gradients."""
    made = mixer("lightning_attention", head_dim=2, depth=0.5)
    x = normal(1, 200, 8).requires_grad_()
    q, k, v, u = made._project(x)
    distance = (torch.arange(200)[:, None] - torch.arange(200)).double()
    slopes = 8 * torch.arange(4, dtype=torch.float64) / 4 * 0.5
    decay = (-slopes[:, None, None] * distance.clamp(min=0)).exp().tril()
    expected = made._output(torch.einsum("bthk,bjhk,htj,bjhv->bthv", q, k, decay, v), u)
    state, pieces = made.init_state(1), []
    for piece in x.split(block, dim=1):
        y, state = made(piece, state, Lineage.sequence(*piece.shape[:2]))
        pieces.append(y)
    y = torch.cat(pieces, dim=1)
    close(y, expected)
    close(torch.autograd.grad(y.sin().sum(), x)[0], torch.autograd.grad(expected.sin().sum(), x)[0])


def test_deeper_layers_forget_less_and_the_first_head_never():
    shallow = mixer("lightning_attention", head_dim=2).log_decay(normal(1, 1, 8))
    deep = mixer("lightning_attention", head_dim=2, depth=0.75).log_decay(normal(1, 1, 8))
    assert shallow[..., 0] == 0 and (shallow[..., 1:] < deep[..., 1:]).all() and (deep <= 0).all()


def test_a_constant_input_of_any_length_gives_bounded_outputs():
    made = mixer("lightning_attention")
    assert run(made, normal(1, 1, 8).expand(1, 5_000, 8)).isfinite().all()


def test_depth_is_a_fraction():
    with pytest.raises(ValueError, match="0 <= depth < 1; got 1"):
        mixer("lightning_attention", depth=1)
