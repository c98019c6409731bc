"""The loss by the definition is held in tests/trained/test_heads.py; here: what it is the least for."""

import torch

from runnel.drafters import hydra as hydra_drafter
from runnel.objectives import hydra
from runnel.types import Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken


class Oracle(hydra_drafter.Hydra):
    """Heads that say the very law that they are taught, or a flattened one."""

    def guesses(self, batch):
        for guess in super().guesses(batch):
            yield guess._replace(logits=guess.taught * self.flat)


def test_the_target_itself_is_best():
    drafter = shaken(Oracle(hydra_drafter.Config(sharp(), heads=2)))
    tokens = torch.randint(0, 5, (3, 9), generator=torch.Generator().manual_seed(0))
    rows = Batch(tokens[:, :-1], tokens[:, 1:])
    losses = {}
    for drafter.flat in (0.5, 1.0, 2.0):
        losses[drafter.flat] = float(hydra.loss(drafter, rows))
    assert losses[1.0] < min(losses[0.5], losses[2.0])
    entropy = [-(g.taught.softmax(-1) * g.taught.log_softmax(-1)).sum(-1).mean() for g in drafter.guesses(rows)]
    drafter.flat = 1.0
    torch.testing.assert_close(hydra.loss(drafter, rows), (entropy[0] + 0.8 * entropy[1]) / 1.8)
