import pytest
import torch

from .support import close, mixer, normal, run


def test_with_a_slot_for_every_token_it_is_softmax_attention():
    """Control that gives every token its own slot: the last token attends to all of them."""
    made = mixer("abc", head_dim=8, slots=6)
    q, k, v = [normal(1, 6, 1, 8, seed=s) for s in range(3)]
    made._project = lambda x: (q, k, v, 1e3 * torch.eye(6, dtype=torch.float64)[None, :, None])
    scores = torch.einsum("hk,thk->ht", q[0, -1], k[0, :])
    expected = torch.einsum("ht,thv->hv", scores.softmax(-1), v[0])
    close(run(made, normal(1, 6, 8))[:, -1], made.out(expected.flatten()[None]))


def test_control_of_any_size_stays_finite():
    made = mixer("abc", slots=4).float()
    with torch.no_grad():
        made.control.weight.mul_(1e4)
    x = normal(1, 300, 8).float().requires_grad_()
    y = run(made, x)
    assert y.isfinite().all() and torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_impossible_options():
    with pytest.raises(ValueError, match="slots >= 1; got 0"):
        mixer("abc", slots=0)
