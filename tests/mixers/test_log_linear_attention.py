import pytest
import torch

from runnel.ops.outer import reference

from .support import close, mixer, normal, run


def test_with_equal_weights_it_is_gated_linear_attention():
    made = mixer("log_linear_attention", head_dim=4)
    with torch.no_grad():
        made.level.weight.zero_()
    x = normal(2, 100, 8)
    q, k, v, log_decay, scales = made._project(x)
    assert scales.unique().numel() == 1
    y, _ = reference(q, k, v, log_decay, torch.zeros(2, 2, 4, 4, dtype=torch.float64))
    close(run(made, x), made._output(scales.mean() * y, x))


def test_a_token_can_be_read_by_its_distance_alone():
    """With weight on one level only, the last of 8 tokens sees exactly the bucket of that level."""
    made = mixer("log_linear_attention", head_dim=8, levels=5)
    q, k, v, log_decay, _ = made._project(normal(1, 8, 8))
    made._output = lambda y, x: y.flatten(-2)
    for level, members in ((0, [7]), (1, [6]), (2, [4, 5]), (3, [0, 1, 2, 3])):
        scales = torch.nn.functional.one_hot(torch.tensor(level), 5).double().expand(1, 8, 1, 5)
        made._project = lambda x, scales=scales: (q, k, v, 0 * log_decay, scales)
        scores = (q[0, 7] * k[0, members]).sum(-1)
        close(run(made, normal(1, 8, 8))[0, 7], (scores * v[0, members, 0]).sum(0))


@pytest.mark.parametrize("levels", [1, 49])
def test_impossible_options(levels):
    with pytest.raises(ValueError, match="2 <= levels <= 48"):
        mixer("log_linear_attention", levels=levels)
