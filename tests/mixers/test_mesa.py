import pytest
import torch

from .support import close, mixer, normal, run


def test_the_map_it_reads_minimises_the_loss_over_the_past():
    """Ridge regression by least squares on all past pairs, weighted by beta and the decays since."""
    made = mixer("mesa", d_model=4)
    x = normal(1, 30, 4)
    q, k, v = made.inputs.reference(x)
    log_decay, beta, penalty = made._rates(x)
    since = (log_decay.sum(1, keepdim=True) - log_decay.cumsum(1)).exp()  # decay from each token to the last
    weights = (since * beta[..., 0]).sqrt()[0]  # (T, 1)
    rows = torch.cat([weights * k[0, :, 0], penalty[0].sqrt().diag()])
    targets = torch.cat([weights * v[0, :, 0], torch.zeros(4, 4, dtype=torch.float64)])
    best = torch.linalg.lstsq(rows, targets).solution  # (K, V)
    close(run(made, x)[:, -1], made._output((q[:, -1] @ best)[:, None])[:, 0])


def test_too_few_products_leave_an_error_that_falls():
    """One head of 8 channels: 8 products are enough, fewer are not."""
    x = normal(1, 60, 8)
    with torch.no_grad():
        exact = mixer("mesa").reference(x)
        errors = [(run(mixer("mesa", iterations=n), x) - exact).abs().max().item() for n in (1, 3, 10)]
    assert errors[0] > errors[1] > 1e-6 and errors[2] < 1e-12


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="iterations >= 1; got 0"):
        mixer("mesa", iterations=0)
    with pytest.raises(ValueError, match="0 < penalty_min < 1; got 0"):
        mixer("mesa", penalty_min=0)
