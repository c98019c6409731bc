import pytest
import torch

from runnel.drafters import falcon
from runnel.generation import generate
from runnel.trained.relaxed import relaxed
from tests.decoding.support import RAGGED, sharp
from tests.trained.support import shaken


def make(**options):
    return shaken(falcon.Falcon(falcon.Config(sharp(), **options)))


def likeliest(logits, ahead, path):
    assert len(path) == ahead
    return int(logits.argmax())


@torch.no_grad()
@pytest.mark.parametrize("block", [1, 2, 3])
def test_each_draft_is_written_block_by_block(block):
    drafter, text = make(block=block, max_draft=5, window=6), [1, 2, 3, 4, 4, 1, 0, 2, 3, 1, 1]
    features = sharp().features(torch.tensor([text[:-1]]))[0][0]
    memory = drafter.begin(text, likeliest)
    drafter.read(memory, features)
    passes = []
    drafter.recurrence.register_forward_hook(lambda *_: passes.append(1))
    drafted = drafter.propose(memory, budget=9).tokens
    assert len(passes) == -(-5 // block)
    assert drafted == falcon.reference(drafter, features, text[1:], likeliest, 5)


def test_the_mask_is_causal_between_blocks_only():
    assert relaxed(5, 2).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert torch.equal(relaxed(6, 1), torch.ones(6, 6).tril().bool())


def test_wider_blocks_take_fewer_passes_for_the_same_drafts():
    counts = {}
    for block in (1, 2, 4):
        drafter, passes = make(block=block), []
        drafter.recurrence.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        stats = generate(sharp(), RAGGED, 20, "greedy", drafter).stats
        counts[block] = len(passes) / stats["drafted"]
    assert counts[4] < counts[2] < counts[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be at least 1; got 0"),
        ({"block": 4, "window": 3}, "window must be at least 4; got 3"),
        ({"recurrences": 0}, "recurrences must be at least 1; got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        falcon.Config(sharp(), **options)
