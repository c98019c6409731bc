from runnel.drafters import auto
from runnel.generation import generate
from tests.decoding.support import sharp


class Never:
    def __call__(self, logits, ahead, path=(), branch=0):
        raise AssertionError("auto draws nothing")


def test_it_copies_after_a_match():
    config = auto.Config()
    drafter = auto.Auto(config)
    for text, length in (([5, 6, 7, 5, 6], 2), ([1, 2, 3], 0), ([5, 6, 7, 8, 9, 6], 1)):
        draft = drafter.propose(drafter.begin(text, Never()), 3)
        assert auto.reference(length, config) == bool(draft.tokens)
    assert drafter.propose(drafter.begin([5, 6, 7, 5, 6], Never()), 3).tokens == [7, 5, 6]


def test_it_drafts_by_goodput_and_uses_fewer_calls_on_text_that_repeats():
    model = sharp("mingru, attention")
    prompt = [[1, 2, 3, 4] * 6]
    plain = generate(model, prompt, 120, decoder="greedy")
    found = generate(model, prompt, 120, decoder="greedy", drafter="auto")
    assert found.tokens == plain.tokens
    assert found.stats["target_calls"] < 0.7 * plain.stats["target_calls"]
