import torch
from torch.nn.functional import softplus

from .support import close, mixer, normal, run


def test_equals_the_log_space_scan_of_the_paper():
    """Algorithm of appendix B, on candidates made positive so that logarithms exist, at length 2,000."""
    made = mixer("mingru", conv=1, expand=1.0)
    with torch.no_grad():
        made.conv_weight.fill_(1.0)
        made.gate_and_candidate.weight[8:].abs_()
        made.out.weight.copy_(torch.eye(8))
        x = normal(1, 2_000, 8).abs() + 0.1
        gate, candidate = made.gate_and_candidate(x).chunk(2, dim=-1)
        log_keep, log_write = (-softplus(gate)).cumsum(1), -softplus(-gate) + candidate.log()
        expected = (log_keep + torch.logcumsumexp(log_write - log_keep, dim=1)).exp()
        close(run(made, x), expected, bound=1e-8)


def test_the_state_is_a_running_mean():
    """h is a convex combination of candidates, so it stays between their extremes."""
    made = mixer("mingru")
    x = normal(2, 300, 8)
    smooth = torch.nn.functional.pad(x, (0, 0, 3, 0))
    smooth = sum(smooth[:, w : w + 300] * made.conv_weight[:, w] for w in range(4))
    candidate = made.gate_and_candidate(smooth)[..., made.d_state :]
    from runnel import Lineage

    _, state = made(x, made.init_state(2), Lineage.sequence(2, 300))
    assert (state.h <= candidate.amax(1).clamp(min=0) + 1e-9).all()
    assert (state.h >= candidate.amin(1).clamp(max=0) - 1e-9).all()
