import pytest
import torch

from runnel import Lineage
from runnel.ops.delta import delta_scan

from .support import mixer, normal


def test_a_key_is_overwritten_not_added_to():
    """beta = 1, no decay: after writing twice under one key, reading it gives the second value exactly."""
    key = torch.nn.functional.normalize(normal(1, 1, 1, 8), dim=-1).expand(1, 2, 1, 8)
    values, ones = normal(1, 2, 1, 4), torch.ones(1, 2, 1, dtype=torch.float64)
    memory = torch.zeros(1, 1, 8, 4, dtype=torch.float64)
    y, _ = delta_scan(key, key, values, ones, 0 * ones, memory, Lineage.sequence(1, 2))
    torch.testing.assert_close(y, values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("beta_max", "lowest"), [(1.0, 0.0), (2.0, -1.0)])
def test_eigenvalues_of_the_transition(beta_max, lowest):
    """a (I - beta k k^T) has the eigenvalue a (1 - beta) along k: negative only when beta may pass 1."""
    made = mixer("gated_deltanet", beta_max=beta_max)
    with torch.no_grad():
        made.rates.weight.mul_(1e3)
        beta, log_decay = made._rates(normal(1, 200, 8))
    along = log_decay.exp() * (1 - beta)
    assert along.min() >= lowest - 1e-9
    assert (along.min() < 0) == (beta_max > 1)


def test_beta_beyond_two_is_refused():
    with pytest.raises(ValueError, match=r"0 < beta_max <= 2; got 2\.5"):
        mixer("gated_deltanet", beta_max=2.5)
