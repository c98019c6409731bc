import pytest
import torch

from runnel.drafters import fastdraft as drafters
from runnel.objectives import fastdraft
from runnel.types import Batch
from tests.decoding.support import chi_square, law_of, sharp
from tests.trained.support import shaken


@torch.no_grad()
def test_it_is_distillation_at_every_written_place():
    drafter = shaken(drafters.FastDraft(drafters.Config(sharp())))
    prompts = torch.randint(0, 5, (3, 8), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    tokens, _ = fastdraft.written(drafter.target, prompts[:, :2], 6)
    nats = []
    for row in tokens:
        law = drafter.target(row[None])[0][0].softmax(-1)
        own = drafter.exits(row[None])[0][0].log_softmax(-1)
        nats += [-(law[t] * own[t]).sum() for t in range(1, 7)]
    torch.manual_seed(5)
    torch.testing.assert_close(fastdraft.loss(drafter, Batch(prompts, prompts)), torch.stack(nats).mean())


def test_the_target_writes_by_its_own_law():
    target, draws = sharp(scale=5.0), 4000
    torch.manual_seed(0)
    tokens, _ = fastdraft.written(target, torch.tensor([[1, 2]]).expand(draws, -1), 2)
    law = law_of(target, [1, 2], 2)
    texts = [tuple(text) for text in tokens[:, 2:].tolist()]
    assert chi_square({text: texts.count(text) for text in law}, law) < 42.98  # 24 degrees of freedom, p = 0.01


def test_rows_of_one_token_are_an_error():
    drafter = drafters.FastDraft(drafters.Config(sharp()))
    with pytest.raises(ValueError, match="at least two tokens, so that something can be written"):
        fastdraft.loss(drafter, Batch(torch.zeros(2, 1).long(), torch.zeros(2, 1).long()))
