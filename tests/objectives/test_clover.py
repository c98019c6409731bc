"""The loss by the definition is held in tests/trained/test_heads.py; here: what it is the least for."""

import torch

from runnel.drafters import hydra
from runnel.objectives import clover
from runnel.types import Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken


def test_all_heads_count_alike():
    drafter = shaken(hydra.Hydra(hydra.Config(sharp(), heads=2)))
    tokens = torch.randint(0, 5, (3, 9), generator=torch.Generator().manual_seed(0))
    rows = Batch(tokens[:, :-1], tokens[:, 1:])
    near, far = [clover.cross_entropy(guess.logits, guess.tokens) for guess in drafter.guesses(rows)]
    torch.testing.assert_close(clover.loss(drafter, rows), (near + far) / 2)
