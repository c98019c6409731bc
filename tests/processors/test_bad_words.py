import pytest

import runnel
from runnel.processors import bad_words

from .support import RAGGED, assert_is, assert_lossless, logits_of, sharp, texts_of, unchanged

SEQUENCES = ([3], [1, 2], [0, 0, 1], [5, 4, 3, 2, 1, 0, 5, 4, 3, 2, 1, 0])


def test_it_is_the_definition():
    config, logits, texts = bad_words.Config(SEQUENCES), logits_of(200), texts_of(200, vocab=3)
    found = bad_words.BadWords(config).process(logits, texts)
    assert found[:, 2].isinf().any()
    rows = zip(logits.tolist(), texts, strict=True)
    assert_is(found, [bad_words.reference(row, [*t.prompt, *t.written], config) for row, t in rows])


def test_no_words_change_nothing():
    assert unchanged(bad_words.BadWords(bad_words.Config([])))


def test_it_is_lossless_and_they_are_never_written():
    plain = runnel.generate(sharp(), RAGGED, 60, temperature=1.5, seed=[3, 5, 8]).tokens
    bad = [plain[0][:2], plain[1][4:7], [RAGGED[2][-1], plain[2][0]]]  # the last begins in the prompt
    tokens = assert_lossless([bad_words.Config(bad)], max_new_tokens=60)
    for prompt, row in zip(RAGGED, tokens, strict=True):
        text = [*prompt, *row]
        for word in bad:
            first = len(prompt) - len(word) + 1
            assert all(text[i : i + len(word)] != word for i in range(max(0, first), len(text)))


def test_when_nothing_is_left_it_is_said():
    with pytest.raises(ValueError, match="no token is left to write: all are banned by bad_words"):
        loops = bad_words.Config([[a, b, c] for a in range(5) for b in range(5) for c in range(5)])
        runnel.generate(sharp(), [[1]], 9, processors=[loops], drafter="suffix")


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="at least one token each; got an empty one"):
        bad_words.Config([[1], []])
    with pytest.raises(ValueError, match=r"bad_words must be of tokens in \[0, 5\); got 7"):
        runnel.generate(sharp(), [[1]], processors=[bad_words.Config([[1, 7]])])
