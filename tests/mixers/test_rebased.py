import pytest
import torch

from runnel.ops.features import pairs

from .support import close, mixer, normal, run


def test_inner_products_of_pairs_are_squares():
    q, k = normal(2, 30, 5), normal(2, 30, 5, seed=1)
    close((pairs(q) * pairs(k)).sum(-1), (q * k).sum(-1) ** 2)


def test_a_token_can_be_given_no_weight_at_all():
    """A key orthogonal to the query: its value does not matter. Under Based's kernel it always would."""
    made = mixer("rebased", head_dim=8, feature_dim=4)
    q, k, v = normal(1, 3, 1, 4), normal(1, 3, 1, 4, seed=1), normal(1, 3, 1, 8, seed=2)
    k[:, 1] -= (k[:, 1] * q[:, 2]).sum() / q[:, 2].pow(2).sum() * q[:, 2]
    outputs = []
    for value in (v, v + torch.tensor([0.0, 1e3, 0.0]).view(1, 3, 1, 1)):
        made._project = lambda x, value=value: (q, k, value)
        outputs.append(run(made, normal(1, 3, 8))[:, 2])
    close(outputs[0], outputs[1])


@pytest.mark.parametrize("options", [{"feature_dim": 1}, {"floor": 0.0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="feature_dim >= 2 and floor > 0"):
        mixer("rebased", **options)
