import pytest
import torch

from runnel.drafters import fastdraft
from tests.decoding.support import sharp
from tests.trained.support import shaken

PATTERN = "mingru*2, attention(window=4)*2"


def test_block_efficiency_is_the_mean_run_of_acceptances():
    for rate in (0.0, 0.3, 0.9, 1.0):
        for length in (0, 1, 4):
            assert fastdraft.block_efficiency(rate, length) == pytest.approx(fastdraft.reference(rate, length))
    accepted = torch.rand(200_000, 4, generator=torch.Generator().manual_seed(0)) < 0.7
    measured = float(accepted.cumprod(1).sum(1).double().mean()) + 1
    assert fastdraft.block_efficiency(0.7, 4) == pytest.approx(measured, rel=0.01)


def test_a_draft_that_costs_nothing_gains_its_block_efficiency():
    assert fastdraft.memory_bound_speedup(0.7, 4, 1e9) == pytest.approx(fastdraft.block_efficiency(0.7, 4))
    assert fastdraft.memory_bound_speedup(0.7, 4, 1.0) < 1


def test_the_draft_is_a_small_target():
    target = sharp(PATTERN)
    drafter = fastdraft.FastDraft(fastdraft.Config(target, layers=2))
    kinds = [type(layer.mixer).__name__ for layer in drafter.parts[0].layers]
    assert kinds == ["MinGRU", "Attention"]
    sizes = [sum(p.numel() for p in part.parameters()) for part in (drafter, target)]
    assert sizes[0] < sizes[1] / 3
    assert drafter.exits(torch.tensor([[1, 2, 3]]))[0].shape == (1, 3, 5)


@torch.no_grad()
def test_it_drafts_what_its_own_model_writes():
    drafter = shaken(fastdraft.FastDraft(fastdraft.Config(sharp(PATTERN), layers=2, max_draft=3)))
    text = [1, 2, 3, 0]
    memory = drafter.begin(text, lambda logits, ahead, path: int(logits.argmax()))
    drafted = drafter.propose(memory, budget=9).tokens
    for _ in range(3):
        text.append(int(drafter.exits(torch.tensor([text]))[0][0, -1].argmax()))
    assert drafted == text[4:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 5}, r"layers must lie in \[1, 4\], the target's; got 5"),
        ({"narrower": 3}, "narrower must divide the target's width 16; got 3"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fastdraft.Config(sharp(PATTERN), **options)
