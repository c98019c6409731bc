import torch

from .support import close, mixer, normal, run


def test_the_transition_is_symmetric_with_one_eigenvalue_apart():
    """a - beta~ |k|^2 along the key, a across it: at most 1, and never below -1."""
    made = mixer("comba")
    with torch.no_grad():
        made.rates.weight.mul_(10.0)
        _, erased, log_decay = made._rates(normal(1, 300, 8))
    along = log_decay.exp() - erased[..., 0]
    assert along.min() < 0 and along.min() > -1 and log_decay.exp().max() <= 1


def test_without_correction_and_feedback_it_is_a_decayed_sum():
    """sigmoid(b) = 0 and d = 0: S_t = a S_p + beta v k^T, by a sum over all pairs."""
    made = mixer("comba")
    with torch.no_grad():
        made.feedback.fill_(-1e3)
        made.correction.zero_()
    x = normal(2, 40, 8)
    q, k, v = made.inputs.reference(x)
    beta, _, log_decay = made._rates(x)
    total = log_decay.cumsum(1).transpose(1, 2)  # (B, H, T)
    decay = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
    weights = torch.einsum("bthk,bjhk->bhtj", q, k) * decay
    y = torch.einsum("bhtj,bjhv->bthv", weights, beta * v)
    close(run(made, x), made._output(y, x))


def test_the_correction_takes_the_own_key_off_the_query():
    """With d so that q - d k is across k, a token that writes into an empty state reads nothing."""
    made = mixer("comba")
    x = normal(1, 1, 8)
    q, k, _ = made.inputs.reference(x)
    with torch.no_grad():
        made.correction.copy_((q * k).sum(-1, keepdim=True)[0, 0])
        made.norm.eps = 1.0
    assert run(made, x).abs().max() < 1e-9
