import pytest
import torch

from runnel.drafters import nested as drafters
from runnel.objectives import nested, next_token
from runnel.types import IGNORE, Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken

PATTERN = "mingru, attention"
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0] * 7])


@torch.no_grad()
@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_every_exit_counts_alike(segments):
    drafter = shaken(drafters.Nested(drafters.Config(sharp(PATTERN))))
    tokens = torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(0))
    targets = tokens[:, 1:].clone()
    targets[1, 4] = IGNORE
    batch, losses = Batch(tokens[:, :-1], targets, segments), []
    for depth in (0, 1):
        nats = []
        for row in (0, 1):
            parts = [slice(0, 7)] if segments is None or row else [slice(0, 3), slice(3, 7)]
            for part in parts:
                law = drafter.exits(batch.inputs[row : row + 1, part])[depth][0].log_softmax(-1)
                nats += [-own[t] for own, t in zip(law, targets[row, part].tolist(), strict=True) if t != IGNORE]
        losses.append(sum(nats) / len(nats))
    torch.testing.assert_close(nested.loss(drafter, batch), (losses[0] + losses[1]) / 2)


@torch.no_grad()
def test_one_exit_at_the_end_is_next_token_training():
    drafter = drafters.Nested(drafters.Config(sharp(PATTERN), exits=(2,)))
    tokens = torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(nested.loss(drafter, batch), next_token.loss(sharp(PATTERN), batch))


def test_no_target_at_all_is_an_error():
    drafter = drafters.Nested(drafters.Config(sharp(PATTERN)))
    with pytest.raises(ValueError, match="at least one target; all 3 are IGNORE"):
        nested.loss(drafter, Batch(torch.zeros(1, 3).long(), torch.full((1, 3), IGNORE)))
