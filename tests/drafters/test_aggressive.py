import random

import pytest

from runnel.drafters import aggressive
from runnel.drafters.aggressive import Aggressive, Config
from runnel.generation import generate
from tests.decoding.support import sharp


@pytest.mark.parametrize("alphabet", [2, 4, 30])
def test_the_cursor_is_that_of_brute_force(alphabet):
    rng, lost, found = random.Random(alphabet), 0, 0
    for _ in range(30):
        source = [rng.randrange(alphabet) for _ in range(rng.randrange(1, 25))]
        drafter, written = Aggressive(Config(source=source, max_draft=4)), []
        memory = drafter.begin([0], draw=None)
        for _ in range(20):
            ahead = source[memory.cursor or 0 :][: rng.randrange(1, 5)]
            new = ahead if ahead and rng.random() < 0.5 else [rng.randrange(alphabet)]
            written += new
            drafter.advance(memory, new)
            cursor = aggressive.reference(source, written)
            assert memory.cursor == cursor
            draft = drafter.propose(memory, 6)
            assert draft.tokens == ([] if cursor is None else source[cursor : cursor + 4])
            assert draft.parents == list(range(-1, len(draft.tokens) - 1))
            lost += cursor is None
            found += cursor is not None
    assert lost > 20 and found > 20


def test_it_goes_on_after_a_change_an_insertion_and_a_gap():
    drafter = Aggressive(Config(source=[1, 2, 3, 4, 5, 6, 7, 8], max_draft=3))
    memory = drafter.begin([0], draw=None)
    assert drafter.propose(memory, 2).tokens == [1, 2]
    for new, expected in (([1, 9], []), ([3], [4, 5, 6]), ([4, 9], []), ([5], [6, 7, 8]), ([6, 8], [])):
        drafter.advance(memory, new)
        assert drafter.propose(memory, 9).tokens == expected


def test_a_repeated_token_waits_until_its_place_is_clear():
    drafter = Aggressive(Config(source=[5, 1, 2, 5, 3, 4]))
    memory = drafter.begin([0], draw=None)
    drafter.advance(memory, [9, 5])
    assert drafter.propose(memory, 9).tokens == []
    drafter.advance(memory, [3])
    assert drafter.propose(memory, 9).tokens == [4]


@pytest.mark.parametrize(
    ("prompt", "source"),
    [([7, 0, 1, 2], [1, 2]), ([7, 0, 1, 2, 0], [1, 2]), ([1, 2, 0], [1, 2]), ([1, 2], [1, 2]), ([0], []), ([0, 0], [])],
)
def test_the_source_is_found_after_the_last_separator(prompt, source):
    assert Config(separator=0).source_of(prompt) == source
    assert Config().source_of(prompt) == prompt


@pytest.mark.parametrize("pattern", ["attention", "mingru", "mamba2, attention(window=5)"])
def test_a_corrected_copy_takes_far_fewer_calls_than_tokens(pattern):
    """Sources that differ from what the model writes in one token of twenty."""
    model, rng, length = sharp(pattern, vocab_size=32), random.Random(0), 80
    prompts = [[rng.randrange(32) for _ in range(4)] for _ in range(3)]
    plain = generate(model, prompts, length, seed=2).tokens
    sources = {
        tuple(prompt): [rng.randrange(32) if rng.random() < 0.05 else token for token in tokens]
        for prompt, tokens in zip(prompts, plain, strict=True)
    }
    assert any(source != tokens for source, tokens in zip(sources.values(), plain, strict=True))
    config = Config(source=lambda prompt: sources[tuple(prompt)])
    found = generate(model, prompts, length, seed=2, drafter=config)
    assert found.tokens == plain
    assert found.stats["target_calls"] / length < 0.4


@pytest.mark.parametrize("pattern", ["attention", "mingru"])
def test_a_thousand_random_prompts(pattern):
    model, rng = sharp(pattern), random.Random(0)
    prompts = [[rng.randrange(5) for _ in range(rng.randrange(1, 9))] for _ in range(1000)]
    plain = generate(model, prompts, 6, decoder="greedy")
    found = generate(model, prompts, 6, decoder="greedy", drafter=Config(separator=4))
    assert found.tokens == plain.tokens
    assert found.stats["accepted"] > 100


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="max_draft must be at least 1; got 0"):
        Config(max_draft=0)
    with pytest.raises(ValueError, match="give the source or a separator before it, not both"):
        Config(source=[1], separator=2)
