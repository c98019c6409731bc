import torch

from .support import close, mixer, normal, run


def test_equals_the_sum_of_the_paper():
    """The sum written out: weights exp(-(t-1-j) w + k_j) of the past, exp(u + k_t) of the token itself."""
    made = mixer("rwkv4")
    x = normal(2, 100, 8)
    r, k, v = made._project(x, torch.nn.functional.pad(x, (0, 0, 1, -1)))
    age = (torch.arange(100)[:, None] - torch.arange(100) - 1.0).double()[..., None]
    log_weight = (-age * made.decay.exp() + k[:, None]).masked_fill(age < 0, -torch.inf)
    own = torch.eye(100, dtype=torch.bool)[..., None]
    weights = torch.where(own, made.bonus + k[:, None], log_weight).softmax(2)  # (B, t, j, D)
    close(run(made, x), made.out(r * (weights * v[:, None]).sum(2)))


def test_keys_of_a_thousand_in_float32():
    """The running maximum keeps sums of exp(+-1000) finite, and the result a mean of values."""
    made = mixer("rwkv4").float()
    for sign in (1, -1):
        k, v = (1e3 * sign + normal(1, 300, 8)).float().requires_grad_(), normal(1, 300, 8, seed=1).float()
        made._project = lambda x, shifted, k=k, v=v: (torch.ones_like(v), k, v)
        with torch.no_grad():
            made.out.weight.copy_(torch.eye(8))
        y = run(made, torch.zeros(1, 300, 8))
        assert y.isfinite().all() and torch.autograd.grad(y.sum(), k)[0].isfinite().all()
        assert (y <= v.amax(1) + 1e-5).all() and (y >= v.amin(1) - 1e-5).all()


def test_the_first_token_reads_only_itself():
    made = mixer("rwkv4")
    x = normal(1, 1, 8)
    r, _, v = made._project(x, torch.zeros_like(x))
    close(run(made, x), made.out(r * v))
