"""What the heads' drafters share: who is taught what, and the loss of each objective, by the definition."""

import pytest
import torch

from runnel.drafters import hydra
from runnel.objectives import clover as clover_loss
from runnel.objectives import hydra as hydra_loss
from runnel.objectives import medusa as medusa_loss
from runnel.types import IGNORE, Batch
from tests.decoding.support import sharp
from tests.trained.support import shaken

SEGMENTS = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def drafter():
    return shaken(hydra.Hydra(hydra.Config(sharp(), heads=3)))


def batch(segments=None):
    tokens = torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[1, 3] = IGNORE
    if segments is not None:
        targets[0, 3] = IGNORE  # what follows the first document is no continuation of it
    return Batch(inputs, targets, segments)


def by_hand(drafter, batch):
    """(head, logits, token, the target's logits) of every guess: place by place, document by document."""
    found = []
    segments = torch.zeros_like(batch.inputs) if batch.segments is None else batch.segments
    for row, document in [(r, d) for r in range(2) for d in segments[r].unique().tolist()]:
        kept = segments[row] == document
        inputs, targets = batch.inputs[row][kept], batch.targets[row][kept].tolist()
        read = drafter.target.read(inputs[None])
        for place in range(len(inputs)):
            for head in (1, 2, 3):
                if place + head < len(inputs) and targets[place + head] != IGNORE:
                    logits = drafter.guess(read.hidden[0, place], inputs[place + 1 : place + 1 + head])
                    found.append((head, logits, targets[place + head], read.logits[0, place + head]))
    return found


def mean(losses, weights):
    """The weighted mean over heads of the mean over guesses."""
    heads = {head: [loss for h, loss in losses if h == head] for head, _ in losses}
    return sum(weights[h] * sum(own) / len(own) for h, own in heads.items()) / sum(weights[h] for h in heads)


@torch.no_grad()
@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_losses_are_means_over_heads_of_means_over_guesses(drafter, segments):
    guesses = by_hand(drafter, batch(segments))
    assert {head for head, *_ in guesses} == {1, 2, 3}
    hard = [(head, -logits.log_softmax(-1)[token]) for head, logits, token, _ in guesses]
    soft = [(head, -(law.softmax(-1) * logits.log_softmax(-1)).sum()) for head, logits, _, law in guesses]
    powers = {head: 0.8**head for head in (1, 2, 3)}
    torch.testing.assert_close(medusa_loss.loss(drafter, batch(segments)), mean(hard, powers))
    torch.testing.assert_close(clover_loss.loss(drafter, batch(segments)), mean(hard, dict.fromkeys((1, 2, 3), 1.0)))
    torch.testing.assert_close(hydra_loss.loss(drafter, batch(segments)), mean(soft, powers))


def test_rows_with_nothing_to_guess_are_an_error(drafter):
    with pytest.raises(ValueError, match="no head has anything to guess"):
        medusa_loss.loss(drafter, Batch(torch.zeros(1, 1).long(), torch.zeros(1, 1).long()))
    with pytest.raises(ValueError, match="heads must be at least 1; got 0"):
        hydra.Config(sharp(), heads=0)
