import pytest
import torch

from runnel.drafters import hydra
from tests.decoding.support import sharp
from tests.trained.support import shaken


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 3])
def test_each_head_is_the_papers(layers):
    drafter = shaken(hydra.Hydra(hydra.Config(sharp(), heads=3, layers=layers)))
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 16, generator=random, dtype=torch.float64)
    for head in (1, 2, 3):
        tokens = torch.randint(0, 5, (4, head), generator=random)
        logits = drafter.guess(hidden, tokens)
        for row in range(4):
            wanted = hydra.reference(drafter, hidden[row], tokens[row].tolist())
            torch.testing.assert_close(logits[row], wanted, rtol=0, atol=1e-9)


@torch.no_grad()
def test_every_token_of_the_branch_matters():
    drafter = shaken(hydra.Hydra(hydra.Config(sharp(), heads=3)))
    hidden = torch.zeros(1, 16, dtype=torch.float64)
    one, *others = [drafter.guess(hidden, torch.tensor([t])) for t in ([1, 2, 3], [0, 2, 3], [1, 0, 3], [1, 2, 0])]
    assert all(not torch.allclose(one, other) for other in others)


@torch.no_grad()
def test_the_prefix_attention_sees_the_whole_text():
    drafter = shaken(hydra.Hydra(hydra.Config(sharp(), heads=2, prefix="attention")))
    hidden = sharp().features(torch.tensor([[1, 2, 3, 0, 4, 1]]))[0][0]
    memories = [drafter.begin([0], draw=None) for _ in range(2)]
    drafter.read(memories[0], hidden)
    drafter.read(memories[1], hidden[-2:])
    drafter._look(memories)
    assert not torch.allclose(memories[0].hidden, memories[1].hidden)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="layers must be at least 1; got 0"):
        hydra.Config(sharp(), layers=0)
    with pytest.raises(ValueError, match="no mixer is called 'atention'"):
        hydra.Hydra(hydra.Config(sharp(), prefix="atention"))
