import torch
from torch.nn.functional import softplus

from runnel import Lineage

from .support import close, mixer, normal, run


def test_equals_the_log_space_scan_of_the_paper():
    """Appendix B's stable form, on candidates made positive so that logarithms exist, at length 2,000."""
    made = mixer("minlstm", conv=1, expand=1.0, forget_bias=1.0)
    with torch.no_grad():
        made.conv_weight.fill_(1.0)
        made.gates_and_candidate.weight[16:].abs_()
        made.out.weight.copy_(torch.eye(8))
        x = normal(1, 2_000, 8).abs() + 0.1
        f, i, candidate = made._project(x)
        difference = softplus(-f) - softplus(-i)
        log_keep, log_write = -softplus(difference).cumsum(1), -softplus(-difference) + candidate.log()
        expected = (log_keep + torch.logcumsumexp(log_write - log_keep, dim=1)).exp()
        close(run(made, x), expected, bound=1e-8)


def test_what_is_kept_and_what_is_written_sum_to_one():
    """With a constant candidate the state tends to it and never passes it, whatever the gates do."""
    made = mixer("minlstm", conv=1)
    project = made._project
    made._project = lambda x: (*project(x)[:2], torch.ones_like(project(x)[2]))
    _, state = made(normal(2, 400, 8), made.init_state(2), Lineage.sequence(2, 400))
    close(state.h, torch.ones_like(state.h))


def test_closed_gates_are_no_trouble():
    """Both gates at exp(-1e4) in float32: their ratio is still 1 to 1."""
    made = mixer("minlstm", conv=1).float()
    with torch.no_grad():
        made.gates_and_candidate.weight[: -made.d_state].zero_()
        made.bias.fill_(-1e4)
    x = normal(1, 30, 8).float().requires_grad_()
    y = run(made, x)
    assert y.isfinite().all() and torch.autograd.grad(y.sum(), x)[0].isfinite().all()
    candidate = made._project(x * made.conv_weight[:, 0])[2][:, 0]
    close(y[:, 0], made.out(candidate / 2), bound=1e-6)
