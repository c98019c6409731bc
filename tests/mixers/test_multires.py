import pytest
import torch
from torch.nn.functional import conv1d, gelu, pad

from .support import close, mixer, normal, run


def test_equals_a_tree_of_dilated_convolutions():
    made = mixer("multires", filters=3, levels=4)
    x = normal(2, 70, 8)
    low, z = x.mT, made.weights[:, -1:] * x.mT
    for level in range(4):
        padded = pad(low, (2**level * 2, 0))
        low, fine = [
            conv1d(padded, filters.flip(-1)[:, None], dilation=2**level, groups=8) for filters in (made.low, made.high)
        ]
        z = z + made.weights[:, 4 - level, None] * fine
    z = z + made.weights[:, :1] * low
    close(run(made, x), made.out(gelu(z.mT)))


def test_it_sees_as_far_as_it_says_and_no_farther():
    """(K - 1) (2^J - 1) tokens back: 14 for three taps and three levels."""
    made = mixer("multires", filters=3, levels=3)
    x = normal(1, 40, 8).requires_grad_()
    (slope,) = torch.autograd.grad(run(made, x)[0, -1].sum(), x)
    seen = slope[0].abs().amax(-1) > 0
    assert seen[39 - 14] and seen[39] and not seen[: 39 - 14].any()


def test_haar_filters_hold_averages_and_differences():
    """With averages and half differences, a signal is the sum of its coefficients: the coarsest and every detail."""
    made = mixer("multires", filters=2, levels=5)
    with torch.no_grad():
        made.low.copy_(torch.tensor([0.5, 0.5]))
        made.high.copy_(torch.tensor([0.5, -0.5]))
        made.weights[:] = 1.0
        made.weights[:, -1] = 0.0
    x = normal(1, 80, 8)
    close(run(made, x), made.out(gelu(x)))


def test_more_levels_see_twice_as_far_for_one_weight_more():
    count = [sum(p.numel() for p in mixer("multires", levels=n).parameters()) for n in (5, 6)]
    assert count[1] - count[0] == 8


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="filters >= 2 taps wide; got 1"):
        mixer("multires", filters=1)
    with pytest.raises(ValueError, match="1 <= levels <= 12; got 0"):
        mixer("multires", levels=0)
