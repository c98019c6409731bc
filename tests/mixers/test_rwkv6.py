import pytest
import torch

from .support import close, mixer, normal, run


def test_equals_the_quadratic_form():
    """A token reads what came before through the decays strictly between, and its own write through the bonus."""
    made = mixer("rwkv6", head_dim=4)
    with torch.no_grad():
        made.widen.add_(normal(5, 32, 8) / 10)
        made.decay.add_(normal(64, 8, seed=1) / 10)
    x = normal(1, 40, 8)
    r, k, v, log_decay, gate = made._project(x, torch.nn.functional.pad(x, (0, 0, 1, -1)))
    sums = log_decay.cumsum(1)
    between = (sums[:, :, None] - log_decay[:, :, None] - sums[:, None]).exp()  # (B, t, j, H, K): after j, before t
    scores = torch.einsum("bthk,btjhk,bjhk->bhtj", r, between, k).tril(-1)
    y = torch.einsum("bhtj,bjhv->bthv", scores, v) + (r * made.bonus * k).sum(-1, keepdim=True) * v
    close(run(made, x), made._output(y, gate))


@pytest.mark.parametrize(("rank", "moves"), [(32, True), (0, False)])
def test_decays_depend_on_the_input_in_finch_and_not_in_eagle(rank, moves):
    made = mixer("rwkv6", rank=rank)
    with torch.no_grad():
        made.decay.fill_(0.1)
    log_decay = made._project(normal(1, 20, 8), torch.zeros(1, 20, 8, dtype=torch.float64))[3]
    assert (log_decay < 0).all()
    assert (log_decay[:, 1:] != log_decay[:, :1]).any() == moves


def test_impossible_options():
    with pytest.raises(ValueError, match="rank >= 0; got -1"):
        mixer("rwkv6", rank=-1)
