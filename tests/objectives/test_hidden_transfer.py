import torch

from runnel.drafters import hydra
from runnel.objectives import hidden_transfer
from runnel.types import Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken


class Oracle(hydra.Hydra):
    """Heads that say the very law that they are taught, or a flattened one."""

    def guesses(self, batch):
        for guess in super().guesses(batch):
            yield guess._replace(logits=guess.taught * self.flat)


@torch.no_grad()
def test_it_is_how_far_the_laws_are_from_the_targets():
    drafter = shaken(Oracle(hydra.Config(sharp(), heads=2)))
    tokens = torch.randint(0, 5, (3, 9), generator=torch.Generator().manual_seed(0))
    rows = Batch(tokens[:, :-1], tokens[:, 1:])
    drafter.flat = 1.0
    torch.testing.assert_close(hidden_transfer.loss(drafter, rows), torch.zeros(()).double(), rtol=0, atol=1e-12)
    drafter.flat = 0.5
    wanted = []
    for guess in drafter.guesses(rows):
        law, own = guess.taught.softmax(-1), guess.logits.softmax(-1)
        wanted.append((law * (law / own).log()).sum(-1).mean())
    torch.testing.assert_close(hidden_transfer.loss(drafter, rows), sum(wanted) / 2)
