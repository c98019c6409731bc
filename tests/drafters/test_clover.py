import pytest
import torch

from runnel.drafters import clover
from tests.decoding.support import sharp
from tests.trained.support import shaken


@torch.no_grad()
@pytest.mark.parametrize("augment", [None, "mingru"])
def test_each_head_is_the_papers(augment):
    drafter = shaken(clover.Clover(clover.Config(sharp(), heads=3, augment=augment)))
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 16, generator=random, dtype=torch.float64)
    for head in (1, 2, 3):
        tokens = torch.randint(0, 5, (4, head), generator=random)
        logits = drafter.guess(hidden, tokens)
        for row in range(4):
            wanted = clover.reference(drafter, hidden[row], tokens[row].tolist())
            torch.testing.assert_close(logits[row], wanted, rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_order_of_the_branch_matters():
    """The states hand on what they saw: it is no bag of tokens."""
    drafter = shaken(clover.Clover(clover.Config(sharp(), heads=3)))
    hidden = torch.zeros(1, 16, dtype=torch.float64)
    one, other = [drafter.guess(hidden, torch.tensor([tokens])) for tokens in ([1, 2, 3], [2, 1, 3])]
    assert not torch.allclose(one, other)
