import pytest
import torch

from runnel.drafters import medusa
from tests.decoding.support import sharp
from tests.trained.support import shaken


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 3])
def test_each_head_is_the_papers(layers):
    drafter = shaken(medusa.Medusa(medusa.Config(sharp(), heads=3, layers=layers)))
    hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for head in (1, 2, 3):
        logits = drafter.guess(hidden, torch.zeros(4, head, dtype=torch.long))
        for row in range(4):
            torch.testing.assert_close(logits[row], medusa.reference(drafter, hidden[row], head), rtol=0, atol=1e-9)


@torch.no_grad()
def test_it_begins_as_the_target_and_sees_no_token():
    drafter = medusa.Medusa(medusa.Config(sharp(), heads=2))
    hidden = torch.randn(1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for tokens in ([[1]], [[1, 2]]):
        torch.testing.assert_close(drafter.guess(hidden, torch.tensor(tokens)), sharp().head(hidden))
    assert all(own.data_ptr() != other.data_ptr() for own in drafter.parameters() for other in sharp().parameters())


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="layers must be at least 1; got 0"):
        medusa.Config(sharp(), layers=0)
