import random

import pytest

from runnel.drafters import Draft, suffix


@pytest.mark.parametrize("alphabet", [2, 3, 10])
def test_it_copies_what_followed_the_longest_match(alphabet):
    rng, found = random.Random(alphabet), 0
    drafter = suffix.Suffix(suffix.Config(min_match=2, max_draft=4))
    for _ in range(15):
        text = [rng.randrange(alphabet)]
        memory = drafter.begin(text, draw=None)
        for _ in range(30):
            new = text[rng.randrange(len(text)) :][:8] if rng.random() < 0.1 else [rng.randrange(alphabet)]
            text += new
            drafter.advance(memory, new)
            length, end = suffix.reference(text)
            drafted = drafter.propose(memory, budget=9).tokens
            assert len(drafted) == (4 if length >= 2 else 0)
            assert drafted == (text + drafted)[end : end + len(drafted)]
            found += length >= 2
    assert found > 20


def test_it_copies_and_goes_on_with_a_period():
    drafter = suffix.Suffix(suffix.Config(min_match=2, max_draft=7))
    memory = drafter.begin([1, 2, 3, 4, 9, 2, 3], draw=None)
    assert drafter.propose(memory, budget=2) == Draft.chain([4, 9], trust=2)
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
