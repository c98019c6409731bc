import random

import pytest

from runnel.drafters import prompt_lookup


@pytest.mark.parametrize(
    "config", [prompt_lookup.Config(), prompt_lookup.Config(max_ngram=2, min_ngram=1, max_draft=3)]
)
def test_it_copies_what_followed_the_newest_match(config):
    drafter, rng = prompt_lookup.PromptLookup(config), random.Random(0)
    found = 0
    for _ in range(30):
        text = [rng.randrange(4) for _ in range(2)]
        memory = drafter.begin(text, draw=None)
        for _ in range(15):
            new = [rng.randrange(4) for _ in range(rng.randrange(1, 4))]
            text += new
            drafter.advance(memory, new)
            start = prompt_lookup.reference(text, config)
            draft = drafter.propose(memory, budget=6)
            tokens, parents = draft.tokens, draft.parents
            if start is None:
                assert tokens == []
                continue
            found += 1
            assert len(tokens) == min(6, config.max_draft)
            assert parents == list(range(-1, len(tokens) - 1))
            whole = text + tokens
            assert tokens == whole[start : start + len(tokens)]
    assert found > 100


def test_a_longer_trigger_comes_first():
    drafter = prompt_lookup.PromptLookup(prompt_lookup.Config(max_ngram=2, min_ngram=1, max_draft=1))
    memory = drafter.begin([1, 2, 8, 5, 2, 9, 1, 2], draw=None)
    assert drafter.propose(memory, budget=4).tokens == [8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_ngram": 0}, r"min_ngram must lie in \[1, max_ngram = 4\]; got 0"),
        ({"min_ngram": 3, "max_ngram": 2}, r"min_ngram must lie in \[1, max_ngram = 2\]; got 3"),
        ({"max_draft": 0}, "max_draft must be at least 1; got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        prompt_lookup.Config(**options)
