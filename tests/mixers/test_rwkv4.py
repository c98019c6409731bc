import pytest
import torch

from .support import close, mixer, normal, run


def test_equals_the_sum_of_the_paper():
    """The sum written out: weights exp(-(t-1-j) w + k_j) of the past, exp(u + k_t) of the token itself."""
    made = mixer("rwkv4")
    x = normal(2, 100, 8)
    r, k, v = made._project(x, torch.nn.functional.pad(x, (0, 0, 1, -1)))
    age = (torch.arange(100)[:, None] - torch.arange(100) - 1.0).double()[..., None, None]
    log_weight = (-age * made.decay.exp() + k[:, None]).masked_fill(age < 0, -torch.inf)
    own = torch.eye(100, dtype=torch.bool)[..., None, None]
    weights = torch.where(own, made.bonus + k[:, None], log_weight).softmax(2)  # (B, t, j, 1, D)
    close(run(made, x), made._output(r * (weights * v[:, None]).sum(2)))


def test_keys_of_a_thousand_in_float32():
    """The running maximum keeps sums of exp(+-1000) finite, and the result a mean of values."""
    made = mixer("rwkv4").float()
    for sign in (1, -1):
        k, v = (1e3 * sign + normal(1, 300, 1, 8)).float().requires_grad_(), normal(1, 300, 1, 8, seed=1).float()
        made._project = lambda x, shifted, k=k, v=v: (torch.ones_like(v), k, v)
        with torch.no_grad():
            made.out.weight.copy_(torch.eye(8))
        y = run(made, torch.zeros(1, 300, 8))
        assert y.isfinite().all() and torch.autograd.grad(y.sum(), k)[0].isfinite().all()
        assert (y <= v.amax((1, 2)) + 1e-5).all() and (y >= v.amin((1, 2)) - 1e-5).all()


def test_the_first_token_reads_only_itself():
    made = mixer("rwkv4")
    x = normal(1, 1, 8)
    r, _, v = made._project(x, torch.zeros_like(x))
    close(run(made, x), made._output(r * v))


def test_perspectives_begin_as_the_base_model_and_cost_little():
    """The paper's check: the same outputs at the start, though every perspective moves on its own state."""
    base, several = mixer("rwkv4", d_model=256), mixer("rwkv4", d_model=256, perspectives=3)
    for kind in ("r", "k", "v", "out"):
        getattr(several, kind).load_state_dict(getattr(base, kind).state_dict())
    x = normal(1, 30, 256)
    close(run(several, x), run(base, x))
    sizes = [sum(p.numel() for p in made.parameters()) for made in (base, several)]
    assert sizes[1] / sizes[0] < 1.01
    weights = normal(1, 30, 256, seed=1)
    gradient = torch.autograd.grad((run(several, x) * weights).sum(), several.share)[0]
    assert gradient.unique().numel() == 3 and (gradient != 0).all()


def test_impossible_options():
    with pytest.raises(ValueError, match="perspectives >= 1; got 0"):
        mixer("rwkv4", perspectives=0)
