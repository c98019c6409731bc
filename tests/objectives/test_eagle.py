import pytest
import torch

from runnel.drafters import eagle as drafters
from runnel.objectives import eagle
from runnel.types import Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken


def rows(segments=None):
    tokens = torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(1))
    return Batch(tokens[:, :-1], tokens[:, 1:], segments)


@torch.no_grad()
@pytest.mark.parametrize("split", [None, 3])
def test_it_is_regression_and_distillation_over_documents(split):
    drafter = shaken(drafters.Eagle(drafters.Config(sharp()))).eval()
    segments = None if split is None else (torch.arange(7) >= split).long().expand(2, -1)
    batch = rows(segments)
    regression, classes = [], []
    for row in batch.inputs:
        for document in [row] if split is None else [row[:split], row[split:]]:
            target = drafter.target.read(document[None])
            guessed, following = drafter.foresee(target.hidden[:, :-1], document[None, 1:])
            for place in range(len(document) - 1):
                off = (following[0, place] - target.hidden[0, place + 1]).abs()
                regression.append(torch.where(off < 1, off**2 / 2, off - 0.5).mean())
                law, own = target.logits[0, place + 1].softmax(-1), drafter.law(guessed[0, place]).log_softmax(-1)
                classes.append(-(law * own).sum())
    wanted = sum(regression) / len(regression) + 0.1 * sum(classes) / len(classes)
    torch.testing.assert_close(eagle.loss(drafter, batch), wanted)


@torch.no_grad()
def test_the_noise_is_of_training_alone():
    drafter = shaken(drafters.Eagle(drafters.Config(sharp())))
    noisy = [float(eagle.loss(drafter.train(), rows())) for _ in range(2)]
    plain = [float(eagle.loss(drafter.eval(), rows())) for _ in range(2)]
    assert noisy[0] != noisy[1] and plain[0] == plain[1]


def test_rows_without_a_pair_are_an_error():
    drafter = drafters.Eagle(drafters.Config(sharp()))
    with pytest.raises(ValueError, match="rows of at least two tokens"):
        eagle.loss(drafter, Batch(torch.zeros(1, 1).long(), torch.zeros(1, 1).long()))
    with pytest.raises(ValueError, match="documents of at least two tokens"):
        eagle.loss(drafter, Batch(*[torch.zeros(1, 3).long()] * 2, torch.arange(3)[None]))
