import pytest

import runnel
from runnel.processors import min_length

from .support import RAGGED, assert_is, assert_lossless, logits_of, sharp, texts_of, unchanged


def test_it_is_the_definition():
    config, logits, texts = min_length.Config(5), logits_of(60), texts_of(60, stops=frozenset([2, 6]))
    found = min_length.MinLength(config).process(logits, texts)
    rows = zip(logits.tolist(), texts, strict=True)
    assert_is(found, [min_length.reference(row, text, config) for row, text in rows])


def test_a_length_of_zero_changes_nothing():
    assert unchanged(min_length.MinLength(min_length.Config(0)))


def test_it_is_lossless_and_a_row_ends_no_earlier():
    eos = [2, 4]
    free = runnel.generate(sharp(), RAGGED, 24, temperature=1.5, seed=[3, 5, 8], eos=eos)
    assert min(map(len, free.tokens)) < 9
    tokens = assert_lossless([min_length.Config(9)], eos=eos)
    for row in tokens:
        assert len(row) > 9
        assert not set(row[:9]) & set(eos)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="min_length must be at least 0; got -1"):
        min_length.Config(-1)
    with pytest.raises(ValueError, match="min_length needs an eos"):
        runnel.generate(sharp(), [[1]], processors=[min_length.Config(3)])
    with pytest.raises(ValueError, match="min_length must be at most max_new_tokens, 8; got 9"):
        runnel.generate(sharp(), [[1], [2]], [9, 8], eos=1, processors=[min_length.Config(9)])
    with pytest.raises(
        ValueError, match=r"processor 'min_length' needs a length: give min_length.Config\(length=...\)"
    ):
        runnel.generate(sharp(), [[1]], processors=["min_length"])
