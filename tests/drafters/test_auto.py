import random

from runnel.drafters import auto
from runnel.generation import generate
from tests.decoding.support import sharp


class Never:
    def __call__(self, logits, ahead, path=(), branch=0):
        raise AssertionError("auto draws nothing")


def repeating(seed, length=300):
    """Words of a few tokens, drawn anew and again: some copies hold, some do not."""
    rng = random.Random(seed)
    words = [[rng.randrange(8) for _ in range(rng.randrange(2, 7))] for _ in range(6)]
    return [token for _ in range(length // 4) for token in rng.choice(words)][:length]


def test_the_copy_is_that_of_the_literal_search():
    for min_match in (1, 2, 4):
        drafter = auto.Auto(auto.Config(min_match=min_match))
        text = repeating(min_match, 120)
        memory = drafter.begin(text[:1], Never())
        for end in range(1, len(text) + 1):
            at, size, _ = auto.reference(text[:end], min_match)
            assert (memory.at, memory.size) == (at, size)
            draft = drafter.propose(memory, 3)
            assert bool(draft.tokens) == (size > 0)
            assert size == 0 or draft.tokens[0] == text[at]
            if end < len(text):
                drafter.advance(memory, [text[end]])


def test_chances_are_how_often_copies_were_right():
    drafter, text = auto.Auto(auto.Config(min_match=2)), repeating(0)
    memory = drafter.begin(text, Never())
    seen = auto.reference(text, 2)[2]
    for kind in range(1, 6):
        hits = [hit for size, hit in seen if auto.KINDS[min(size, auto.LONGEST)] == kind]
        if 8 < len(hits) < auto.REMEMBERED - 2:  # none has been forgotten
            prior = 2 * 2**kind / (2**kind + 8)
            assert abs(memory.right[kind] / memory.tried[kind] - (prior + sum(hits)) / (2 + len(hits))) < 1e-12
    assert sum(hit for _, hit in seen) not in (0, len(seen))
    draft = drafter.propose(drafter.begin([1, 2, 3, 4] * 30, Never()), 24)
    assert draft.tokens == [1, 2, 3, 4] * 6 and min(draft.chances) > 0.9
    for token in (5, 6, 7, 5, 6, 7, 5, 5, 6, 5, 5, 6, 6, 5):  # what is written weighs more than what was given
        drafter.advance(memory, [token])
    assert max(memory.tried) <= auto.GIVEN + 14
    lost = drafter.begin([token for i in range(60) for token in (1, 2, 3 + i % 5, (3 * i) % 7)], Never())
    assert lost.right[2] / lost.tried[2] < 0.4


def test_it_drafts_by_goodput_and_uses_fewer_calls_on_text_that_repeats():
    model = sharp("mingru, attention")
    prompt = [[1, 2, 3, 4] * 6]
    plain = generate(model, prompt, 120, decoder="greedy")
    found = generate(model, prompt, 120, decoder="greedy", drafter="auto")
    assert found.tokens == plain.tokens
    assert found.stats["target_calls"] < 0.7 * plain.stats["target_calls"]
