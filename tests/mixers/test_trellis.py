import pytest
import torch

from .support import close, mixer, normal, run


def as_lstm(levels: int, width: int = 8):
    """A trellis with the paper's sparse weights, and the LSTM that it truncates."""
    made, lstm = mixer("trellis", levels=levels), torch.nn.LSTM(8, width, batch_first=True).double()
    with torch.no_grad():
        made.x.weight[:, :8].zero_(), made.z.weight[:, width:].zero_()
        lstm.weight_ih_l0.copy_(made.x.weight[:, 8:])
        lstm.weight_hh_l0.copy_(made.z.weight[:, :width])
        lstm.bias_ih_l0.copy_(made.x.bias)
        lstm.bias_hh_l0.zero_()
    return made, lstm


def test_with_sparse_weights_it_is_a_truncated_lstm():
    """Theorem 1: every output is that of an LSTM which starts `levels` tokens ago."""
    made, lstm = as_lstm(levels=5)
    x = normal(2, 20, 8)
    expected = [lstm(x[:, max(0, t - 4) : t + 1])[0][:, -1] for t in range(20)]
    close(run(made, x), made.out(torch.stack(expected, dim=1)))


def test_it_sees_exactly_one_token_more_than_it_has_levels():
    made = mixer("trellis", levels=4)
    x = normal(1, 12, 8).requires_grad_()
    reach = torch.autograd.grad(run(made, x)[0, -1].sum(), x)[0][0].abs().sum(-1) > 0
    assert reach.tolist() == [False] * 7 + [True] * 5


def test_no_levels_are_refused():
    with pytest.raises(ValueError, match="levels >= 1 and width >= 1; got levels 0"):
        mixer("trellis", levels=0)
