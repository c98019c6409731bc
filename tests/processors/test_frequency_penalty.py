import math

import pytest

from runnel.processors import frequency_penalty

from .support import assert_is, assert_lossless, logits_of, texts_of, unchanged


@pytest.mark.parametrize("penalty", [0.7, -0.4, 30.0])
def test_it_is_the_definition(penalty):
    config, logits, texts = frequency_penalty.Config(penalty), logits_of(60), texts_of(60)
    found = frequency_penalty.FrequencyPenalty(config).process(logits, texts)
    rows = zip(logits.tolist(), texts, strict=True)
    assert_is(found, [frequency_penalty.reference(row, text.written, config) for row, text in rows])


def test_a_penalty_of_zero_changes_nothing():
    assert unchanged(frequency_penalty.FrequencyPenalty(frequency_penalty.Config(0.0)))


def test_it_is_lossless():
    assert_lossless([frequency_penalty.Config(1.5)])


@pytest.mark.parametrize("penalty", [math.inf, math.nan])
def test_what_cannot_be_meant_is_refused(penalty):
    with pytest.raises(ValueError, match="frequency_penalty must be a finite number; got"):
        frequency_penalty.Config(penalty)


def test_a_great_penalty_writes_every_token_as_often():
    tokens = assert_lossless([frequency_penalty.Config(1000.0)], max_new_tokens=25)
    assert all(sorted(row) == sorted([*range(5)] * 5) for row in tokens)
