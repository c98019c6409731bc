import math

import pytest
import torch

import runnel
from runnel.objectives import next_token
from runnel.types import IGNORE, Batch


@pytest.fixture
def model():
    return runnel.build("mingru, attention", vocab_size=11, d_model=16, seed=0).double()


def draw(rows, length):
    tokens = torch.randint(0, 11, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:].clone()


def test_it_is_the_mean_over_the_targets_that_count(model):
    inputs, targets = draw(3, 9)
    targets[0, 4:] = IGNORE
    targets[2] = IGNORE
    log_probs = model(inputs)[0].log_softmax(-1)
    nats = [-log_probs[b, t, targets[b, t]] for b in range(3) for t in range(9) if targets[b, t] != IGNORE]
    assert len(nats) == 13
    torch.testing.assert_close(next_token.loss(model, Batch(inputs, targets)), torch.stack(nats).mean())


def test_packed_documents_are_scored_as_if_alone(model):
    inputs, targets = draw(1, 12)
    segments = torch.tensor([[0] * 5 + [1] * 7])
    packed = next_token.loss(model, Batch(inputs, targets, segments))
    first = next_token.loss(model, Batch(inputs[:, :5], targets[:, :5]))
    second = next_token.loss(model, Batch(inputs[:, 5:], targets[:, 5:]))
    torch.testing.assert_close(packed, (5 * first + 7 * second) / 12)
    joined = next_token.loss(model, Batch(inputs, targets))
    assert not math.isclose(packed.item(), joined.item(), rel_tol=1e-4)


def test_no_target_at_all_is_an_error(model):
    inputs, targets = draw(2, 3)
    with pytest.raises(ValueError, match="at least one target; all 6 are IGNORE"):
        next_token.loss(model, Batch(inputs, torch.full_like(targets, IGNORE)))
