import random

import pytest

from runnel.drafters import Draft, suffix


@pytest.mark.parametrize("alphabet", [1, 2, 3, 10])
def test_the_longest_match_is_that_of_brute_force(alphabet):
    rng, matched = random.Random(alphabet), 0
    for _ in range(15):
        memory, text = suffix.Automaton(), []
        for _ in range(60):
            # copying now and then makes matches long enough for splits to move them
            new = text[rng.randrange(len(text)) :][:8] if text and rng.random() < 0.1 else [rng.randrange(alphabet)]
            for token in new:
                text.append(token)
                memory.append(token)
                length, end = suffix.reference(text)
                assert (memory.match_length, memory.match_end if memory.match else 0) == (length, end)
                matched += length > 2
    assert matched > 20


def test_it_stays_small():
    """At most 2 states and 3 edges per token, whatever the text."""
    rng, memory = random.Random(0), suffix.Automaton()
    for count in range(1, 3000):
        memory.append(rng.randrange(2))
        if count > 2:
            assert len(memory.edges) <= 2 * count - 1
    assert sum(len(edges) for edges in memory.edges) <= 3 * 2999


def test_it_copies_and_goes_on_with_a_period():
    drafter = suffix.Suffix(suffix.Config(min_match=2, max_draft=7))
    memory = drafter.begin([1, 2, 3, 4, 9, 2, 3], draw=None)
    assert drafter.propose(memory, budget=2) == Draft.chain([4, 9])
    drafter.advance(memory, [4, 5])
    assert drafter.propose(memory, budget=20).tokens == []
    drafter.advance(memory, [6, 5, 6])
    assert drafter.propose(memory, budget=20).tokens == [5, 6] * 3 + [5]


def test_short_matches_are_not_worth_a_draft():
    drafter = suffix.Suffix(suffix.Config(min_match=3))
    memory = drafter.begin([1, 2, 3, 7, 1, 2], draw=None)
    assert drafter.propose(memory, budget=5).tokens == []
    drafter.advance(memory, [3])
    assert drafter.propose(memory, budget=5).tokens == [7, 1, 2, 3, 7]


@pytest.mark.parametrize("option", ["min_match", "max_draft"])
def test_impossible_options_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1; got 0"):
        suffix.Config(**{option: 0})
