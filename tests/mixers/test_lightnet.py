import torch

from .support import close, mixer, normal, run


def test_decays_and_writes_share_one():
    """What is kept and what is written add up to one in every channel: S is a mean, so constant values come back."""
    made = mixer("lightnet")
    q, k, _ = made._project(normal(1, 3_000, 8))
    made._project = lambda x: (torch.full_like(q, 1 / 8), k, torch.full_like(k, 0.7))
    made._output = lambda y, x: y.flatten(-2)
    close(run(made, normal(1, 3_000, 8)), torch.full((1, 3_000, 8), 0.7, dtype=torch.float64))


def test_a_normaliser_that_would_overflow_a_hundred_thousand_steps():
    """Keys that climb to 10,000 in float32: exp(k) and its sum are far beyond any float."""
    made = mixer("lightnet", head_dim=4).float()
    length = 100_000
    keys = torch.linspace(0, 1e4, length)[None, :, None, None].expand(1, length, 2, 4)
    q, v = torch.ones(1, length, 2, 4), normal(1, length, 2, 4).float()
    made._project = lambda x: (q, keys, v)
    made._output = lambda y, x: y.flatten(-2)
    with torch.no_grad():
        y = run(made, torch.zeros(1, length, 8))
    weights = keys[0, -400:, 0, 0].double().softmax(0)
    expected = 4 * (weights[:, None, None] * v[0, -400:].double()).sum(0)
    assert y.isfinite().all()
    close(y[0, -1].double(), expected.flatten(), bound=2e-3)  # float32 holds 10,000 to 1e-3
